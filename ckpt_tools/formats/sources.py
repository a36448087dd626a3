"""Finds the checkpoint that a user's path means: a prefix, any of its files, a folder, a state file, an archive."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ..errors import CheckpointError, NotACheckpointError, nearest
from ..report import listed
from .detect import FileKind, identify
from .renamed import DATA, lost_data_file, misnamed, stem
from .state import candidates, read_state
from .storage import exists, has_query, is_file, is_folder, is_remote, list_folder, nothing_at, sizes

_SHARD = re.compile(r"(?P<prefix>.+)-(?:\d{5,}|\?{5}|\*)-of-(?P<count>\d{5,})", re.DOTALL)
MAX_SHARDS = 100_000
MAX_LOOKED_AT = 10_000  # files of a folder


class Resolved(NamedTuple):
    """What to read, and how: the arguments of a format's `read`."""

    format: str  # a key of READERS
    path: str  # prefix or file
    files: tuple[str, ...] = ()  # the shards of a V1 checkpoint
    note: str = ""
    shown_as: str = ""  # the format's name if it is a special case of another
    holds: tuple[object, ...] = ()


def resolve(path: str) -> Resolved:
    """Finds out what `path` means. Raises NotACheckpointError, which says what is there instead, and RemoteError."""
    try:
        return _resolved(path)
    except CheckpointError as error:
        raise error.at(path=path) from None


def _resolved(path: str) -> Resolved:
    if "\0" in path or not path:
        raise NotACheckpointError(f"{path!r} is not the name of a file")
    if has_query(path):  # one file, to whose name nothing can be appended
        return _file(path)
    if is_file(path + ".index"):
        return Resolved("v2", path)
    if is_folder(path):
        return _folder(path)
    if is_file(path):
        return _file(path)
    if exists(path):
        raise NotACheckpointError(
            "is not a regular file" if os.path.exists(path) else "is a link to nothing", path=path
        )
    return _prefix(path)


def _file(path: str) -> Resolved:
    """Resolves an existing file: a member of a checkpoint, or a source of its own."""
    name, prefix = os.path.basename(path), stem(path)
    if DATA.fullmatch(path) and is_file(prefix + ".index"):
        return Resolved("v2", prefix, note=f"{name} belongs to the V2 checkpoint {os.path.basename(prefix)}")
    kind = identify(path)
    if prefix != path and (found := _member(path, prefix, kind)):
        return found
    if kind.name == "v1":
        shard = _SHARD.fullmatch(path)
        return _shards(shard["prefix"], int(shard["count"]), path) if shard else Resolved("v1", path)
    if kind.name in ("graphdef", "keras_h5", "keras", "safetensors", "npz", "torch"):
        return Resolved(kind.name, path)
    if kind.name == "saved_model_pb":
        return _folder(os.path.dirname(path) or ".")
    if kind.name == "state" or (name == "checkpoint" and kind.name in ("text", "unknown")):
        return _state(path)
    if kind.name == "tar":
        return _archive(path)
    if DATA.fullmatch(path) and kind.name in ("unknown", "protobuf", "text"):
        raise lost_data_file(path)
    raise misnamed(path, kind)


def _member(path: str, prefix: str, kind: FileKind) -> Resolved | None:
    """The checkpoint that an index, a data file or a MetaGraph belongs to by its name; None if there is none."""
    name, base = os.path.basename(path), os.path.basename(prefix)
    if name.endswith(".index"):
        return (
            Resolved("v2", prefix, note=f"{name} belongs to the V2 checkpoint {base}")
            if kind.name == "v2_index"
            else None
        )
    if is_file(prefix + ".index"):
        return Resolved("v2", prefix, note=f"{name} belongs to the V2 checkpoint {base}")
    if not name.endswith(".meta") or kind.name in ("v1", "tar"):
        return None
    note = f"{name} belongs to the V1 checkpoint {base}"
    if is_file(prefix) and identify(prefix).name == "v1":
        return Resolved("v1", prefix, note=note)
    if shards := v1_shards(prefix):
        return _shards(prefix, shards)._replace(note=note)
    return None


def is_shard_name(path: str) -> bool:
    """Whether this is the name of a V1 shard, or the glob for all shards."""
    return _SHARD.fullmatch(path) is not None


def v1_shards(prefix: str) -> int:
    """The number of shards by the names of the files `PREFIX-k-of-N`; 0 if there are none."""
    folder, base = os.path.split(prefix)
    try:
        names = list_folder(folder)
    except OSError:
        return 0
    counts = [
        int(match["count"])
        for name in names
        if name.startswith(base + "-") and (match := _SHARD.fullmatch(name)) and match["prefix"] == base
    ]
    return max(counts, default=0)


def _shards(prefix: str, count: int, given: str = "") -> Resolved:
    """Resolves the shards of a V1 checkpoint. Raises NotACheckpointError if any is missing."""
    if not 1 <= count <= MAX_SHARDS:
        raise NotACheckpointError(f"names {count:,} shards", path=given or prefix)
    files = tuple(f"{prefix}-{shard:05d}-of-{count:05d}" for shard in range(count))
    gone = [os.path.basename(file) for file, size in zip(files, sizes(files), strict=True) if size is None]
    if gone:
        fact = f"of {count} shards of this V1 checkpoint, {listed(gone, 4)} {'is' if len(gone) == 1 else 'are'} missing"
        raise NotACheckpointError(fact, path=prefix)
    note = f"{os.path.basename(given)} is one of {count} shards of {os.path.basename(prefix)}" if given else ""
    return Resolved("v1", f"{prefix}-?????-of-{count:05d}", files, note)


def _prefix(path: str) -> Resolved:
    """Resolves a path that is not a file: a prefix, a glob of shards, or a mistake."""
    data = DATA.fullmatch(path)
    if data and is_file(data["prefix"] + ".index"):
        return Resolved("v2", data["prefix"])
    shard = _SHARD.fullmatch(path)
    if shard and v1_shards(shard["prefix"]):
        return _shards(shard["prefix"], int(shard["count"]))
    if count := v1_shards(path):
        return _shards(path, count)
    for ending in (".index", ".meta"):  # a missing member of an existing checkpoint
        if path.endswith(ending) and is_file(path.removesuffix(ending)):
            return _file(path.removesuffix(ending))._replace(note=f"there is no {os.path.basename(path)}")
    raise _nothing(path)


def _nothing(path: str) -> CheckpointError:
    """The error for a path where nothing exists: what is missing, and what is near."""
    folder, base = os.path.split(path)
    if not is_remote(path) and not is_folder(folder or "."):
        return NotACheckpointError(f"there is no folder {folder}", path=path)
    names = list_folder(folder)
    if left := _left_of(base, names):
        return NotACheckpointError(left, path=path)
    near = [name for name in names if base and name.startswith(base)][:5]
    hint = f"; there is {', '.join(near)}" if near else nearest(base, {stem(name) for name in names})
    return nothing_at(path, hint)


def _left_of(base: str, names: list[str]) -> str:
    """A clause on the remaining files of a checkpoint whose index is missing; empty if there are none."""
    parts = [name for name in names if name.startswith(base + ".data-") and DATA.fullmatch(name)]
    if parts:
        return f"the data file {parts[0]} is there, but the index {base}.index, which holds the names, is missing"
    if base + ".meta" in names:
        return (
            f"only the graph {base}.meta is there; {base}.index and its data files, which hold the values, are missing"
        )
    return ""


def _folder(path: str) -> Resolved:
    """Resolves a folder: a SavedModel, the checkpoint that its state file names, or the only one in it."""
    if is_file(os.path.join(path, "saved_model.pb")) or is_file(os.path.join(path, "saved_model.pbtxt")):
        variables = os.path.join(path, "variables", "variables")
        if is_file(variables + ".index"):
            return Resolved("v2", variables, shown_as="saved_model")
        if is_file(os.path.join(path, "saved_model.pb")):
            return Resolved(
                "graphdef", os.path.join(path, "saved_model.pb")
            )  # its variables may be frozen into the graph
        raise NotACheckpointError("is a SavedModel without variables: it has no variables/variables.index", path=path)
    state = os.path.join(path, "checkpoint")
    if is_file(state) and identify(state).name not in ("v1", "v2_index", "metagraph"):
        try:
            return _state(state)
        except CheckpointError as error:
            if error.path != state:  # the latest checkpoint exists but is damaged; any other would be older
                raise
            here = _sources_in(path)
            if len(here) != 1:
                raise
            (found,) = here.values()
            return found._replace(note=f"the file `checkpoint` beside it {error.fact}")
    return _only(path, _sources_in(path))


def _only(path: str, here: dict[str, Resolved]) -> Resolved:
    """The only checkpoint of a folder, or the only other source if there is no checkpoint."""
    checkpoints = {name: found for name, found in here.items() if found.format in ("v1", "v2")} or here
    if len(checkpoints) == 1:
        return next(iter(checkpoints.values()))
    if checkpoints:
        listed = ", ".join(list(checkpoints)[:6]) + (", ..." if len(checkpoints) > 6 else "")
        raise NotACheckpointError(
            f"the folder holds {len(checkpoints)} checkpoints: {listed}", path=path, advice="Give one of them."
        )
    for name in list_folder(path):  # the first file that looks like a checkpoint gives its own error
        kind = identify(os.path.join(path, name)) if is_file(os.path.join(path, name)) else None
        if kind and kind.name in ("cut_v1", "cut_index", "v2_index", "lfs", "html", "torch"):
            raise misnamed(os.path.join(path, name), kind)
    lost = sorted({match["prefix"] for name in list_folder(path) if (match := DATA.fullmatch(name))})
    why = f"; {lost[0]} has data files, but its index {lost[0]}.index is missing" if lost else ""
    raise NotACheckpointError(f"the folder holds no checkpoint{why}", path=path)


def _sources_in(folder: str) -> dict[str, Resolved]:
    """Name -> source for everything in a folder that can be opened, judged by the first bytes."""
    names = list_folder(folder)
    found: dict[str, Resolved] = {}
    for name in names[:MAX_LOOKED_AT]:
        path = os.path.join(folder, name)
        if not is_file(path) or DATA.fullmatch(name) or name.endswith((".meta", ".json", ".txt")):
            continue
        kind = identify(path).name
        if name.endswith(".index") and kind in ("v2_index", "v1"):
            found[name.removesuffix(".index")] = Resolved("v2", path.removesuffix(".index"))
        elif kind == "v1" and (shard := _SHARD.fullmatch(path)):
            found[os.path.basename(shard["prefix"])] = _shards(shard["prefix"], int(shard["count"]))
        elif kind in ("v1", "graphdef", "keras_h5", "keras", "safetensors", "npz"):
            found.setdefault(name, Resolved(kind, path))
    return found


def _state(path: str) -> Resolved:
    """The latest checkpoint by a `checkpoint` file, also looked for beside it, since folders get moved."""
    state = read_state(path)
    for candidate in candidates(path, state.latest):
        if _is_state(candidate):
            raise NotACheckpointError(f"names {state.latest}, which is a checkpoint state file itself", path=path)
        try:
            found = resolve(candidate)
            return found._replace(note=f"{os.path.basename(found.path)} is the latest by {path}")
        except NotACheckpointError:
            if exists(candidate):
                raise
    folder = os.path.dirname(path) or "."
    left = _left_of(os.path.basename(candidate), list_folder(folder))
    what = "" if os.path.basename(path) == "checkpoint" else "is a checkpoint state file under another name, and "
    raise NotACheckpointError(
        f"{what}names {state.latest}" + (f": {left}" if left else ", which is not there"),
        path=path,
        advice=f"Checkpoints beside it: {', '.join(_sources_in(folder)) or 'none'}.",
    )


def _is_state(path: str) -> bool:
    """Whether the path is a state file, or a folder with one, which could refer to each other without end."""
    if is_file(path + ".index"):
        return False
    return is_file(os.path.join(path, "checkpoint")) or (is_file(path) and identify(path).name == "state")


def _archive(path: str) -> Resolved:
    from .archive import unpack

    holder = unpack(path)
    here: dict[str, Resolved] = {}
    for folder, _, names in os.walk(holder.name):
        inside = os.path.relpath(folder, holder.name)
        if "saved_model.pb" in names or "checkpoint" in names:
            here[inside] = _folder(folder)
        elif os.path.join(os.path.dirname(inside), "") + "variables" != inside or os.path.dirname(inside) not in here:
            here.update({os.path.normpath(os.path.join(inside, name)): f for name, f in _sources_in(folder).items()})
    try:
        found = _only(holder.name, here)
    except NotACheckpointError as error:
        raise NotACheckpointError(
            error.fact.replace("the folder", "the archive"), path=path, advice=error.advice
        ) from None
    name = os.path.relpath(found.path, holder.name)
    return found._replace(note=f"{name} of the archive {os.path.basename(path)}", holds=(holder,))
