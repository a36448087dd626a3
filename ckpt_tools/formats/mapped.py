"""A file whose bytes are looked at in place. It is opened on first use and mapped once, whoever asks."""

from __future__ import annotations

import mmap
import os
import stat

from ..errors import DamagedError, NotACheckpointError


class MappedFile:
    """Bytes of a regular file. Slices are views of the map: nothing is copied, nothing is read before it is needed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._view: memoryview | None = None

    def view(self) -> memoryview:
        """The whole file. Raises NotACheckpointError where there is none, or no regular file."""
        if self._view is None:
            try:
                if not stat.S_ISREG(os.stat(self.path).st_mode):
                    raise NotACheckpointError("is not a regular file", path=self.path)
                with open(self.path, "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    self._view = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b"")
            except FileNotFoundError:
                raise NotACheckpointError("this file of the checkpoint is missing", path=self.path) from None
        return self._view

    def __len__(self) -> int:
        return len(self.view())

    def part(self, offset: int, size: int, what: str) -> memoryview:
        """Bytes `offset` to `offset + size`; DamagedError names `what` when they are not all there."""
        view = self.view()
        if offset < 0 or size < 0 or offset + size > len(view):
            raise DamagedError(
                f"{what} should lie in bytes {offset:,} to {offset + size:,}, but the file has {len(view):,} bytes",
                path=self.path,
            )
        return view[offset : offset + size]
