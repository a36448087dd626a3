"""Names of nets from elsewhere: Keras, torchvision, Inception as of 2015, slim's nets that are not here."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

_LOOKED_AT = 10_000  # names; no net of these families has more

# The k-th group of units in a bottleneck ResNet: how many units the third one has tells the depth.
_RESNET_DEPTH = {6: 50, 23: 101, 36: 152}
_KERAS_INCEPTION_V3_CONVOLUTIONS = 94
_TORCH_VGG_DEPTH = {10: "AlexNet", 18: "VGG-11", 28: "VGG-16", 34: "VGG-19"}  # by the last convolution's number
_OTHER_SLIM = r"(?:^|/)(MobilenetV3)/"


def looks_like(names: Iterable[str]) -> str | None:
    """A phrase such as "Keras names, looks like InceptionV3", or None.

    >>> looks_like(["block1_conv1/kernel", "block3_conv3/kernel", "block5_conv3/bias"])
    'Keras names, looks like VGG-16'
    """
    text = "\n".join(itertools.islice(names, _LOOKED_AT))
    return next((phrase for family in _FAMILIES if (phrase := family(text))), None)


def _inception_2015(text: str) -> str | None:
    return "2015 Inception names, looks like InceptionV3" if re.search(r"(^|/)mixed_17x17x768e/", text, re.M) else None


def _other_slim(text: str) -> str | None:
    found = re.search(_OTHER_SLIM, text, re.M)
    return f"slim {found[1]}, which is not one of the nets here" if found else None


def _landmark(text: str) -> str | None:
    """Nets that one name gives away."""
    return next((phrase for pattern, phrase in _LANDMARKS.items() if re.search(pattern, text, re.M)), None)


def _keras_vgg(text: str) -> str | None:
    if not re.search(r"\bblock5_conv3\b", text):
        return None
    return f"Keras names, looks like VGG-{19 if re.search(r'block5_conv4', text) else 16}"


def _keras_resnet(text: str) -> str | None:
    units = _highest(r"\bconv4_block(\d+)_\d_conv\b", text)
    version = 2 if re.search(r"_preact_bn\b", text) else 1
    if units in _RESNET_DEPTH:
        return f"Keras names, looks like ResNet-{_RESNET_DEPTH[units]} v{version}"
    # The names of Keras' first ResNet-50 count the units of a group by letters.
    return "Keras names, looks like ResNet-50 v1" if re.search(r"\bres4f_branch2a\b", text) else None


def _keras_inception(text: str) -> str | None:
    convolutions = set(re.findall(r"(?:^|/)(conv2d(?:_\d+)?)/", text, re.M))
    normalised = re.search(r"(^|/)batch_normalization(_\d+)?/", text, re.M)
    if len(convolutions) == _KERAS_INCEPTION_V3_CONVOLUTIONS and normalised:
        return "Keras names, looks like InceptionV3"
    return None


def _torch_resnet(text: str) -> str | None:
    last = _highest(r"\blayer3\.(\d+)\.conv3\.weight\b", text)
    depth = _RESNET_DEPTH.get(last + 1)
    return f"torch names, looks like ResNet-{depth} v1" if depth else None


def _torch_inception(text: str) -> str | None:
    return "torch names, looks like InceptionV3" if re.search(r"\bMixed_7c\.branch1x1\.conv\.weight\b", text) else None


def _torch_sequential(text: str) -> str | None:
    title = _TORCH_VGG_DEPTH.get(_highest(r"\bfeatures\.(\d+)\.weight\b", text))
    headed = re.search(r"\b(classifier\.6|pre_logits\.fc2)\.weight\b", text)
    return f"torch names, looks like {title}" if title and headed else None


def _highest(pattern: str, text: str) -> int:
    """The highest number that the pattern's group finds, or -1."""
    return max(map(int, re.findall(pattern, text)), default=-1)


_LANDMARKS = {
    r"\bblock35_10_conv/": "Keras names, looks like InceptionResNetV2",
    r"\bconv_dw_13/": "Keras names, looks like MobileNet",
    r"\bblock_16_project/": "Keras names, looks like MobileNetV2",
    r"\bfeatures\.21\.branch2_3a\.conv\.weight\b": "torch names, looks like InceptionV4",
    r"\brepeat_1\.19\.conv2d\.weight\b": "torch names, looks like InceptionResNetV2",
}
_FAMILIES: tuple[Callable[[str], str | None], ...] = (
    _inception_2015,
    _other_slim,
    _landmark,
    _keras_vgg,
    _keras_resnet,
    _keras_inception,
    _torch_resnet,
    _torch_inception,
    _torch_sequential,
)
