"""Inspect, plan, edit and fine-tune legacy TensorFlow checkpoints.

    import ckpt_tools as ck

    ck.open_checkpoint("inception_v3.ckpt")
    ck.make_plan("inception_v3.ckpt", num_classes=5, exclude="Logits", trainable="Logits")
    ck.finetune(checkpoint="inception_v3.ckpt", data="photos", train_dir="run", exclude="Logits", trainable="Logits")

Names are imported on first use: neither numpy nor TensorFlow is loaded before something needs it.
"""

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
    "diff_tensors": "diff",
    "verify": "verification",
    # With nets and training: see api/.
    "make_plan": "api.planning",
    "finetune": "api.training",
    "dry_run": "api.training",
    "find_learning_rate": "api.training",
    "evaluate": "api.using",
    "features": "api.using",
    "export": "api.using",
    "predict": "api.using",
    "open_classifier": "api.using",
    "data_set": "train.data.memory",
    "draw_images": "api.pictures",
    "draw_features": "api.pictures",
    "draw_values": "api.pictures",
    "draw_confusion": "api.pictures",
    "draw_errors": "api.pictures",
}
_MODULES = ("errors", "events")
__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(_import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
