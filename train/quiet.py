"""TensorFlow writes what it thinks of drivers and deprecations to stderr, between our own lines; not here."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def hush_tensorflow() -> None:
    """Imports TensorFlow and lets it look for devices, without a word; later only its errors are shown.

    A TF_CPP_MIN_LOG_LEVEL that the user has set is respected: then everything is shown. Raises ImportError as the
    import does.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        import tensorflow
    else:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
        with _stderr_held():
            import tensorflow

            tensorflow.config.list_physical_devices()
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _stderr_held() -> Iterator[None]:
    """Keeps what is written to the process's stderr, C++ libraries included; shows it when an exception passes."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(shown, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
