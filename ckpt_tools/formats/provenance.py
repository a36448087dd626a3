"""`NAME.provenance.json`, written beside every checkpoint: what it was made from, how, and by which versions."""

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
    """Begins the work in a thread, which digests leave others alone in; what is returned waits for it, and gives what
    it gives or raises what it raises."""
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

    `files` are the `fingerprints` of the new checkpoint. `said` is what the caller knows: "source", as `described` or
    anything else that JSON takes, "command", "recipe", and "actions", tensor name -> what was done to it; a tensor
    without one was copied as stored, or else written anew.
    """
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
    """What a sidecar on this machine says, or the plan.json of a run; {} where there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def sources_of(record: Mapping[str, Any]) -> list[str]:
    """The paths of the sources that a record names, in their order; "" for one that has no path."""
    found = record.get("source")
    sources = found if isinstance(found, list) else [found]
    paths = (source.get("path") if isinstance(source, dict) else source for source in sources)
    return [path if isinstance(path, str) else "" for path in paths]


def is_stored(tensor: Tensor) -> bool:
    """Whether the writer of V2 can copy this tensor's bytes, or those of all its slices."""
    if tensor.slices:
        return all(part.tensor.stored is not None for part in tensor.slices)
    return tensor.stored is not None


class Digest:
    """SHA-256 of a file that is written from front to back, taken meanwhile by a thread that reads what is there."""

    def __init__(self, path: str) -> None:
        self._written: SimpleQueue[int | None] = SimpleQueue()
        self.result = aside(self._follow, path)  # waits for the end of `with`

    def written(self, size: int) -> None:
        """Notes that so many more bytes are in the file, behind those that were."""
        self._written.put(size)

    def __enter__(self) -> Digest:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._written.put(None)
        if kind is not None:  # the file is removed next, and must not be open
            with suppress(OSError):
                self.result()

    def _follow(self, path: str) -> str:
        digest, ahead, size = hashlib.sha256(), 0, self._written.get()  # then the file is there
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
    """Size and digest of each file of a new checkpoint. `files` maps its final name to where it lies now, `digests` to
    what gives its SHA-256, where that has been taken."""
    return {name: _fingerprint(path, name, digests.get(name)) for name, path in sorted(files.items())}


def described(source: object) -> object:
    """A Checkpoint, or each of several, by its path, format and the digests of its files, which of an unpacked one is
    its archive; anything else as it is."""
    if isinstance(source, Checkpoint):
        members = (source.archive,) if source.archive else source.files
        there = [file for file, size in zip(members, sizes(members), strict=True) if size is not None]
        files = {os.path.basename(file): _fingerprint(file) for file in there}
        return {"path": absolute(source.known_as), "format": source.format, "files": files}
    if isinstance(source, (list, tuple)):
        return [described(one) for one in source]
    return source


def _fingerprint(path: str, name: str | None = None, digest: Callable[[], str] | None = None) -> dict[str, object]:
    """Size and SHA-256, as `sha256sum` prints it. Data files of a V2 checkpoint are not read for it: the digest of
    the index pins the CRC-32C of every tensor in them. Nor are other files behind URLs: they would be downloaded."""
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
