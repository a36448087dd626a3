"""ckpt-predict: labels with probabilities for images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..report import render
from . import DONE, FOUND, parser, print_json, run, say
from .events import Printer, fact

EXAMPLES = """\
  ckpt-predict --train-dir run photo.jpg more_photos
  ckpt-predict --train-dir run 'holiday/*.jpg' --top 1 --json
  ckpt-predict --train-dir run test.tfrecord --output predictions.csv --all-probabilities
  ckpt-predict --checkpoint inception_v3.ckpt --labels imagenet_labels.txt photo.jpg"""


def make_parser() -> argparse.ArgumentParser:
    """The parser; its options are the images and the fields of `train.use.predict.PredictOptions`."""
    from ..train.options.configuration import add_arguments
    from ..train.use.predict import PredictOptions

    made = parser("ckpt-predict", "Predicts labels of images, with probabilities.", EXAMPLES)
    made.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image files, folders, patterns such as 'a/*.jpg', records, .npz files, or what ckpt-features wrote",
    )
    add_arguments(made, PredictOptions)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 when some of the images could not be decoded."""
    made = make_parser()

    def command(args: argparse.Namespace) -> int:
        from ..train.graph.quiet import hush_tensorflow
        from ..train.options.configuration import from_arguments
        from ..train.use.predict import PredictOptions, predict, write_csv

        options = from_arguments(PredictOptions, args)
        hush_tensorflow()
        found = predict(options, args.images, Printer())
        for name, reason in found.unreadable.items():
            say(f"{made.prog}: {name}: cannot be decoded: {reason}")
        if options.output:
            write_csv(found, options.output)
            say(fact("wrote", options.output))
        if args.json:
            summary: dict[str, object] = {
                "source": found.source,
                "images": len(found.rows),
                "unreadable": found.unreadable,
            }
            summary |= {"labels": list(found.labels)} if options.all_probabilities else {}
            summary["precision"] = found.precision
            print_json({"rows": found.rows, "summary": summary})
        else:
            print(text_of_many(found.rows) if found.many else text_of(found.rows))
        return FOUND if found.unreadable else DONE

    return run(made, command, argv)


def text_of_many(rows: Sequence[dict[str, Any]]) -> str:
    """A table with one line an image: all its labels, the likeliest first."""
    lines = []
    for row in rows:
        labels = ", ".join(f"{guess['label']} {guess['probability']:.3f}" for guess in row["predictions"])
        lines.append({"file": row["file"], "labels": labels or "none"})
    return render(lines, ["file", "labels"])


def text_of(rows: Sequence[dict[str, Any]]) -> str:
    """A table with one line an image: the likeliest labels from left to right."""
    most = max(len(row["predictions"]) for row in rows)
    columns = [
        "file",
        *(f"{word} {i + 1}" if most > 1 else word for i in range(most) for word in ("label", "probability")),
    ]
    lines = []
    for row in rows:
        cells = [cell for guess in row["predictions"] for cell in (guess["label"], f"{guess['probability']:.3f}")]
        lines.append(dict(zip(columns, [row["file"], *cells], strict=True)))
    return render(lines, columns)
