"""TensorFlow, loaded without a word where it is not loaded yet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UnsupportedError


@contextmanager
def with_tensorflow(what: str) -> Iterator[None]:
    """Around the work. Raises UnsupportedError where a package is missing that `what` needs."""
    try:
        if "tensorflow" not in sys.modules:  # whoever has loaded it has set it up as it suits
            from ..train.graph.quiet import hush_tensorflow

            hush_tensorflow()
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ckpt_tools"):
            raise
        advice = 'pip install "ckpt-tools[train]"'
        raise UnsupportedError(f"{what} needs {error.name}", advice=advice) from error
