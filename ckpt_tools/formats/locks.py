"""Locks that end with the process that holds them, however it ends: `flock`, or a locked byte on Windows.

On Windows nobody else can read a locked byte, so it lies in a separate file, `PATH.lock`. A waiting process keeps that
file open, so that it is not removed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

ENDING = ".lock"
_AGAIN = 0.05  # seconds between attempts


class Lock(NamedTuple):
    """A lock that is held; `made` is the file created for it, if any."""

    descriptor: int
    made: str = ""

    def release(self) -> None:
        """Unlocks, and removes the file created for the lock."""
        os.close(self.descriptor)
        if self.made:
            try:
                os.unlink(self.made)
            except OSError:
                return  # another process waits for it


def acquire(path: str | os.PathLike[str], *, wait: bool = False, busy: Exception | None = None) -> Lock | None:
    """Locks an existing file or folder. If another process holds the lock and `wait` is false, raises `busy`, or
    returns None if that is not given. Also returns None if the file system or Python does not support locks."""
    try:
        import fcntl
    except ImportError:
        return _acquire_byte(f"{os.fspath(path)}{ENDING}", wait, busy)
    try:
        # Network file systems lock only files that are open for writing; folders cannot be opened that way.
        descriptor = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if busy and isinstance(error, BlockingIOError):
            raise busy from None
        return None
    return Lock(descriptor)


def _acquire_byte(path: str, wait: bool, busy: Exception | None) -> Lock | None:
    try:
        locking = __import__("msvcrt")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    except (ImportError, OSError):
        return None
    while True:
        try:
            locking.locking(descriptor, locking.LK_NBLCK, 1)
            return Lock(descriptor, path)
        except OSError:
            if not wait:
                os.close(descriptor)
                if busy:
                    raise busy from None
                return None
        time.sleep(_AGAIN)


@contextmanager
def turn(path: str | os.PathLike[str]) -> Iterator[None]:
    """Waits until no other process has `path` locked, and locks it for the duration of the `with`."""
    lock = acquire(path, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
