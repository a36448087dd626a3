"""ckpt-export: a trained net as SavedModel, frozen GraphDef or TFLite, with its preprocessing inside."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..report import render, size
from . import DONE, parser, print_json, run, say
from .events import Printer

EXAMPLES = """\
  ckpt-export --train-dir run --output exported
  ckpt-export --train-dir run --output exported --format saved_model,graphdef,tflite --check photos
  ckpt-export --checkpoint inception_v3.ckpt --labels imagenet_labels.txt --output exported --format tflite"""


def make_parser() -> argparse.ArgumentParser:
    """The parser; its options are the fields of `train.use.export.ExportOptions`."""
    from ..train.options.configuration import add_arguments
    from ..train.use.export import ExportOptions

    made = parser(
        "ckpt-export", "Writes a trained net for other programs, and checks that it computes the same.", EXAMPLES
    )
    add_arguments(made, ExportOptions)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    made = make_parser()

    def command(args: argparse.Namespace) -> int:
        from ..train.graph.quiet import hush_tensorflow
        from ..train.options.configuration import from_arguments
        from ..train.use.export import ExportOptions, export

        options = from_arguments(ExportOptions, args)
        hush_tensorflow()
        exported = export(options, Printer())
        summary: dict[str, object] = {"source": exported.source, "net": exported.net, "images": exported.images}
        if args.json:
            summary["labels"] = list(exported.labels)
            print_json({"rows": exported.rows, "summary": summary})
        else:
            shown = [
                {**row, "size": size(row["bytes"]), "largest difference": f"{row['largest_difference']:.1e}"}
                for row in exported.rows
            ]
            print(render(shown, ["format", "file", "size", "largest difference"]))
            say(f"compared with the net on {exported.images} images")
        return DONE

    return run(made, command, argv)
