"""ckpt-verify: structure and checksums, and saving what is still good."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..report import count, listed, render, size
from ..verification import Verification, verify
from . import DONE, FOUND, as_typed, parser, print_json, run, say

EXAMPLES = """\
  ckpt-verify inception_v3.ckpt
  ckpt-verify model.ckpt-5000 --json
  ckpt-verify broken/model.ckpt-5000 --salvage saved/model.ckpt-5000"""

_NAMED = 10  # lost tensors that are named when the rest is saved; all are in the table


def make_parser() -> argparse.ArgumentParser:
    """The parser of ckpt-verify."""
    made = parser("ckpt-verify", "Checks the structure and every checksum; prints one row per finding.", EXAMPLES)
    made.add_argument("source", metavar="SRC", help="a checkpoint, whole or not, any of its files, or SRC:scope")
    made.add_argument(
        "--salvage", metavar="DST", help="write every tensor that is still intact; the extension sets the format"
    )
    made.add_argument("--force", action="store_true", help="replace DST")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 1 when something is wrong."""

    def command(args: argparse.Namespace) -> int:
        if args.salvage:
            from ..formats.output import format_of

            format = format_of(args.salvage)
        found = verify(args.source)
        rows = [finding._asdict() for finding in found.findings]
        if args.json:
            print_json({"rows": rows, "summary": found.summary})
        else:
            print(text(found, rows))
        if args.salvage:
            typed = as_typed("ckpt-verify", argv)
            files = found.salvage(args.salvage, format=format, force=args.force, command=typed)
            said = f"wrote {count(len(found.good), 'tensor')} to {args.salvage} ({count(len(files), 'file')})"
            say(f"{said}; lost: {listed(found.lost, _NAMED) or 'none'}")
        return FOUND if found.findings else DONE

    return run(make_parser(), command, argv)


def text(found: Verification, rows: Sequence[dict[str, Any]]) -> str:
    """The findings as a table with the files' last names, then one sentence on the whole."""
    rows = [{**row, "file": str(row["file"]).rpartition("/")[2]} for row in rows]
    summary = found.summary
    all_of_it = f"{count(summary['tensors'], 'tensor')}, {size(summary['bytes'])}"
    if not rows:
        last = f"{found.path}: {all_of_it}: all is well"
    else:
        good = f"{count(len(found.good))} of {count(summary['tensors'], 'tensor')} are good, {size(summary['bytes'])}"
        last = f"{found.path}: {count(len(rows), 'finding')}; {good}"
    notes = [f"note: {note}" for note in found.notes]
    return "\n".join([*([render(rows, ["file", "tensor", "what"]), ""] if rows else []), *notes, last])
