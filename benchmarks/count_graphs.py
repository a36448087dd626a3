"""Counts how many public graph files are understood, and how many can be used.

    python benchmarks/count_graphs.py FOLDER [--table benchmarks/public_graphs.tsv] [--check]

FOLDER has the files that the table names, each under OWNER/REPOSITORY/PATH as in a `git clone`; a checkpoint beside a
file is used. A row of the table describes a graph ("classifier", "other", or "tensorflow 2" for a SavedModel whose
variables have no names) as determined by a human reader: its images, features and logits, and the options that are
needed, if any. The script prints the rows with another outcome, and the counts.

With --check each net is imported, with its own weights or, if these are missing, with random ones, and must pass the
check that a run makes before its first step."""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from ckpt_tools.errors import CheckpointError
from ckpt_tools.formats import open_checkpoint
from ckpt_tools.graphs.choosing import Choices
from ckpt_tools.graphs.files import checkpoint_of
from ckpt_tools.graphs.net import GraphPart
from ckpt_tools.nets.from_graph import net_from, open_graph
from ckpt_tools.nets.resolving import feeds


def opened(path: Path, typed: dict[str, str]) -> GraphPart:
    """The net in a file, opened with the options `typed`. Raises like `open_graph` and `net_from`."""
    source, saved = checkpoint_of(str(path)), ()
    try:
        saved = tuple(open_checkpoint(source).tensors) if source else ()
    except CheckpointError:
        source = ""
    fed = feeds(typed.get("feed", "").split(";") if "feed" in typed else ())
    choices = Choices(typed.get("input", ""), typed.get("features", ""), typed.get("logits", ""), fed)
    part = open_graph(str(path), choices, saved, source if saved else "")
    net_from(part)
    return part


def runs(part: GraphPart, side: int) -> str:
    """The problem found by the check before training; "" if there is none."""
    from ckpt_tools.nets.imported import check_import

    net, random = net_from(part), np.random.default_rng(0)

    def value(shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) < 2:  # biases, and variances, which are not negative
            return np.abs(random.normal(0, 0.1, shape)) + 0.05
        return random.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape)

    values = {each.key: lambda shape=each.spec.shape: value(shape) for each in part.found.variables}
    try:
        own = open_checkpoint(checkpoint_of(part.file.path)).tensors
        arrays = {name: own[name].load() for name in values if name in own}
        values |= {name: lambda array=array: array for name, array in arrays.items()}
    except CheckpointError:
        pass  # the file of values is missing
    size = side or net.image_size
    try:
        wrong = check_import(part.file, part.found, (size, size, net.input_channels), values)
    except CheckpointError as error:
        return str(error)
    return "; ".join(conflict.cause for conflict in wrong)


def outcome(path: Path, row: dict[str, str], check: bool) -> tuple[str, str]:
    """The outcome for a file: "understood", "with a hint", "asks", "wrong" or, with `check`, "does not run"; and why.

    For a graph that is not a classifier the outcome is "asks", too, or "taken for one".
    """
    typed = dict(option.split("=", 1) for option in row["typed"].split())
    side = int(typed.pop("image-size", 0))
    try:
        part, result = opened(path, {}), "understood"
    except CheckpointError as error:
        if not typed:
            return "asks", str(error)
        try:
            part, result = opened(path, typed), "with a hint"
        except CheckpointError as again:
            return "asks", str(again)
    names = (part.found.fed.tensor, part.found.features, part.found.logits)
    wanted = tuple(row[name] for name in ("images", "features", "logits"))
    if row["what"] != "classifier":
        return "taken for one", f"found {', '.join(names)}"
    if names != wanted:
        return "wrong", f"found {', '.join(names)}"
    if check and (reason := runs(part, side)):
        return "does not run", reason
    return result, ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", type=Path, default=Path(__file__).with_name("public_graphs.tsv"))
    parser.add_argument("--check", action="store_true", help="import each net and compute, which takes TensorFlow")
    args = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    missing = 0
    with args.table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        path = args.folder / row["repository"] / row["path"]
        if not path.is_file():
            missing += 1
            continue
        result, why = outcome(path, row, args.check)
        counts.setdefault(row["what"], Counter())[result] += 1
        if why and (row["what"] == "classifier" or result != "asks"):
            print(f"{result:<13} {row['repository']}/{row['path']}: {' '.join(why.split())[:160]}", flush=True)
    for what, found in counts.items():
        told = ", ".join(f"{count} {result}" for result, count in found.most_common())
        print(f"{what}: {found.total()} files, {told}")
    if missing:
        print(f"{missing} files of the table are not in {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
