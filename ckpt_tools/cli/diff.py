"""ckpt-diff: what differs between two checkpoints."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence

from ..diff import Change, diff_tensors, summary
from ..errors import RecipeError
from ..formats import open_checkpoint
from ..report import count, render
from ..tensors import Tensors
from . import DONE, FOUND, parser, print_json, run

EXAMPLES = """\
  ckpt-diff inception_v3.ckpt run/model.ckpt-500
  ckpt-diff model.ckpt-100 model.ckpt-200 --tolerance 1e-6
  ckpt-diff model.ckpt model.npz --json"""
COLUMNS = ("change", "name", "new name", "a", "b", "differing", "max abs", "max rel")


def make_parser() -> argparse.ArgumentParser:
    """The parser of ckpt-diff."""
    made = parser("ckpt-diff", "Compares names, shapes, types and values of two checkpoints.", EXAMPLES)
    made.add_argument("a", metavar="A", help="a checkpoint, any of its files, or SRC:scope")
    made.add_argument("b", metavar="B", help="the other checkpoint, in any format")
    made.add_argument("--tolerance", type=float, default=0.0, metavar="X", help="largest |a - b| that counts as equal")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 when A and B hold the same, 1 when they differ."""

    def command(args: argparse.Namespace) -> int:
        if not args.tolerance >= 0:
            raise RecipeError(f"--tolerance {args.tolerance}: must be 0 or more")
        a, b = open_checkpoint(args.a).tensors, open_checkpoint(args.b).tensors
        changes = diff_tensors(a, b, args.tolerance)
        counts = summary(changes, a, b)
        if args.json:
            print_json({"rows": [json_row(change) for change in changes], "summary": counts})
        else:
            print(text(changes, counts))
            if counts["removed"] and counts["added"]:
                print(*other_libraries({args.a: a, args.b: b}), sep="\n", end="")
        return FOUND if changes else DONE

    return run(make_parser(), command, argv)


def other_libraries(sides: Mapping[str, Tensors]) -> list[str]:
    """What to type where both are the same net and another library wrote one of them: its names are found again by
    their values, but not weights whose axes have another order there, which seem to differ."""
    from ..layouts import recognise as recognise_foreign
    from ..nets.registry import NETS, recognise

    nets, worlds, advice = set(), set(), []
    for path, tensors in sides.items():
        slims = recognise(tensors.specs())
        foreign = None if slims and slims.net else recognise_foreign(tensors.specs(), NETS.values())
        nets.add(foreign.net.name if foreign else slims.net.name if slims and slims.net else path)
        worlds.add(foreign.world if foreign else "slim")
        if foreign:
            convert = f"ckpt-convert {shlex.quote(path)} OTHER.ckpt --layout slim"
            advice.append(f"  => {path} is {foreign}; the same values may have other shapes there: {convert}")
    return [*advice, ""] if len(nets) == 1 and len(worlds) == 2 else []


def json_row(change: Change) -> dict[str, object]:
    """The fields of a change; specs as dtype and shape."""
    return change._asdict() | {side: spec and spec._asdict() for side, spec in (("a", change.a), ("b", change.b))}


def text(changes: Sequence[Change], counts: dict[str, int]) -> str:
    """The changes as a table, without the columns that none of them has, then the counts."""
    rows = [dict(zip(COLUMNS, (*change[:3], *map(_spec, change[3:5]), *change[5:]), strict=True)) for change in changes]
    used = [column for column in COLUMNS if any(row[column] is not None for row in rows)]
    kinds = [f"{counts[kind]:,} {words}" for kind, words in _WORDS.items() if counts[kind]]
    whole = f"{count(counts['a'], 'tensor')} and {count(counts['b'], 'tensor')}: {', '.join(kinds) or 'none'}"
    return "\n".join([*([render(rows, used), ""] if rows else []), whole])


_WORDS = {
    "same": "the same",
    "values": "with other values",
    "shape": "of another shape",
    "dtype": "of another type",
    "renamed": "renamed",
    "removed": "in A only",
    "added": "in B only",
}


def _spec(spec: object) -> str | None:
    return None if spec is None else str(spec)
