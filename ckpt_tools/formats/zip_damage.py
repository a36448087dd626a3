"""What is wrong with a file that is a zip archive is one kind of error, with its place."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import CheckpointError, DamagedError, UnsupportedError


@contextmanager
def damage_at(path: str, what: str, kinds: tuple[type[Exception], ...], tensor: str | None = None) -> Iterator[None]:
    """zipfile, and what reads a member, report damage by a dozen `kinds` of exception: each becomes a DamagedError that
    says that the file is not a sound `what`. UnsupportedError for another compression and for a password."""
    try:
        yield
    except CheckpointError as error:
        raise error.at(path=path, tensor=tensor) from None
    except kinds as error:
        raise DamagedError(f"not a sound {what}: {error}", path=path, tensor=tensor) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # an offset that no file can have
            raise
        raise DamagedError(f"not a sound {what}: it points outside itself", path=path, tensor=tensor) from error
    except (NotImplementedError, RuntimeError) as error:  # another compression; a password
        raise UnsupportedError(f"zip archive: {error}", path=path, tensor=tensor) from error
