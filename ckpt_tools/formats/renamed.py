"""Advice for files of a checkpoint that were renamed: what each one is, which others it needs, and what to rename.

An index and a MetaGraph are recognised by their contents. A data file is nothing but bytes, but an index tells the
sizes of its data files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ..errors import CheckpointError, NotACheckpointError
from ..report import listed
from .detect import FileKind, identify, refusal
from .storage import beside, sizes

DATA = re.compile(r"(?P<prefix>.+)\.data-(?:\d{5,}|\?{5}|\*)-of-\d{5,}", re.DOTALL)
MAX_LOOKED_AT = 1000  # files of a folder


def stem(path: str) -> str:
    """The prefix of the checkpoint that a file belongs to by its name."""
    match = DATA.fullmatch(path)
    if match:
        return match["prefix"]
    return next((path.removesuffix(end) for end in (".index", ".meta") if path.endswith(end)), path)


def misnamed(path: str, kind: FileKind) -> CheckpointError:
    """The error for a file whose content does not match its name, or whose name says nothing."""
    if kind.name == "v2_index":
        return _index(path)
    if kind.name == "metagraph":
        return _metagraph(path)
    if kind.name == "v1":
        return NotACheckpointError(
            "is a V1 checkpoint under the name of an index",
            path=path,
            advice=f"Rename it to {os.path.basename(stem(path))}.",
        )
    if kind.name == "unknown" and (sentence := _data_of(path)):
        return NotACheckpointError(
            "is not a file that can be read by itself, as the data files of V2 checkpoints are not",
            path=path,
            advice=sentence,
        )
    return refusal(path, kind)


def lost_data_file(path: str) -> NotACheckpointError:
    """The error for a data file without its index, which may exist under another name."""
    base, own = os.path.basename(stem(path)), os.path.basename(path)
    advice = ""
    for index, is_named in _indexes(os.path.dirname(path)):
        if not is_named and _wanted(index, base).get(own) == sizes([path])[0]:
            name = os.path.basename(index)
            advice = f"{name} beside it is an index of data of this size: if it is its own, rename it to {base}.index."
            break
    fact = f"is a data file of a V2 checkpoint, but its index {base}.index, which holds the names and shapes, is not"
    return NotACheckpointError(f"{fact} beside it", path=path, advice=advice or _data_of(path))


def _index(path: str) -> CheckpointError:
    """The error for an index with the wrong name: advises the name that fits its data files, or keeps its own stem."""
    folder, name = os.path.split(path)
    base = os.path.basename(stem(path))
    if os.path.exists(os.path.join(folder, base + ".index")):
        base = name
    near = beside(folder)[:MAX_LOOKED_AT]
    others = dict.fromkeys(match["prefix"] for each in near if (match := DATA.fullmatch(each)))
    for prefix in dict.fromkeys([base, *others]):
        shards = _wanted(path, prefix)
        found = sizes([os.path.join(folder, each) for each in shards])
        there = shards and found == list(shards.values())
        if there and not os.path.exists(os.path.join(folder, prefix + ".index")):
            files = f"data file{'s' * (len(shards) > 1)} {listed(list(shards), 2)}"
            advice = f"Rename it to {prefix}.index, beside its {files}."
            break
    else:
        wanted = listed(list(_wanted(path, base)), 2) or f"{base}.data-00000-of-00001"
        advice = f"Rename it to {base}.index; the values are in {wanted}, which must be next to it."
    return NotACheckpointError("is the index of a V2 checkpoint under another name", path=path, advice=advice)


def _metagraph(path: str) -> CheckpointError:
    """The error for a graph with the wrong name, or whose checkpoint is missing."""
    base = os.path.basename(stem(path))
    if path.endswith(".meta"):
        return NotACheckpointError(
            "is a MetaGraph (the graph of a model): it holds no values",
            path=path,
            advice=f"Those are in {base}.index and {base}.data-00000-of-00001, which are not beside it.",
        )
    return NotACheckpointError(
        "is a MetaGraph (the graph of a model), not a checkpoint",
        path=path,
        advice=f"It holds no values: a checkpoint has those in {base}.index and {base}.data-00000-of-00001, and its "
        f"graph is called {base}.meta.",
    )


def _data_of(path: str) -> str:
    """A sentence on the missing data file that a file could be by its size; empty if there is none."""
    folder, (size,) = os.path.dirname(path), sizes([path])
    for index, is_named in _indexes(folder):
        name = os.path.basename(index)
        for shard, needed in _wanted(index, stem(name)).items():
            if needed == size and not os.path.exists(os.path.join(folder, shard)):
                also = "" if is_named else f", and {name} to {stem(name)}.index"
                return f"It has the size of {shard}, which {name} wants: if it is that, rename it{also}."
    return ""


def _indexes(folder: str) -> Iterator[tuple[str, bool]]:
    """Every index in a folder, and whether its name ends with .index."""
    for name in beside(folder)[:MAX_LOOKED_AT]:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and not DATA.fullmatch(name) and identify(path).name == "v2_index":
            yield path, name.endswith(".index")


def _wanted(index: str, prefix: str) -> dict[str, int]:
    """Name of each data file that an index needs, for this prefix -> its size in bytes; {} for a damaged index."""
    from .bundle import Bundle
    from .bundle_index import shard_path

    try:
        bundle = Bundle(prefix, index=index)
    except CheckpointError:
        return {}
    return {shard_path(prefix, shard, bundle.header.num_shards): size for shard, size in bundle.needed().items()}
