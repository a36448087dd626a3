"""The names that Inception v3 had in 2015, before slim's InceptionV3: the release inception-v3-2016-03-01 and its kin.

The old names are those of tensorflow/models' `inception/slim/inception_model.py`; the correspondence of the
modules is in the docstring of slim's `inception_v3_base`. Inside a branch both nets make their convolutions in the
same order, so the k-th `Conv_k` of the old one is the k-th convolution of the new one.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..kinds import AVERAGE

_LAYERS = {
    "conv0": "Conv2d_1a_3x3",
    "conv1": "Conv2d_2a_3x3",
    "conv2": "Conv2d_2b_3x3",
    "conv3": "Conv2d_3b_1x1",
    "conv4": "Conv2d_4a_3x3",
    "aux_logits/proj": "AuxLogits/Conv2d_1b_1x1",
    "aux_logits/Conv": "AuxLogits/Conv2d_2a_5x5",
    "aux_logits/FC": "AuxLogits/Conv2d_2b_1x1",
    "logits/logits": "Logits/Conv2d_1c_1x1",
}
_MODULES = {
    "mixed_35x35x256a": "Mixed_5b",
    "mixed_35x35x288a": "Mixed_5c",
    "mixed_35x35x288b": "Mixed_5d",
    "mixed_17x17x768a": "Mixed_6a",
    "mixed_17x17x768b": "Mixed_6b",
    "mixed_17x17x768c": "Mixed_6c",
    "mixed_17x17x768d": "Mixed_6d",
    "mixed_17x17x768e": "Mixed_6e",
    "mixed_17x17x1280a": "Mixed_7a",  # the old code says that its scope is wrong and kept for old checkpoints
    "mixed_8x8x2048a": "Mixed_7b",
    "mixed_8x8x2048b": "Mixed_7c",
}
_BRANCHES = (
    "branch1x1",
    "branch5x5",
    "branch7x7",
    "branch3x3",
    "branch3x3dbl",
    "branch7x7dbl",
    "branch7x7x3",
    "branch_pool",
)


def rename_2015(source: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Old scope -> scope of slim's InceptionV3, for every layer that is in the source and in the net."""
    old_layers = dict.fromkeys(_layer(name) for name in source)
    new_branches: dict[str, list[str]] = {}
    for layer in sorted({_layer(name) for name in wanted}):
        new_branches.setdefault(layer.rpartition("/")[0], []).append(layer)
    renames = {old: f"InceptionV3/{new}" for old, new in _LAYERS.items() if old in old_layers}
    for old_module, new_module in _MODULES.items():
        inside = [layer for layer in old_layers if layer.startswith(old_module + "/")]
        branches = sorted({layer.split("/")[1] for layer in inside if layer.count("/") == 2}, key=_branch_order)
        for number, branch in enumerate(branches):
            old = sorted((layer for layer in inside if layer.split("/")[1] == branch), key=_layer_order)
            new = new_branches.get(f"InceptionV3/{new_module}/Branch_{number}", [])
            renames |= dict(zip(old, new, strict=False)) if len(old) == len(new) else {}
    return renames


def _layer(name: str) -> str:
    """`conv0/BatchNorm/beta` -> `conv0`, and the same of a moving average of it."""
    path = name.removesuffix(AVERAGE).rpartition("/")[0]
    return path.removesuffix("/BatchNorm")


def _branch_order(branch: str) -> int:
    return _BRANCHES.index(branch) if branch in _BRANCHES else len(_BRANCHES)


def _layer_order(layer: str) -> int:
    number = layer.rpartition("Conv")[2].removeprefix("_")
    return int(number) if number.isdigit() else 0
