"""Transfer values of a data set that is too large for one machine, computed by tasks of Ray: https://docs.ray.io

    write_on_ray(FeatureOptions(checkpoint="s3://models/inception_v3.ckpt", data="s3://photos/records", ...), "auto")

A part is a share of the images, or one file of records at a URL, which is fetched only by the machine that works on it.
Ray assigns parts to free machines, and again if a process or a machine is lost. The values are returned here and
written like those of `ckpt-features --shard`; existing parts are not computed again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ...errors import CheckpointError, DataError, RecipeError, UnsupportedError
from ...formats.storage import absolute, download, is_folder, is_remote, list_folder
from ..data.loading import LABEL_FILES, csv_path
from ..data.records import SUFFIXES
from ..data.splits import said_by
from ..options.training import AUTO, FLOAT32
from .feature_files import (
    Features,
    check_outputs,
    merge_features,
    read_features,
    shard_prefix,
    write_companions,
    write_values,
)
from .features import FeatureOptions, write_features

CORES = 8  # cores per task, if each machine has so many; a net gains little from more
LOST = 3  # how often a lost part is computed again
AT_ONCE = 1 << 32  # images of a file are numbered from a multiple of this
SAME = ("output", "batch_size", "device", "dry_run", "shard")  # options that do not affect the values of a part


class Task(NamedTuple):
    """What a task computes: the options of its share and, for a URL, the file, its split, and the labels file."""

    options: FeatureOptions
    file: str = ""
    split: str = ""
    labels: str = ""


def write_on_ray(
    options: FeatureOptions, address: str, say: Callable[[str], None] = lambda line: None
) -> tuple[str, Features]:
    """Computes the values on a cluster ("local": on this machine) and writes the parts and the merged files here.

    Raises UnsupportedError if Ray is missing or no cluster answers, and otherwise like `write_features`.
    """
    parts = parts_of(options)
    prefixes = [shard_prefix(options.output, number, len(parts)) for number in range(len(parts))]
    for prefix in (options.output, *prefixes):
        check_outputs(prefix, options.data, options.checkpoint)
    asked = _asked(parts)
    missing = [number for number, prefix in enumerate(prefixes) if not _is_there(prefix, asked)]
    there = f", of which {len(parts) - len(missing):,} are there" if len(missing) < len(parts) else ""
    say(f"parts          {len(parts):,}{there}")
    for number, features in computed([(number, parts[number]) for number in missing], address):
        write_values([features.values], len(features.values), features.values.dtype, prefixes[number])
        write_companions(as_part(features, parts, number, asked), prefixes[number])
        say(f"part           {Path(prefixes[number]).name}: {len(features.values):,} images")
    return options.output, merge_features(options.output, len(parts))


def parts_of(options: FeatureOptions) -> list[Task]:
    """One task per shard of --shards, or per file of records at a URL. Raises RecipeError, and DataError if none
    exist."""
    if options.shard:
        raise RecipeError("--shard and --ray cannot be combined: Ray distributes the parts")
    given = ("checkpoint", "train_dir")
    paths: dict[str, Any] = {name: absolute(getattr(options, name)) for name in given if getattr(options, name)}
    options = replace(options, **paths)
    if options.precision == AUTO:
        options = replace(options, precision=FLOAT32)  # the same on all machines
    if is_remote(options.data):
        if options.shards > 1:
            raise RecipeError("--shards is for data on disk: with a URL, each record file is a part")
        return record_parts(options)
    if options.labels_csv:
        options = replace(options, labels_csv=os.path.abspath(csv_path(options.labels_csv, options.data)))  # noqa: PTH100
    options = replace(options, data=options.data and absolute(options.data))
    return [Task(replace(options, shard=shard)) for shard in range(options.shards)]


def record_parts(options: FeatureOptions) -> list[Task]:
    """One task per file of records in the folder at a URL; the file's name tells its split.

    Raises DataError if there are no records, or no labels file: each part would number only its own classes.
    """
    folder = options.data.rstrip("/")
    names = list_folder(folder) if is_folder(f"{folder}/") else []
    files = [name for name in names if name.removesuffix(".gz").endswith(SUFFIXES)]
    if not files:
        advice = f"Give a folder that the server lists, with TFRecords that end in {', '.join(SUFFIXES)}."
        raise DataError("there are no record files", path=options.data, advice=advice)
    labels = next((f"{folder}/{name}" for name in LABEL_FILES if name in names), None)
    if labels is None:
        advice = "Its lines are the names of the classes."
        raise DataError(f"there is no {LABEL_FILES[0]} next to the records", path=options.data, advice=advice)
    said = {name: said_by(name).split for name in files}
    if "train" in said.values():
        said = {name: split for name, split in said.items() if split}
    every = [Task(options, f"{folder}/{name}", split or "train", labels) for name, split in said.items()]
    parts = [part for part in every if options.split in ("all", part.split)]
    if not parts:
        raise DataError(f"by their names, no record file belongs to the {options.split} split", path=options.data)
    return parts


def computed(parts: Sequence[tuple[int, Task]], address: str) -> Iterator[tuple[int, Features]]:
    """Yields the number and the features of each part, in the order in which they finish."""
    if not parts:
        return
    ray = _connected(address)
    try:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        cores = min(CORES, *(int(machine["CPU"]) for machine in machines))
        gpus = int(parts[0][1].options.device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1)
        task = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=LOST)(features_of)
        waiting = {task.remote(part): number for number, part in parts}
        while waiting:
            (done,), _ = ray.wait(list(waiting))
            yield waiting.pop(done), _value(ray, done)
    finally:
        ray.shutdown()


def features_of(part: Task) -> Features:
    """The work of a task, on any machine: fetches the part's file, and returns the computed features."""
    from ..graph.quiet import hush_tensorflow

    hush_tensorflow()
    with tempfile.TemporaryDirectory(prefix="ckpt-tools-") as folder:
        options = replace(part.options, output=f"{folder}/features", shards=1 if part.file else part.options.shards)
        if part.file:
            # The folder's name tells the split, which is that of the whole data set, so nothing is held out here.
            (Path(folder) / "data" / "validation").mkdir(parents=True)
            download(part.labels, f"{folder}/data/{Path(part.labels).name}")
            download(part.file, f"{folder}/data/validation/{Path(part.file).name}")
            options = replace(options, data=f"{folder}/data", split="all")
        _, features = write_features(options)
        return replace(features, values=np.array(features.values), examples=None)


def as_part(features: Features, parts: Sequence[Task], number: int, asked: str) -> Features:
    """Converts the features of a task to those of a part of the whole."""
    part, facts = parts[number], {**features.facts, "shards": len(parts), "asked": asked}
    if not part.file:
        return replace(features, facts=facts)
    del facts["images"]  # the total is not known
    return replace(
        features,
        names=tuple(name.removeprefix("validation/") for name in features.names),
        split=(part.split,) * len(features.names),
        position=features.position + number * AT_ONCE,
        facts={**facts, "data": part.options.data},
    )


def _connected(address: str) -> ModuleType:
    """Connects Ray to a cluster, and returns it. Raises UnsupportedError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    try:
        import ray
    except ImportError:
        raise UnsupportedError("--ray needs Ray", advice='pip install "ckpt-tools[ray]"') from None
    try:
        if where := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address):  # Ray itself would wait several minutes
            socket.create_connection((where[1], int(where[2])), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        advice = "`ray start --head` starts one; local needs none."
        raise UnsupportedError(f"--ray {address}: no cluster answers ({said})", advice=advice) from None
    return ray


def _value(ray: ModuleType, done: object) -> Features:
    """The result of a task. Raises the task's error, or UnsupportedError if it was lost too often."""
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CheckpointError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        fact = f"a part was lost {LOST + 1} times ({type(error).__name__})"
        advice = "Do the machines have enough memory? Run the same command again to compute the missing parts."
        raise UnsupportedError(fact, advice=advice) from None


def _asked(parts: Sequence[Task]) -> str:
    """A digest, 16 hex digits, of everything that the values depend on."""
    options = {name: value for name, value in asdict(parts[0].options).items() if name not in SAME}
    return hashlib.sha256(json.dumps([options, [part.file for part in parts]]).encode()).hexdigest()[:16]


def _is_there(prefix: str, asked: str) -> bool:
    """Whether a part of the same work is complete: its .npz is written after the values, and atomically."""
    return Path(f"{prefix}.npz").is_file() and read_features(prefix).facts.get("asked") == asked
