"""`NAME.provenance.json`, written beside every checkpoint: its sources, the changes made, and program versions."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, BinaryIO

from ..tensors import Tensor
from .checkpoint import Checkpoint
from .storage import absolute, is_remote, open_file, sizes

ENDING = ".provenance.json"
_BLOCK = 1 << 20


def aside(work: Callable[..., object], *given: object) -> Callable[[], Any]:
    """Starts the work in a thread; hashing releases the GIL. The returned function waits for it, and returns its result
    or raises its exception."""
    found: list[object] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work(*given))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> object:
        thread.join()
        if failed:
            raise failed[0]
        return found[0]

    return result


def sidecar(
    tensors: Mapping[str, Tensor], format: str, files: Mapping[str, object], said: Mapping[str, Any]
) -> dict[str, object]:
    """The content of the sidecar.

    `files` are the `fingerprints` of the new checkpoint. `said` comes from the caller: "source", from `described` or
    anything that JSON can hold, "command", "recipe", and "actions", tensor name -> what was done to it. A tensor
    without an action counts as "copied" if its bytes are still stored, else as "written"."""
    actions = dict(said.get("actions") or {})
    done = {
        name: actions.get(name) or ("copied" if is_stored(tensor) else "written") for name, tensor in tensors.items()
    }
    return {
        "source": said.get("source"),
        **{key: value for key, value in said.items() if key not in ("source", "actions")},
        "format": format,
        "files": dict(files),
        "versions": _versions(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "tensors": done,
    }


def dump(content: Mapping[str, object], path: str) -> None:
    """Writes the sidecar as indented JSON, for people and for jq."""
    with open(path, "w", encoding="utf-8") as out:
        json.dump(content, out, indent=1, ensure_ascii=True, default=str)
        out.write("\n")


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a local sidecar, or of a run's plan.json; {} if there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def sources_of(record: Mapping[str, Any]) -> list[str]:
    """The paths of the sources in a record, in order; "" for a source without a path."""
    found = record.get("source")
    sources = found if isinstance(found, list) else [found]
    paths = (source.get("path") if isinstance(source, dict) else source for source in sources)
    return [path if isinstance(path, str) else "" for path in paths]


def is_stored(tensor: Tensor) -> bool:
    """Whether the V2 writer can copy this tensor's bytes, or those of all its slices, as they are."""
    if tensor.slices:
        return all(part.tensor.stored is not None for part in tensor.slices)
    return tensor.stored is not None


class Digest:
    """SHA-256 of a file that is written from front to back, computed meanwhile by a thread that reads it."""

    def __init__(self, path: str) -> None:
        self._written: SimpleQueue[int | None] = SimpleQueue()
        self.result = aside(self._follow, path)  # waits for the end of `with`

    def written(self, size: int) -> None:
        """Tells the thread that so many more bytes were appended to the file."""
        self._written.put(size)

    def __enter__(self) -> Digest:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._written.put(None)
        if kind is not None:  # the file is about to be removed, and must not be open
            with suppress(OSError):
                self.result()

    def _follow(self, path: str) -> str:
        digest, ahead, size = hashlib.sha256(), 0, self._written.get()  # the file exists after the first report
        with open(path, "rb") as file:
            while size is not None:
                ahead += size
                while ahead >= _BLOCK and (block := file.read(_BLOCK)):
                    digest.update(block)
                    ahead -= len(block)
                size = self._written.get()
            _add(digest, file)
        return digest.hexdigest()


def fingerprints(files: Mapping[str, str], digests: Mapping[str, Callable[[], str]]) -> dict[str, object]:
    """Size and digest of each file of a new checkpoint. `files` maps final names to present paths, `digests` final
    names to functions that return a SHA-256 already computed."""
    return {name: _fingerprint(path, name, digests.get(name)) for name, path in sorted(files.items())}


def described(source: object) -> object:
    """Path, format and digests of the files of a Checkpoint, or of each of several; anything else unchanged. For an
    unpacked archive, these are the path and the digest of the archive."""
    if isinstance(source, Checkpoint):
        known = source.known_files
        there = [file for file, size in zip(known, sizes(known), strict=True) if size is not None]
        files = {os.path.basename(file): _fingerprint(file) for file in there}
        return {"path": absolute(source.known_as), "format": source.format, "files": files}
    if isinstance(source, (list, tuple)):
        return [described(one) for one in source]
    return source


def _fingerprint(path: str, name: str | None = None, digest: Callable[[], str] | None = None) -> dict[str, object]:
    """Size and SHA-256 as `sha256sum` prints it. Data files of a V2 checkpoint get no digest, since the index holds the
    CRC-32C of every tensor in them; nor do remote files other than an index, which would have to be downloaded."""
    known: dict[str, object] = {"bytes": sizes([path])[0]}
    if path.endswith(".index") if is_remote(path) else ".data-" not in os.path.basename(name or path):
        known["sha256"] = digest() if digest else _sha256(path)
    return known


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open_file(path) as file:
        _add(digest, file)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, file: BinaryIO) -> None:
    while block := file.read(_BLOCK):
        digest.update(block)


def _versions() -> dict[str, str]:
    from .. import __version__

    found = {"ckpt-tools": __version__, "python": "{}.{}.{}".format(*sys.version_info[:3])}
    used = {name: getattr(sys.modules.get(name), "__version__", None) for name in ("numpy", "tensorflow")}
    return found | {name: version for name, version in used.items() if version}
