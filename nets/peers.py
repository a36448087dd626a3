"""The same nets as Keras, torchvision and timm build them, to be run beside ours.

Each library is imported when its net is asked for, PyTorch before TensorFlow: else the process may end in a
segmentation fault. A peer has the layers and weights that its library gives it, under that library's names; what goes
in and comes out of it here is [batch, height, width, channels], as with ours.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ckpt_tools.errors import UnsupportedError
from ckpt_tools.tensors import Spec

from .net import Net

if TYPE_CHECKING:
    import numpy as np

_DEPTHS = (50, 101, 152)
_WIDTHS = {"": 1.0, "_140": 1.4, "_130": 1.3, "_075": 0.75, "_050": 0.5, "_035": 0.35, "_025": 0.25}
KERAS: dict[str, tuple[str, dict[str, float]]] = {
    "inception_v3": ("InceptionV3", {}),
    "inception_resnet_v2": ("InceptionResNetV2", {}),
    "nasnet_mobile": ("NASNetMobile", {}),
    **{f"vgg_{depth}": (f"VGG{depth}", {}) for depth in (16, 19)},
    **{f"resnet_v1_{depth}": (f"ResNet{depth}", {}) for depth in _DEPTHS},
    **{f"resnet_v2_{depth}": (f"ResNet{depth}V2", {}) for depth in _DEPTHS},
    **{f"mobilenet_v1{width}": ("MobileNet", {"alpha": alpha}) for width, alpha in _WIDTHS.items()},
    **{f"mobilenet_v2{width}": ("MobileNetV2", {"alpha": alpha}) for width, alpha in _WIDTHS.items()},
}
TORCH = {
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "inception_resnet_v2": "inception_resnet_v2",
    "vgg_a": "vgg11",
    **{f"vgg_{depth}": f"vgg{depth}" for depth in (16, 19)},
    **{f"resnet_v1_{depth}": f"resnet{depth}" for depth in _DEPTHS},
}


class Output(NamedTuple):
    """What a layer gave: `values` [batch, ...], behind a ReLU that is part of the layer there where `rectified`."""

    values: np.ndarray
    rectified: bool


class Peer(Protocol):
    """A net of another library."""

    def specs(self) -> dict[str, Spec]:
        """Its tensors by the names that the library's files have."""

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Gives it these values, by the names of `specs`."""

    def run(self, images: np.ndarray, layers: Sequence[str]) -> dict[str, Output]:
        """What layers give for images [batch, height, width, 3]; those that were not run are left out."""


def check_library(world: str) -> None:
    """Raises UnsupportedError where the library is not installed."""
    try:
        importlib.import_module(world)
    except ImportError:
        advice = f"pip install {'tensorflow' if world == 'keras' else world}, or leave --check out."
        raise UnsupportedError(f"--check runs the net of {world}, which is not installed", advice=advice) from None


def build_peer(world: str, net: Net, classes: int | None) -> Peer:
    """The net as `world` builds it for images of its own size, with whatever values; without a head where `classes` is
    None."""
    return _Keras(net, classes) if world == "keras" else _Torch(world, net, classes)


class _Keras:
    def __init__(self, net: Net, classes: int | None) -> None:
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        import keras

        title, options = KERAS[net.family]
        top = {"include_top": False} if classes is None else {"classes": classes, "classifier_activation": None}
        how = {"weights": None, "input_shape": (net.image_size, net.image_size, 3), **options, **top}
        self.keras, self.model = keras, getattr(keras.applications, title)(**how)
        self.weights = {
            f"{layer.name}/{weight.path.rpartition('/')[2]}": weight
            for layer in self.model.layers
            for weight in layer.weights
        }

    def specs(self) -> dict[str, Spec]:
        return {name: Spec("float32", tuple(weight.shape)) for name, weight in self.weights.items()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            self.weights[name].assign(array)

    def run(self, images: np.ndarray, layers: Sequence[str]) -> dict[str, Output]:
        import numpy as np

        found = [self.model.get_layer(name) for name in layers]
        model = self.keras.Model(self.model.inputs[0], [layer.output for layer in found])
        values = model(images, training=False)
        outputs = zip(found, values if isinstance(values, list | tuple) else [values], strict=True)
        return {layer.name: Output(np.array(value), self._rectified(layer)) for layer, value in outputs}

    def _rectified(self, layer: object) -> bool:
        return getattr(layer, "activation", None) is self.keras.activations.relu


class _Torch:
    def __init__(self, world: str, net: Net, classes: int | None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = (_timms if world == "timm" else _torchvisions)(TORCH[net.family], classes).eval()

    def specs(self) -> dict[str, Spec]:
        from ckpt_tools.dtypes import dtype_name

        state = {name: tensor.numpy() for name, tensor in self.model.state_dict().items()}
        return {name: Spec(dtype_name(array.dtype), array.shape) for name, array in state.items()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        import numpy as np
        import torch

        state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        self.model.load_state_dict({**self.model.state_dict(), **state}, strict=True)

    def run(self, images: np.ndarray, layers: Sequence[str]) -> dict[str, Output]:
        import torch

        found: dict[str, Output] = {}

        def keep(name: str) -> object:
            def hook(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
                values = output.detach().clone().numpy()  # a ReLU in place comes behind it
                values = values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
                found[name] = Output(values, isinstance(getattr(module, "act", None), torch.nn.ReLU))

            return hook

        hooks = [self.model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
        try:
            with torch.no_grad():
                self.model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        finally:
            for hook in hooks:
                hook.remove()
        return found


def _timms(name: str, classes: int | None) -> Any:
    import timm

    more = {"aux_logits": False} if name == "inception_v3" else {}
    return timm.create_model(name, pretrained=False, num_classes=classes or 0, **more)


def _torchvisions(name: str, classes: int | None) -> Any:
    import torch
    import torchvision

    more = {"init_weights": False, "aux_logits": True} if name == "inception_v3" else {}
    model = getattr(torchvision.models, name)(weights=None, num_classes=classes or 1, **more)
    if classes is None:
        if name.startswith("vgg"):
            model.classifier[-1] = torch.nn.Identity()
        else:
            model.fc = torch.nn.Identity()
    return model
