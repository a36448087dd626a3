"""ckpt-inspect: what a checkpoint holds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, SelectionError
from ..formats import Checkpoint, open_checkpoint
from ..formats.detect import CUT_GRAPH, identify
from ..formats.storage import is_file
from ..names import select
from ..overview import SORTS, TensorRow, branches, find, overview, sort_rows, statistics, statistics_of, totals
from ..report import count, listed, render, share, size
from ..tensors import Spec
from . import DONE, FOUND, LAYOUTS, parser, print_json, run, salvaging, say

if TYPE_CHECKING:
    import numpy as np

    from ..nets.recognition import Recognised
    from ..surgery import EditRow

TITLES = {
    "v1": "V1 checkpoint",
    "v2": "V2 checkpoint",
    "saved_model": "SavedModel",
    "graphdef": "GraphDef",
    "keras_h5": "Keras HDF5 file",
    "keras": "Keras archive",
    "safetensors": "safetensors file",
    "npz": "npz archive",
    "torch": "PyTorch file",
    "torch_legacy": "PyTorch file (of before 1.6)",
}
COLUMNS = ["name", "dtype", "shape", "parameters", "bytes", "kind"]
STATISTICS = ["min", "max", "mean", "std", "zeros", "nan", "inf"]
TENSORS_ONLY = ("scope", "sort", "names", "tree", "stats", "tensor", "layout", "fail_on", "html", "stored_names")
SPELLED = {"nan": "NaN", "inf": "Inf"}
EXAMPLES = """\
  ckpt-inspect inception_v3.ckpt
  ckpt-inspect model.ckpt-1000 --scope Logits --stats
  ckpt-inspect train_dir --sort size          the latest checkpoint of a run
  ckpt-inspect model.ckpt --tree=2            how much each scope holds
  ckpt-inspect model.ckpt --tensor net/Logits/biases
  ckpt-inspect model.ckpt --scope 're:weights$' --names | wc -l
  ckpt-inspect model.ckpt --fail-on nan,inf > /dev/null || echo broken
  ckpt-inspect model.ckpt --json | jq .totals
  ckpt-inspect model.ckpt.meta                the graph: inputs, features, classes, end points, variables
  ckpt-inspect model.ckpt --html model.html   a page to explore it in the browser
  ckpt-inspect inception_v3.h5 --layout slim   what each tensor of Keras' file is in slim's net"""


def make_parser() -> argparse.ArgumentParser:
    made = parser(
        "ckpt-inspect", "Lists what a checkpoint holds. Values are read only where they are asked for.", EXAMPLES
    )
    made.add_argument(
        "source", metavar="SRC", help="any checkpoint, any of its files, its folder; SRC:scope for a part"
    )
    made.add_argument("--scope", metavar="PATTERN", action="append", help="only tensors that match; may be repeated")
    made.add_argument("--sort", choices=SORTS, help="order of the rows; that of the source by default")
    view = made.add_mutually_exclusive_group()
    view.add_argument("--names", action="store_true", help="print only names, one per line")
    view.add_argument(
        "--tree",
        metavar="DEPTH",
        type=_depth,
        nargs="?",
        const=0,
        help="print the tree of scopes, to this depth if given",
    )
    made.add_argument("--stats", action="store_true", help="min, max, mean, std of the finite values; zeros, NaN, Inf")
    view.add_argument("--tensor", metavar="NAME", action="append", help="print the values of a tensor; may be repeated")
    made.add_argument(
        "--all-values", action="store_true", help="with --tensor: every value, not the first and last few"
    )
    made.add_argument(
        "--fail-on", metavar="nan,inf", type=_fail_on, default=(), help="exit with 1 if any tensor has such values"
    )
    view.add_argument("--layout", choices=LAYOUTS, help="show what each tensor is called in this library")
    view.add_argument("--as", dest="layout", choices=LAYOUTS, help=argparse.SUPPRESS)
    made.add_argument(
        "--graph", action="store_true", help="show inputs, outputs and end points of the graph; default for a .meta"
    )
    view.add_argument("--html", metavar="FILE", help="write a self-contained page to explore the checkpoint")
    made.add_argument("--stored-names", action="store_true", help="object-based checkpoints: show the keys as stored")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return run(make_parser(), inspect, argv)


def inspect(args: argparse.Namespace) -> int:
    if args.graph or (is_graph(args.source) and not any(getattr(args, name) for name in TENSORS_ONLY)):
        from .graph import show_graph  # most often it is a checkpoint

        if given := [f"--{name.replace('_', '-')}" for name in TENSORS_ONLY if getattr(args, name)]:
            raise SelectionError(f"{' and '.join(given)}: these show tensors, not a graph", advice="Leave out --graph.")
        show_graph(args.source, args.json)
        return DONE
    checkpoint = open_checkpoint(args.source, names="stored" if args.stored_names else "variable")
    if args.tensor:
        with salvaging():
            return print_values(args, checkpoint)
    if args.layout:
        return print_layout(args, checkpoint)
    rows = overview(checkpoint.tensors)
    chosen = in_scope(args, [row.name for row in rows])
    shown = [row for row in rows if row.name in chosen]
    names = [row.name for row in shown]
    if args.html and rows:
        return write_html(args, checkpoint, rows, shown)
    if args.sort:
        shown = sort_rows(shown, args.sort, checkpoint.tensors)
    values = read_statistics(checkpoint, names) if args.stats or args.fail_on else {}
    if args.names:
        print_json(names) if args.json else print("\n".join(names))
    elif args.json:
        print_json(as_json(args, checkpoint, rows, shown, values))
    else:
        print_tables(args, checkpoint, rows, shown, values)
    if not rows:
        say(f"ckpt-inspect: {args.source} holds no tensors")
        return FOUND
    return FOUND if complain(args, values) else DONE


def in_scope(args: argparse.Namespace, names: list[str]) -> set[str]:
    """The names that --scope selects; all of them without it."""
    if not args.scope:
        return set(names)
    chosen = set(select(names, args.scope, option="--scope", of="tensors"))
    if names and not chosen:  # an empty text, or A,!A
        raise SelectionError(f"--scope {','.join(args.scope)!r} leaves nothing of {count(len(names), 'tensor')}")
    return chosen


def is_graph(source: str) -> bool:
    """Whether a source is a MetaGraph, which holds no tensors, or the beginning of one."""
    return is_file(source) and identify(source).name in ("metagraph", CUT_GRAPH)


def print_tables(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    rows: list[TensorRow],
    shown: list[TensorRow],
    values: dict[str, dict[str, Any]],
) -> None:
    print(headline(args.source, checkpoint, rows))
    if checkpoint.note:
        print(f"note: {checkpoint.note}")
    if not shown:
        return
    if args.scope:
        print(selected(args, rows, shown))
    print()
    if args.tree is not None:
        whole, *inner = branches(shown, args.tree)
        table = [
            {
                "scope": "  " * (each.depth - 1) + each.path.rpartition("/")[2] + "/" * each.is_scope,
                "tensors": each.tensors,
                "parameters": each.parameters,
                "size": size(each.bytes),
                "share": share(each.bytes, whole.bytes),
            }
            for each in inner
        ]
        print(render(table, list(table[0])))
    else:
        columns = COLUMNS + ["of"] * any(row.of for row in shown) + STATISTICS * args.stats
        print(render([row._asdict() | values.get(row.name, {}) for row in shown], columns))
    print()
    sums = [total._asdict() | {"size": size(total.bytes)} for total in totals(shown)]
    print(render(sums, ["kind", "tensors", "parameters", "bytes", "size"]))


def print_layout(args: argparse.Namespace, checkpoint: Checkpoint) -> int:
    """Each tensor of the file beside what it is in another library's net."""
    from .layouts import in_layout  # takes longer than all else that is imported here

    found = in_layout(checkpoint, args.layout)
    chosen = in_scope(args, [row.source or row.name for row in found.surgery.rows])
    rows = [row for row in found.surgery.rows if (row.source or row.name) in chosen]
    names = [name for name in checkpoint.tensors if name in chosen]
    values = read_statistics(checkpoint, names) if args.fail_on else {}
    table = [
        {
            "name": row.source or None,
            "shape": row.before.shape if row.before else None,
            args.layout: row.name if row.after else None,
            "there": row.after.shape if row.after and row.after != row.before else None,
            "how": _how(row) or None,
        }
        for row in rows
    ]
    if args.json:
        print_json({"source": args.source, "net": found.net, "layout": args.layout, "near": found.near, "rows": table})
        return FOUND if complain(args, values) else DONE
    print(f"{args.source}: {found.origin}, in the layout of {args.layout}")
    for difference in found.near:
        print(f"near: {difference}")
    for note in found.notes:
        print(f"note: {note}")
    print(f"\n{render(table, [column for column in table[0] if any(row[column] is not None for row in table)])}")
    return FOUND if complain(args, values) else DONE


def _how(row: EditRow) -> str:
    """What happens to the values of a tensor on their way, in few words."""
    folds = [word for word in ("gamma", "biases") if "fold" in row.action and f"/{word}" in row.detail]
    words = [part for part in row.detail.split("; ") if "BatchNorm" not in part]
    if row.after is None:
        return "folded into its layer" if "fold" in row.action else "; ".join(words)
    return ", ".join((*filter(None, words), *(f"{word} folded in" for word in folds)))


def selected(args: argparse.Namespace, rows: list[TensorRow], shown: list[TensorRow]) -> str:
    return f"selected by --scope {','.join(args.scope)}: {len(shown):,} of {count(len(rows), 'tensor')}"


def write_html(args: argparse.Namespace, checkpoint: Checkpoint, rows: list[TensorRow], shown: list[TensorRow]) -> int:
    from ..explorer import explore, write_page

    title, _, facts = headline(args.source, checkpoint, rows).partition(": ")
    if args.scope:
        facts += f"; {selected(args, rows, shown)}"
    page, problems, measured = explore(
        checkpoint.tensors, shown, title, facts, count_on_terminal if sys.stderr.isatty() else None
    )
    say(f"ckpt-inspect: wrote {args.html}, {size(write_page(page, args.html))}")
    if problems:
        say(f"{count(len(problems), 'tensor')} could not be read, the first: {next(iter(problems.values()))}")
    values = {}
    if args.fail_on or (args.json and args.stats):  # of a very large checkpoint the page shows the largest tensors only
        others = [row.name for row in shown if row.name not in {**measured, **problems}]
        values = {name: each._asdict() for name, each in measured.items()} | read_statistics(checkpoint, others)
    if args.json:
        print_json(as_json(args, checkpoint, rows, shown, values))
    return FOUND if complain(args, values) or problems else DONE


def count_on_terminal(done: int, total: int) -> None:
    if done % 20 == 0 or done == total:
        print(f"\r{done:,} of {total:,} tensors read", end="\n" * (done == total), file=sys.stderr, flush=True)


def headline(source: str, checkpoint: Checkpoint, rows: list[TensorRow]) -> str:
    """`inception_v3.ckpt: V1 checkpoint, 388 tensors, 27,182,194 parameters, 108.7 MB; slim InceptionV3, ...`"""
    whole = totals(rows)[-1]
    title = TITLES[checkpoint.format]
    if checkpoint.tensors.stored_names and checkpoint.format == "v2":
        title = f"object-based {title}"
    data_files = [file for file in checkpoint.files if not file.endswith(".index")]
    shards = f" in {len(data_files)} shards" if len(data_files) > 1 else ""
    facts = [title + shards, count(whole.tensors, "tensor"), count(whole.parameters, "parameter"), size(whole.bytes)]
    net = recognised(checkpoint)
    return f"{source}: {', '.join(facts)}" + (f"; {net}" if net else "")


def recognised(checkpoint: Checkpoint) -> Recognised | None:
    from ..nets.registry import recognise

    return recognise(checkpoint.tensors.specs())


def as_json(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    rows: list[TensorRow],
    shown: list[TensorRow],
    values: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    found = recognised(checkpoint)
    sums = {total.kind: total._asdict() for total in totals(shown)}
    document = {
        "source": args.source,
        "format": checkpoint.format,
        "net": found.net.name if found and found.net else None,
    }
    if args.tree is not None:
        document["tree"] = [each._asdict() for each in branches(shown, args.tree)]
    else:
        document["tensors"] = [
            {column: getattr(row, column) for column in COLUMNS}
            | ({"of": row.of} if row.kind in ("slot", "average") else {})
            | (values.get(row.name, {}) if args.stats else {})
            for row in shown
        ]
    whole = sums.pop("total")
    del whole["kind"]
    by_kind = {kind: {key: total[key] for key in whole} for kind, total in sums.items()}
    return document | {"totals": whole | {"kinds": by_kind}}


def read_statistics(checkpoint: Checkpoint, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Statistics of each tensor as a dictionary, by name. Tensors are read one at a time."""
    found = {}
    with salvaging():
        for name in names:
            try:
                found[name] = statistics(checkpoint.tensors[name])._asdict()
            except CheckpointError as error:
                raise error.at(path=checkpoint.path, tensor=name) from None
    return found


def complain(args: argparse.Namespace, values: dict[str, dict[str, Any]]) -> bool:
    """Says on stderr what --fail-on finds; True when it finds something."""
    bad = [
        f"{name} ({', '.join(f'{each[word]:,} {SPELLED[word]}' for word in args.fail_on if each[word])})"
        for name, each in values.items()
        if any(each[word] for word in args.fail_on)
    ]
    if bad:
        words = " or ".join(SPELLED[word] for word in args.fail_on)
        say(f"ckpt-inspect: {count(len(bad), 'tensor')} with {words}: {listed(bad, 10)}")
    return bool(bad)


def print_values(args: argparse.Namespace, checkpoint: Checkpoint) -> int:
    import numpy as np

    limit = sys.maxsize if args.all_values else 1000
    measured, documents = {}, []
    for name, tensor in {name: find(checkpoint.tensors, name) for name in args.tensor}.items():
        array = tensor.load()
        if args.fail_on:
            measured[name] = statistics_of(array)._asdict()
        if args.json:
            documents.append(_values_as_json(name, tensor.spec, array))
        else:
            print(f"{name}: {tensor.spec}")
            print(np.array2string(array, threshold=limit, max_line_width=120, separator=", "))
    if args.json:
        print_json(documents)
    return FOUND if complain(args, measured) else DONE


def _values_as_json(name: str, spec: Spec, array: np.ndarray) -> dict[str, Any]:
    if array.dtype.kind == "O":
        values = [each.decode("utf-8", "backslashreplace") for each in array.reshape(-1)]
    elif array.dtype.kind == "c":
        values = [[each.real, each.imag] for each in array.reshape(-1).tolist()]
    else:
        values = array.reshape(-1).tolist()
    return {"name": name, "dtype": spec.dtype, "shape": spec.shape, "values": values}


def _depth(text: str) -> int:
    if not text.isdigit() or text == "0":
        raise argparse.ArgumentTypeError(f"{text!r} is not a depth; write --tree=2, or give SRC before --tree")
    return int(text)


def _fail_on(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",")))
    for word in words:
        if word not in SPELLED:
            raise argparse.ArgumentTypeError(f"{word!r} is not one of nan, inf")
    return words
