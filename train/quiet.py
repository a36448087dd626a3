"""TensorFlow writes what it thinks of drivers and deprecations to stderr, between our own lines; not here."""

import logging
import os


def hush_tensorflow() -> None:
    """Silences all but errors; call it before the first import of TensorFlow. A level the user has set stays."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
