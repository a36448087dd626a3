"""Turns the exceptions for damaged zip archives into one kind of error, with file and tensor."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import CheckpointError, DamagedError, UnsupportedError


@contextmanager
def damage_at(path: str, what: str, kinds: tuple[type[Exception], ...], tensor: str | None = None) -> Iterator[None]:
    """Turns the exceptions `kinds`, by which zipfile and readers of its members report damage, into a DamagedError:
    "not a sound `what`". Raises UnsupportedError for an unknown compression and for a password."""
    try:
        yield
    except CheckpointError as error:
        raise error.at(path=path, tensor=tensor) from None
    except kinds as error:
        raise DamagedError(f"not a sound {what}: {error}", path=path, tensor=tensor) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL comes from an impossible offset
            raise
        raise DamagedError(f"not a sound {what}: it points outside itself", path=path, tensor=tensor) from error
    except (NotImplementedError, RuntimeError) as error:  # unknown compression, or a password
        raise UnsupportedError(f"zip archive: {error}", path=path, tensor=tensor) from error
