"""`save_checkpoint`: writes beside the target, checks first, and moves everything into place at the end."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from types import ModuleType

from ..errors import OutputError, UnsupportedError, nearest
from ..tensors import Tensor, Tensors
from . import locks, placing
from . import provenance as origin
from .checkpoint import Checkpoint
from .mapped import forget_pages
from .storage import check_local

# What --format and `format=` accept -> the module whose `write(tensors, path, ...)` makes a complete file.
WRITERS = {
    "v1": "v1",
    "v2": "v2",
    "npz": "npz",
    "safetensors": "safetensors_file",
    "keras_h5": "keras",
    "keras_weights": "keras3",
}
_FRONT_TO_BACK = {"v1", "safetensors", "keras_h5", "keras_weights"}  # written bytes do not change any more
_ENDINGS = {
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".weights.h5": "keras_weights",  # before .h5: the first that fits is taken
    ".h5": "keras_h5",
    ".hdf5": "keras_h5",
    ".index": "v2",
}
_READ_ONLY = (".keras", ".pb", ".pbtxt", ".tar", ".tar.gz", ".tgz", ".pt", ".pth", ".onnx", ".tflite")
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_FORGET_EVERY = 32 << 20  # bytes written
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def save_checkpoint(
    tensors: Tensors | Checkpoint | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    shards: int | None = None,
    force: bool = False,
    link: bool = False,
    provenance: Mapping[str, object] | None = None,
    progress: Callable[[int], object] | None = None,
    announce: Callable[[str], object] | None = None,
) -> tuple[str, ...]:
    """Writes a checkpoint and returns its files, the index of a V2 checkpoint first, `.provenance.json` last.

    `format` is "v1", "v2", "npz", "safetensors", "keras_h5" or "keras_weights"; None: what the ending of `path` means,
    V2 where it means none. `shards` is the number of data files of a V2 checkpoint (None: as the source has them, or
    one). `link=True` makes hard links of V2 data files whose tensors stay as stored, instead of copies. `provenance`
    says more for the sidecar: see `provenance.sidecar`. `progress` is called with the number of bytes that have just
    been written. `announce` is called with the path at which the new checkpoint lies complete, before anything of it is
    moved to the target.

    The target is the old checkpoint or the new one at every moment, and writing over the source is safe: files are
    made in a hidden folder `.NAME.partial-PID` beside the target, brought to disk, and renamed as `placing` says.

    Raises OutputError when the target exists and `force` is not given, when the folder cannot be written or has too
    little space; UnsupportedError, naming all of them, for tensors that `format` cannot hold. Nothing is left behind.
    """
    format = format or format_of(path)
    said = dict(provenance or {})
    metadata: Mapping[str, str] = {}
    if isinstance(tensors, Checkpoint):
        said.setdefault("source", tensors)
        metadata = tensors.metadata
        tensors = tensors.tensors
    others = () if isinstance(tensors, Tensors) else tensors.items()
    if arrays := [name for name, tensor in others if not isinstance(tensor, Tensor)]:
        raise TypeError(f"save_checkpoint: {arrays[0]!r} is not a Tensor; from_arrays makes Tensors from arrays")
    check_tensors(tensors, format)
    if shards is not None and shards < 1:
        raise UnsupportedError(f"a checkpoint has 1 data file or more, not {shards}", path=path)
    if shards is not None and link:
        raise UnsupportedError("links keep the data files of the source, which has them in its own number", path=path)
    target = target_of(path, format)
    _check_target(target, force)
    check_space(target, 0 if link else needed_bytes(tensors))
    options: dict[str, object] = {}
    if format == "v2":
        options |= {"shards": shards, "link": link}
    elif format == "safetensors":
        options |= {"metadata": metadata}
    with _output_errors(target), _partial_folder(target) as folder:
        made = os.path.join(folder, os.path.basename(target))
        source = origin.aside(origin.described, said.get("source"))
        digest = origin.Digest(made) if format in _FRONT_TO_BACK else None
        with digest or nullcontext():
            _writer(format).write(tensors, made, progress=_heard(progress, digest), **options)
        files = {entry.name: entry.path for entry in os.scandir(folder)}
        known = {os.path.basename(made): digest.result} if digest is not None else {}
        fingerprints = origin.aside(origin.fingerprints, files, known)
        for path in files.values():  # the digests are taken meanwhile
            if os.stat(path).st_nlink == 1:  # a linked data file is the source's
                placing.sync_file(path)
        content = origin.sidecar(tensors, format, fingerprints(), {**said, "source": source()})
        return _finish(content, files, made, target, announce)


def _heard(progress: Callable[[int], object] | None, digest: origin.Digest | None) -> Callable[[int], None]:
    """Hands progress on, and gives the source's pages back now and then: 4 GB that were read once would stay mapped."""
    since = 0

    def hear(size: int) -> None:
        nonlocal since
        since += size
        if digest is not None:
            digest.written(size)
        if since > _FORGET_EVERY:
            forget_pages()
            since = 0
        if progress is not None:
            progress(size)

    return hear


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that the ending of a target means; V2 where it means none.

    >>> format_of("model.safetensors"), format_of("model.ckpt-20")
    ('safetensors', 'v2')

    Raises UnsupportedError for an ending that promises what is not written here.
    """
    name = os.path.basename(os.fspath(path)).lower()
    if name.endswith(_READ_ONLY):
        ending = next(ending for ending in _READ_ONLY if name.endswith(ending))
        raise UnsupportedError(
            f"cannot write {ending} files",
            path=path,
            advice=f"Supported are {', '.join(WRITERS)}: --format of ckpt-convert and ckpt-edit names one.",
        )
    return next((format for ending, format in _ENDINGS.items() if name.endswith(ending)), "v2")


def check_tensors(tensors: Mapping[str, Tensor], format: str) -> None:
    """Raises UnsupportedError, naming every tensor that a file of `format` cannot hold, and for no tensors at all."""
    if format not in WRITERS:
        known = f"; known are {', '.join(WRITERS)}"
        raise UnsupportedError(f"cannot write the format {format!r}{nearest(format, WRITERS) or known}")
    if not tensors:
        raise UnsupportedError("there is no tensor to write")
    check = getattr(_writer(format), "check", None)  # a V2 checkpoint holds whatever there is
    if check is not None:
        check(tensors)


def _writer(format: str) -> ModuleType:
    return import_module(f".{WRITERS[format]}", __package__)


def needed_bytes(tensors: Mapping[str, Tensor]) -> int:
    """About how many bytes a file of these tensors takes; texts count only where their size is known."""
    values = sum(t.spec.nbytes or (t.stored.size if t.stored else 0) for t in tensors.values())
    return values + 64 * len(tensors) + sum(map(len, tensors))


def target_of(path: str | os.PathLike[str], format: str) -> str:
    """The file that is written, or the prefix of a V2 checkpoint, which may be given by its index.

    Raises OutputError for a URL.
    """
    check_local(path)
    return os.fspath(path).removesuffix(".index") if format == "v2" else os.fspath(path)


def existing_files(target: str) -> list[str]:
    """The files that are at `target` now, and would be replaced: in any format, since a V2 index hides all others."""
    found = [path for path in (target, target + ".index") if os.path.lexists(path)]
    return found + sorted(placing.shards_beside(target))


def _check_target(target: str, force: bool) -> None:
    folder = os.path.dirname(target) or "."
    if not os.path.isdir(folder):
        raise OutputError(f"there is no folder {folder}", path=target, advice=f"Make it first: mkdir -p {folder}")
    if os.path.isdir(target) or not os.path.basename(target):
        raise OutputError("is a folder", path=target, advice="Give the name of the checkpoint in it.")
    with _output_errors(target):
        found = existing_files(target)
    if found and not force:
        names = ", ".join(map(os.path.basename, found[:3]))
        raise OutputError(f"exists already ({names})", path=target, advice="Use --force to replace it.")


def check_space(target: str, needed: int, what: str = "", freed: int = 0) -> None:
    """Raises OutputError where the disk of `target` has no room for so many bytes, `freed` of which will be deleted
    first; `what` says of what they are."""
    free = _free_bytes(os.path.dirname(target) or ".")
    if free is not None and free + freed < needed:
        raise OutputError(f"{needed:,} bytes are needed{what}, and {free + freed:,} are free", path=target)


def _free_bytes(folder: str) -> int | None:
    """None where the file system does not say: running out of space is noticed later then."""
    import shutil

    try:
        return shutil.disk_usage(folder).free
    except (AttributeError, OSError):
        return None


def _finish(
    content: Mapping[str, object],
    files: Iterable[str],
    made: str,
    target: str,
    announce: Callable[[str], object] | None,
) -> tuple[str, ...]:
    """Adds the sidecar to the files of the partial folder, which are on disk, and moves all into place."""
    sidecar = os.path.join(os.path.dirname(made), "sidecar")
    origin.dump(content, sidecar)
    placing.sync_file(sidecar)
    if announce is not None:
        announce(made)
    with _undisturbed():
        if content["format"] == "v2":
            placing.place_bundle(made, target, sidecar)
        else:
            placing.place_file(made, target, sidecar)
    parent = os.path.dirname(target)
    ordered = sorted(files, key=lambda file: (not file.endswith(".index"), file))
    return tuple(os.path.join(parent, file) for file in ordered) + (target + origin.ENDING,)


@contextmanager
def _partial_folder(target: str) -> Iterator[str]:
    """A hidden folder beside the target, removed at the end whatever happens. What killed runs left is removed too."""
    remove_abandoned(target)
    parent, name = os.path.split(target)
    folder = os.path.join(parent, f".{name}.partial-{os.getpid()}")
    os.mkdir(folder)
    lock = locks.acquire(folder)
    try:
        yield folder
    finally:
        _remove_folder(folder)
        if lock is not None:
            lock.release()


def remove_abandoned(target: str) -> None:
    """Removes the hidden folders that killed runs left beside this target."""
    parent, name = os.path.split(target)
    for entry in os.listdir(parent or "."):
        if entry.startswith(f".{name}.partial-") and not entry.endswith(locks.ENDING):
            _remove_abandoned(os.path.join(parent, entry))


def _remove_abandoned(folder: str) -> None:
    lock = locks.acquire(folder)
    if lock is not None:
        _remove_folder(folder)
        lock.release()


def _remove_folder(folder: str) -> None:
    """Removes a partial folder, in which there are no others, as far as it goes."""
    try:
        for entry in os.listdir(folder):
            os.unlink(os.path.join(folder, entry))
        os.rmdir(folder)
    except OSError:
        return


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Holds Ctrl-C back for the few milliseconds in which files are moved."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    if hasattr(signal, "pthread_sigmask"):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    elif threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
    else:
        heard: list[int] = []
        handlers = {number: signal.signal(number, lambda number, _: heard.append(number)) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for late in heard:
                signal.raise_signal(late)


@contextmanager
def _output_errors(target: str) -> Iterator[None]:
    """What the system says of a target that cannot be written, in one sentence."""
    try:
        yield
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error)
        folder = os.path.dirname(os.path.abspath(target))
        if error.errno in _FULL:
            raise OutputError(f"the disk or the quota of {folder} is full ({said})", path=target) from error
        if error.errno in _FORBIDDEN:
            raise OutputError(f"the folder {folder} cannot be written ({said})", path=target) from error
        if _is_of_output(error, target):
            raise OutputError(f"cannot be written ({said})", path=target) from error
        raise


def _is_of_output(error: OSError, target: str) -> bool:
    """False when the system names another file: then it is a source that cannot be read."""
    return error.filename is None or os.path.basename(target) in str(error.filename)
