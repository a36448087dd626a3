"""Transfer values on disk: PREFIX.npy and its companion files, and merging the parts of several machines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import DataError, OutputError, RecipeError
from ...formats.placing import write_text
from ..data.examples import Examples, label_text

ENDINGS = (".npy", ".npz", ".tsv", ".json")


@dataclass(frozen=True, eq=False)
class Features:
    """Transfer values with the labels, names and splits of their rows."""

    values: np.ndarray  # [images, ...], usually memory-mapped
    label_ids: np.ndarray  # int32 [images]; or uint8 [images, classes] of 0 and 1 for several labels
    labels: tuple[str, ...]
    names: tuple[str, ...]
    split: tuple[str, ...]  # "train", "validation" or "test" for each row
    position: np.ndarray  # int64 [images], index of the image in the whole data set
    facts: dict[str, object]  # net, source, layer, preprocessing, ...
    examples: Examples | None = None  # the data set that `position` refers to, if available

    def __repr__(self) -> str:
        shape = " x ".join(f"{size:,}" for size in self.values.shape)
        return f"<features of {self.facts['source']}: {shape}, {len(self.labels):,} classes>"


def check_outputs(prefix: str, *inputs: str) -> None:
    """Raises OutputError if one of the files of PREFIX is an input, or was not written by ckpt-features, which its .npz
    or .json tells."""
    read = {Path(path).resolve() for path in inputs if path}
    for path in (Path(f"{prefix}{ending}") for ending in ENDINGS):
        if path.resolve() in read:
            raise OutputError("is an input, and would be overwritten", path=path, advice="Choose another --output.")
    if _is_ours(prefix):
        return
    for path in (Path(f"{prefix}{ending}") for ending in ENDINGS):
        if path.is_file():
            fact = "exists, and ckpt-features did not write it"
            raise OutputError(fact, path=path, advice="Choose another --output.")


def _is_ours(prefix: str) -> bool:
    """Whether the .npz is ours or, where a run was killed before it wrote that, the .json."""
    try:
        with np.load(f"{prefix}.npz", allow_pickle=False) as held:
            return {"features", "facts"} <= set(held.files)
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        return False
    try:
        return {"layer", "shape"} <= json.loads(Path(f"{prefix}.json").read_bytes()).keys()
    except (OSError, ValueError, AttributeError):
        return False


def write_values(blocks: Iterable[np.ndarray], count: int, type: np.dtype, prefix: str) -> np.ndarray:
    """Writes PREFIX.npy from blocks of rows, under a temporary name until it is complete: `count` rows, or fewer if
    some are missing. Returns the values, memory-mapped.

    Raises OutputError if it cannot be written, and before the second block if the disk lacks space for it and the .npz.
    """
    path = Path(f"{prefix}.npy")
    writing, rows = path.with_name(path.name + ".writing"), 0

    def head(shape: tuple[int, ...]) -> None:  # NumPy's header has room for any number of rows
        facts = {"descr": np.lib.format.dtype_to_descr(np.dtype(type)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, facts)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing.open("wb") as file:
            for block in blocks:
                block = np.ascontiguousarray(block, type)
                if not rows:
                    needed, free = 2 * count * block[0].nbytes, shutil.disk_usage(path.parent).free
                    if needed > free:
                        raise OutputError(f"{needed:,} bytes are needed, and {free:,} are free", path=path)
                    head((count, *block.shape[1:]))
                file.write(block.data)
                rows += len(block)
            file.seek(0)
            head((rows, *block.shape[1:]))
        writing.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write ({error.strerror})", path=path) from error
    finally:
        writing.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def write_companions(features: Features, prefix: str) -> None:
    """Writes the .npz, .tsv and .json beside PREFIX.npy."""
    lines = ["label\tname\tsplit"]
    for number, name, split in zip(features.label_ids, features.names, features.split, strict=True):
        lines.append(f"{label_text(number, features.labels)}\t{name}\t{split}")
    record = {**features.facts, "shape": list(features.values.shape), "type": str(features.values.dtype)}
    whole = Path(f"{prefix}.npz")
    writing = whole.with_name(whole.name + ".writing")
    try:
        write_text(f"{prefix}.json", json.dumps(record, indent=1) + "\n")  # first: it says whose the .npy is
        with writing.open("wb") as file:
            np.savez(
                file,
                features=features.values,
                labels=features.label_ids,
                label_names=np.array(features.labels),
                names=np.array(features.names),
                split=np.array(features.split),
                position=features.position,
                facts=np.array(json.dumps(features.facts)),
            )
        writing.replace(whole)
        write_text(f"{prefix}.tsv", "\n".join(lines) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write ({error.strerror})", path=prefix) from error
    finally:
        writing.unlink(missing_ok=True)


def read_features(prefix: str) -> Features:
    """Reads the files of `write_features`; the values stay on disk until they are used."""
    path = Path(f"{prefix}.npz")
    try:
        with np.load(path, allow_pickle=False) as held:
            part = {key: held[key] for key in held.files if key != "features"}
        values = np.load(f"{prefix}.npy", mmap_mode="r", allow_pickle=False)
        facts = json.loads(str(part["facts"]))
        return Features(
            values,
            part["labels"],
            tuple(part["label_names"].tolist()),
            tuple(part["names"].tolist()),
            tuple(part["split"].tolist()),
            part["position"],
            facts,
        )
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"not what ckpt-features writes ({error})", path=path) from None


def shard_prefix(prefix: str, shard: int, shards: int) -> str:
    """The prefix of one part, numbered like TensorFlow's sharded files.

    >>> shard_prefix("features", 1, 4)
    'features-00001-of-00004'
    """
    return f"{prefix}-{shard:05d}-of-{shards:05d}"


def merge_features(prefix: str, shards: int) -> Features:
    """Merges the parts PREFIX-00000-of-N ... and writes the result as PREFIX; the parts stay.

    Raises DataError with the parts that are missing or come from another net, layer or data set.
    """
    if shards < 1:
        raise RecipeError(f"--merge {shards}: at least one part")
    prefixes = [shard_prefix(prefix, shard, shards) for shard in range(shards)]
    missing = [part for part in prefixes if not Path(f"{part}.npz").is_file()]
    if missing:
        raise DataError(f"parts are missing: {', '.join(Path(part).name for part in missing)}", path=prefix)
    parts = [read_features(part) for part in prefixes]
    for part, name in zip(parts, prefixes, strict=True):
        other = [key for key in part.facts if part.facts[key] != parts[0].facts[key]]
        if other:
            raise DataError(f"differs from {prefixes[0]} in {' and '.join(other)}", path=name)
    position = np.concatenate([part.position for part in parts])
    order = np.argsort(position, kind="stable")
    starts = np.cumsum([0, *(len(part.values) for part in parts)])

    def rows() -> Iterator[np.ndarray]:
        for i, number in zip(order, np.searchsorted(starts, order, side="right") - 1, strict=True):
            row = int(i - starts[number])
            yield parts[number].values[row : row + 1]

    values = write_values(rows(), len(order), parts[0].values.dtype, prefix)
    names, split = ([x for part in parts for x in getattr(part, key)] for key in ("names", "split"))
    merged = Features(
        values,
        np.concatenate([part.label_ids for part in parts])[order],
        parts[0].labels,
        tuple(names[i] for i in order),
        tuple(split[i] for i in order),
        position[order],
        {**parts[0].facts, "shards": 1},
    )
    write_companions(merged, prefix)
    return merged
