"""The errors of this package, each with a message of one sentence.

CheckpointError
├── NotACheckpointError   the path holds something else, or nothing, or only a part of a checkpoint
├── DamagedError          the file is a checkpoint, but its structure or a checksum is wrong
├── RemoteError           a URL cannot be read: no library, no permission, no answer, no ranges
├── UnsupportedError      valid, but cannot be done with this format, type or installation
├── SelectionError        a scope pattern or a name selects nothing, or selects too much
├── PlanError             the plan has conflicts; `.plan` holds it
├── RecipeError           a recipe, a config file or an option is wrong
├── DataError             a data set or an image cannot be used
├── TrainingError         a run cannot start, continue or go on
└── OutputError           the target exists, is out of space, or cannot be written
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class CheckpointError(Exception):
    """Base of every error that this package raises on purpose.

    Inner code states the fact; a caller that knows the file or the tensor adds it with `at`, so that the text always
    says which file, which tensor, what was found, and what to do next.

    >>> str(CheckpointError("checksum differs", advice="Copy the file again.").at(path="m.ckpt", tensor="a/weights"))
    'm.ckpt: tensor a/weights: checksum differs. Copy the file again.'
    """

    def __init__(self, fact: str, *, path: object = None, tensor: str | None = None, advice: str | None = None) -> None:
        super().__init__(fact)
        self.fact = fact
        self.path = None if path is None else str(path)
        self.tensor = tensor
        self.advice = advice

    def at(self, *, path: object = None, tensor: str | None = None) -> CheckpointError:
        """Adds path and tensor unless they are already set (the inner place is more exact); returns the error
        itself."""
        if self.path is None and path is not None:
            self.path = str(path)
        if self.tensor is None:
            self.tensor = tensor
        return self

    def __str__(self) -> str:
        text = self.fact
        if self.tensor is not None:
            text = f"tensor {self.tensor}: {text}"
        if self.path is not None:
            text = f"{self.path}: {text}"
        if self.advice:
            text = f"{text} {self.advice}" if text.endswith("?") else f"{text.rstrip('.')}. {self.advice}"
        return text


class NotACheckpointError(CheckpointError):
    """The path holds something else, nothing, or only a part of a checkpoint."""


class DamagedError(CheckpointError):
    """The file is a checkpoint, but its structure or a checksum is wrong."""


class RemoteError(CheckpointError):
    """A URL cannot be read: a library is missing, the server gives no permission, no answer, or no ranges."""


class UnsupportedError(CheckpointError):
    """Valid, but cannot be done with this format, type or installation."""


class SelectionError(CheckpointError):
    """A scope pattern or a name selects nothing, or selects too much."""


class PlanError(CheckpointError):
    """The restore plan has conflicts; `plan` is the plan that names them all."""

    plan: object = None


class RecipeError(CheckpointError):
    """A recipe, a config file or an option is wrong."""


class DataError(CheckpointError):
    """A data set or an image cannot be used."""


class TrainingError(CheckpointError):
    """A run cannot start, continue or go on."""


class OutputError(CheckpointError):
    """The target exists, is out of space, or cannot be written."""


@contextmanager
def needs(what: str = "", extra: str = "train") -> Iterator[None]:
    """Wraps code that needs an `extra` of this package. Raises UnsupportedError if a module of it is not installed.

    >>> with needs("--check"):
    ...     raise ModuleNotFoundError(name="tf_slim")
    Traceback (most recent call last):
    ckpt_tools.errors.UnsupportedError: --check needs tf_slim. pip install "ckpt-tools[train]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ckpt_tools"):
            raise
        advice = f'pip install "ckpt-tools[{extra}]"'
        raise UnsupportedError(f"{what} needs {error.name}".lstrip(), advice=advice) from error


def nearest(wrong: str, known: Iterable[str]) -> str:
    """`"; did you mean A or B?"` with up to three known words, or an empty string if nothing is close.

    >>> nearest("Logitz", ["Logits", "Conv2d_1a_3x3"])
    '; did you mean Logits?'
    """
    import difflib  # imported only on errors, since it takes time

    by_lower: dict[str, str] = {}
    for word in known:
        by_lower.setdefault(word.lower(), word)
    close = difflib.get_close_matches(wrong.lower(), by_lower, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(by_lower[c] for c in close)}?" if close else ""
