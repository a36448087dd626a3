"""Inspect, plan, edit and fine-tune legacy TensorFlow checkpoints. Names are imported on first use."""

from importlib import import_module as _import_module

__version__ = "0.1.0"

_HOME = {
    "CheckpointError": "errors",
    "Spec": "tensors",
    "Tensor": "tensors",
    "Tensors": "tensors",
    "from_arrays": "tensors",
    "open_checkpoint": "formats",
    "save_checkpoint": "formats",
    "select": "names",
    "make_plan": "plan",
    "diff_tensors": "diff",
    "verify": "verification",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(_import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
