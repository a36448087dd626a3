"""TensorFlow, loaded without a word where it is not loaded yet."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import needs

_LOADING = threading.Lock()  # what keeps it quiet is the process's own: environment, stderr


@contextmanager
def with_tensorflow(what: str) -> Iterator[None]:
    """Around the work. Raises UnsupportedError where a package is missing that `what` needs."""
    with needs(what):
        with _LOADING:
            if "tensorflow" not in sys.modules:  # whoever has loaded it has set it up as it suits
                from ..train.graph.quiet import hush_tensorflow

                hush_tensorflow()
        yield
