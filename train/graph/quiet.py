"""Keeps TensorFlow's messages about drivers and deprecations out of stderr."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


def hush_tensorflow() -> None:
    """Imports TensorFlow and lets it look for devices silently; afterwards only its errors are shown.

    If the user has set TF_CPP_MIN_LOG_LEVEL to 0 or 1, everything is shown. Raises ImportError if the import does.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "") in ("0", "1"):
        _import_tensorflow()
    else:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with stderr_held():
            _import_tensorflow().config.list_physical_devices()
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _import_tensorflow() -> ModuleType:
    """Imports TensorFlow and tf_slim without Keras and scikit-learn, which take a third of the time and serve features
    that are not used here. Both can still be imported afterwards."""
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # else the first user takes all of a GPU's memory
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TensorFlow then asks for tf_keras, and goes on without it
    blocked = [name for name in ("sklearn.metrics",) if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(blocked))  # None: ImportError, which tf_slim catches
    try:
        import tensorflow
        import tf_slim  # noqa: F401
    finally:
        for name in blocked:
            del sys.modules[name]
        del os.environ["TF_USE_LEGACY_KERAS"]
        if before is not None:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return tensorflow


@contextmanager
def stderr_held() -> Iterator[None]:
    """Holds back the process's stderr, including that of C++ libraries; shows it if an exception passes."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(shown, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
