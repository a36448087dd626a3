"""ckpt-convert: between V1, V2, npz, safetensors and Keras files; PyTorch's files, SavedModels and frozen graphs in;
between slim, Keras, torchvision and timm. No TensorFlow."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..formats import Checkpoint, open_checkpoint, save_checkpoint
from ..formats.output import WRITERS, check_tensors, existing_files, format_of, target_of
from ..report import count, render, size
from ..surgery import row_sentence
from ..surgery.chain import totals
from . import DONE, FOUND, LAYOUTS, as_typed, check_v2_options, parser, print_json, run, salvaging, say
from .checking import Check, as_json, check, prepare_check, text
from .layouts import InLayout, in_layout
from .progress import progress_line

EXAMPLES = """\
  ckpt-convert inception_v3.ckpt inception_v3_v2.ckpt
  ckpt-convert model.ckpt-5000 model.safetensors
  ckpt-convert frozen_graph.pb model.npz
  ckpt-convert model.ckpt old/model.ckpt --format v1
  ckpt-convert weights.h5 model.ckpt --shards 4
  ckpt-convert inception_v3.weights.h5 inception_v3.ckpt --layout slim
  ckpt-convert inception_v3.ckpt inception_v3.h5 --layout keras --check
  ckpt-convert run/best.ckpt resnet50.safetensors --layout torchvision
  ckpt-convert model.ckpt other.ckpt --link --dry-run"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of ckpt-convert."""
    made = parser("ckpt-convert", "Writes a checkpoint in another format, without TensorFlow.", EXAMPLES)
    add = made.add_argument
    add("source", metavar="SRC", help="a checkpoint, any of its files, a SavedModel, a frozen graph, or SRC:scope")
    add("target", metavar="DST", help="file or V2 prefix to write")
    add("--format", metavar="NAME", choices=list(WRITERS), help=f"{', '.join(WRITERS)}; by extension of DST, else v2")
    add("--to", dest="format", choices=list(WRITERS), help=argparse.SUPPRESS)
    add("--layout", choices=LAYOUTS, help="write the net with this library's names and axes")
    add(
        "--keep-background",
        action="store_true",
        help="with --layout: keep all of slim's 1001 classes, not the last 1000",
    )
    add(
        "--check",
        nargs="*",
        metavar="IMAGES",
        help="with --layout: run both nets on these images, or on noise, and compare",
    )
    add("--tolerance", type=float, default=1e-4, metavar="X",
        help="largest difference for --check, relative to the largest logit (default: %(default)s)")  # fmt: skip
    add("--shards", type=int, metavar="N", help="number of data files of a V2 checkpoint")
    add("--link", action="store_true", help="hard-link V2 data files that do not change instead of copying them")
    add("--force", action="store_true", help="replace what is at DST")
    add("--dry-run", action="store_true", help="show what would be written, and write nothing")
    names = made.add_mutually_exclusive_group()
    names.add_argument("--tf-names", action="store_true", help="object-based V2 to V2: use the names of the variables")
    names.add_argument(
        "--stored-names", action="store_true", help="object-based V2 to others: use the keys in the file"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 1 where --check finds more than the tolerance."""

    def command(args: argparse.Namespace) -> int:
        format = args.format or format_of(args.target)
        check_v2_options(args, format)
        _check_options(args)
        given = source = _open(args, format)
        layout = None
        if args.layout:
            places = format == "keras_weights"
            layout = in_layout(given, args.layout, keep_background=args.keep_background, places=places)
            source = given._replace(tensors=layout.surgery.tensors)
            if args.check is not None:
                prepare_check(given, layout, args.layout)
        if args.dry_run:
            check_tensors(source.tensors, format)
        files = () if args.dry_run else _write(args, source, format, layout, argv)
        if not args.json:  # before the check, which takes a while
            _show(args, source, format, files, layout)
        checks = check(given, args.target, layout, args.layout, args.check) if layout and args.check is not None else []
        if args.json:
            print_json(_as_json(args, source, format, files, layout, checks))
        elif checks:
            print("\n".join(text(each, args.tolerance) for each in checks))
        return FOUND if any(not each.found.last <= args.tolerance for each in checks) else DONE

    return run(make_parser(), command, argv)


def _write(
    args: argparse.Namespace, source: Checkpoint, format: str, layout: InLayout | None, argv: Sequence[str] | None
) -> tuple[str, ...]:
    command = as_typed("ckpt-convert", argv)
    with salvaging(), progress_line("writing", totals(source.tensors)["bytes"]) as progress:
        return save_checkpoint(
            source,
            args.target,
            format=format,
            shards=args.shards,
            force=args.force,
            link=args.link,
            provenance={"command": command, **(_provenance(layout, args.layout) if layout else {})},
            progress=progress,
        )


def _check_options(args: argparse.Namespace) -> None:
    """Raises RecipeError for options that need or exclude others."""
    for flag, given in (("--keep-background", args.keep_background), ("--check", args.check is not None)):
        if given and not args.layout:
            raise RecipeError(f"{flag} goes with --layout")
    if args.check is not None and args.dry_run:
        raise RecipeError("--check runs what was written, and --dry-run writes nothing")


def _open(args: argparse.Namespace, format: str) -> Checkpoint:
    """Object-based checkpoints become name-based, but from V2 to V2 nothing changes unless it is asked for."""
    source = open_checkpoint(args.source, names="stored" if args.stored_names else "variable")
    if source.format == "v2" and format == "v2" and not args.tf_names and not args.stored_names:
        return open_checkpoint(args.source, names="stored")
    return source


def _provenance(layout: InLayout, name: str) -> dict[str, object]:
    """What was done to each tensor, what is not the same function, and of slim's names what computes the same."""
    rows = layout.surgery.rows
    known = {"net": layout.computed, "preprocessing": layout.pixels or None} if name == "slim" else {}
    return {
        **known,
        "actions": {row.name: row_sentence(row) for row in rows if row.after is not None},
        "left_out": {row.name: row_sentence(row) for row in rows if row.after is None},
        "near": list(layout.near),
    }


def _as_json(
    args: argparse.Namespace,
    source: Checkpoint,
    format: str,
    files: Sequence[str],
    layout: InLayout | None,
    checks: Sequence[Check],
) -> dict[str, object]:
    rows = _file_rows(files)
    return {
        "source": args.source,
        "source_format": source.format,
        "target": args.target,
        "format": format,
        "tensors": len(source.tensors),
        "bytes": sum(row["bytes"] for row in rows) or totals(source.tensors)["bytes"],
        "files": rows,
        "replaced": _replaced(args, format),
        "dry_run": args.dry_run,
        **({"layout": args.layout, "net": layout.net, "computed_by": layout.computed} if layout else {}),
        **({"near": layout.near} if layout else {}),
        **({"check": as_json(checks, args.tolerance)} if checks else {}),
    }


def _show(
    args: argparse.Namespace, source: Checkpoint, format: str, files: Sequence[str], layout: InLayout | None
) -> None:
    if source.note:
        say(source.note)
    verb = "would write" if args.dry_run else "wrote"
    amount = f"{count(len(source.tensors), 'tensor')}, {size(totals(source.tensors)['bytes'])}"
    print(f"{verb} {args.target} ({format}) from {source.path} ({source.format}): {amount}")
    if layout:
        _show_layout(layout, args.layout)
    if replaced := _replaced(args, format):
        print(f"would replace {', '.join(replaced)}" + ("" if args.force else ", which needs --force"))
    if args.link and files and all(Path(file).stat().st_nlink == 1 for file in files):
        say("no data file could be linked: the data was copied")
    if files:
        print(render(_file_rows(files), ["file", "bytes"]))


def _file_rows(files: Sequence[str]) -> list[dict[str, Any]]:
    return [{"file": file, "bytes": Path(file).stat().st_size} for file in files]


def _replaced(args: argparse.Namespace, format: str) -> list[str]:
    """What --dry-run says would be replaced."""
    return existing_files(target_of(args.target, format)) if args.dry_run else []


def _show_layout(layout: InLayout, name: str) -> None:
    """What the net is, what happened to its tensors, and whether it computes the same."""
    rows = layout.surgery.rows
    counts = {
        "written": sum(row.after is not None and bool(row.source) for row in rows),
        "made": sum(not row.source for row in rows),
        "folded in": sum(row.after is None and "fold" in row.action for row in rows),
        "left out": sum(row.after is None and "fold" not in row.action for row in rows),
    }
    print(f"net       {layout.origin}, in the layout of {name}")
    print(f"tensors   {', '.join(f'{number:,} {what}' for what, number in counts.items() if number)}")
    print(f"function  {_function(layout, name)}")
    for difference in layout.near:
        print(f"          {difference}")
    for note in layout.notes:
        print(f"note      {note}")


def _function(layout: InLayout, name: str) -> str:
    """Whether what is written computes what the source does, and in which net of ours."""
    if name == "slim" and layout.computed != layout.net:
        return f"the same in {layout.computed}, which is used here; nearly the same in slim's own net"
    return "nearly the same" if layout.near else "the same"
