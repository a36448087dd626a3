"""`save_checkpoint`: checks first, writes beside the target, and moves everything into place at the end."""

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

# Value of --format and `format=` -> the module whose `write(tensors, path, ...)` makes a complete file.
WRITERS = {
    "v1": "v1",
    "v2": "v2",
    "npz": "npz",
    "safetensors": "safetensors_file",
    "keras_h5": "keras",
    "keras_weights": "keras3",
}
_FRONT_TO_BACK = {"v1", "safetensors", "keras_h5", "keras_weights"}  # bytes once written do not change
_ENDINGS = {
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".weights.h5": "keras_weights",  # before .h5, since the first match is taken
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

    `format` is "v1", "v2", "npz", "safetensors", "keras_h5" or "keras_weights"; None derives it from the ending of
    `path`, with V2 as the default. `shards` is the number of data files of a V2 checkpoint (None: as in the source, or
    one). `link=True` makes hard links instead of copies of V2 data files whose tensors stay as stored. `provenance`
    adds to the sidecar: see `provenance.sidecar`. `progress` is called with the number of bytes just written.
    `announce` is called with the path of the complete new checkpoint before any of it is moved to the target.

    At every moment the target is either the old checkpoint or the new one, and overwriting the source is safe: files
    are made in a hidden folder `.NAME.partial-PID` beside the target, flushed to disk, and renamed as described in
    `placing`.

    Raises OutputError if the target exists and `force` is not given, or if the folder cannot be written or has too
    little space; raises UnsupportedError that names all tensors which `format` cannot hold. Nothing is left behind.
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
        computed = origin.aside(origin.fingerprints, files, known)
        try:
            for path in files.values():  # digests are computed at the same time
                if os.stat(path).st_nlink == 1:  # a linked data file belongs to the source
                    placing.sync_file(path)
        finally:
            fingerprints = computed()  # waits: after an error, too, the files must be closed before they are removed
        content = origin.sidecar(tensors, format, fingerprints, {**said, "source": source()})
        return _finish(content, files, made, target, announce)


def _heard(progress: Callable[[int], object] | None, digest: origin.Digest | None) -> Callable[[int], None]:
    """Passes progress on, and regularly drops the source's pages: all that was read once would stay mapped."""
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
    """The format for the ending of a target; V2 by default.

    >>> format_of("model.safetensors"), format_of("model.ckpt-20")
    ('safetensors', 'v2')

    Raises UnsupportedError for the ending of a format that can only be read.
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
    """Raises UnsupportedError that names every tensor which `format` cannot hold, or if there are no tensors at all."""
    if format not in WRITERS:
        known = f"; known are {', '.join(WRITERS)}"
        raise UnsupportedError(f"cannot write the format {format!r}{nearest(format, WRITERS) or known}")
    if not tensors:
        raise UnsupportedError("there is no tensor to write")
    check = getattr(_writer(format), "check", None)  # a V2 checkpoint can hold anything
    if check is not None:
        check(tensors)


def _writer(format: str) -> ModuleType:
    return import_module(f".{WRITERS[format]}", __package__)


def needed_bytes(tensors: Mapping[str, Tensor]) -> int:
    """The approximate size in bytes of a file with these tensors; texts count only if their size is known."""
    values = sum(t.spec.nbytes or (t.stored.size if t.stored else 0) for t in tensors.values())
    return values + 64 * len(tensors) + sum(map(len, tensors))


def target_of(path: str | os.PathLike[str], format: str) -> str:
    """The file to write, or the prefix of a V2 checkpoint, which may be given by its index.

    Raises OutputError for a URL.
    """
    check_local(path)
    return os.fspath(path).removesuffix(".index") if format == "v2" else os.fspath(path)


def existing_files(target: str) -> list[str]:
    """The existing files at `target` that would be replaced, in any format, since a V2 index hides all others."""
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
    """Raises OutputError if the disk of `target` lacks space for `needed` bytes, after `freed` bytes have been deleted;
    `what` describes them in the message."""
    free = _free_bytes(os.path.dirname(target) or ".")
    if free is not None and free + freed < needed:
        raise OutputError(f"{needed:,} bytes are needed{what}, and {free + freed:,} are free", path=target)


def _free_bytes(folder: str) -> int | None:
    """Free bytes; None if the file system does not say, so that a full disk is noticed only later."""
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
    """Adds the sidecar to the partial folder, whose files are on disk already, and moves everything into place."""
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
    """A hidden folder beside the target, which is always removed at the end. Leftovers of killed runs are removed,
    too."""
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
    """Removes a partial folder, which has no subfolders, as far as possible."""
    try:
        for entry in os.listdir(folder):
            os.unlink(os.path.join(folder, entry))
        os.rmdir(folder)
    except OSError:
        return


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Delays Ctrl-C for the few milliseconds in which files are moved."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    if hasattr(signal, "pthread_sigmask"):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    elif threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread
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
    """Turns an OSError about a target that cannot be written into an OutputError of one sentence."""
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
    """Whether an error concerns the target. If the system names another file, a source could not be read."""
    return error.filename is None or os.path.basename(target) in str(error.filename)
