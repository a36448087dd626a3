"""ckpt-evaluate: accuracy, per-class figures, confusion matrix and worst errors of a checkpoint on a data set."""

from __future__ import annotations

import argparse
import shlex
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..report import render
from . import DONE, parser, print_json, run, say
from .events import Printer, fact

if TYPE_CHECKING:
    from ..train.use.evaluation import Evaluation

THRESHOLDS = 20  # classes up to which the best thresholds are written out
EXAMPLES = """\
  ckpt-evaluate --train-dir run                       the best checkpoint of a run, on the run's validation images
  ckpt-evaluate --train-dir run --use last --data other_photos --split all --output evaluation
  ckpt-evaluate --checkpoint resnet_v1_50.ckpt --data imagenet --labels labels.txt
  ckpt-evaluate --train-dir run --report              and put it into run/report.html
  ckpt-evaluate --train-dir run --batch-norm-gap      is it the moving statistics?"""


def make_parser() -> argparse.ArgumentParser:
    """The parser; its options are the fields of `train.use.evaluate.EvaluateOptions`."""
    from ..train.options.configuration import add_arguments
    from ..train.use.evaluate import EvaluateOptions

    made = parser("ckpt-evaluate", "Evaluates a checkpoint on labelled images.", EXAMPLES)
    add_arguments(made, EvaluateOptions)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    made = make_parser()

    def command(args: argparse.Namespace) -> int:
        from ..train.graph.quiet import hush_tensorflow
        from ..train.options.configuration import from_arguments
        from ..train.pages.evaluation_files import write_evaluation
        from ..train.use.evaluate import EvaluateOptions, evaluate

        options = from_arguments(EvaluateOptions, args)
        hush_tensorflow()
        evaluation = evaluate(options, Printer())
        try:
            if options.output:
                from ..train.pages.fonts import without_font

                how = {"all_probabilities": options.all_probabilities}
                say(fact("wrote", ", ".join(write_evaluation(evaluation, options.output, **how))))
                if note := without_font(evaluation.labels):
                    say(fact("note", note))
            if options.report:
                from ..train.pages.report import write_report

                say(fact("wrote", write_report(options.train_dir, evaluation, tsne=True)))
        finally:  # a folder that cannot be written to does not cost the figures
            if args.json:
                print_json({"rows": evaluation.rows, "summary": evaluation.summary})
            else:
                print(text_of(evaluation, shutil.get_terminal_size((120, 40)).columns))
        return DONE

    return run(made, command, argv)


def text_of_many(evaluation: Evaluation) -> str:
    """The same where an image may have several labels: per class, the most confident errors, average precision last."""
    figures = ["precision", "recall", "f1", "average_precision", "auc", "best_threshold"]
    seen = [row for row in evaluation.rows if row["images"]]
    columns = ["label", "images", "predicted", "correct", *figures]
    rows = [{key.replace("_", " "): row[key] for key in columns} for row in _rounded(seen, figures)]
    parts = [render(rows, [key.replace("_", " ") for key in columns])]
    summary = evaluation.summary
    parts += _worst(summary, ["file", "label", "present", "probability", "true"])
    if 0 < len(seen) <= THRESHOLDS and not any("," in row["label"] for row in seen):
        best = ",".join(f"{row['label']}={row['best_threshold']:.2f}" for row in seen)
        parts.append(f"F1 on these images is highest with --threshold {shlex.quote(best)}")
    means = {"mean average precision": "mean_average_precision", "macro AUC": "macro_auc", "macro F1": "macro_f1"}
    shown = [f"{word} {summary[key]:.3f}" for word, key in means.items() if summary[key] is not None]
    shown.append(f"exact match {summary['exact_match']:.1%}")
    parts.append(f"{', '.join(shown)}, loss {summary['loss']:.4f} on {summary['images']:,} images")
    return "\n\n".join(parts)


def text_of(evaluation: Evaluation, width: int) -> str:
    """What a person reads: per class, confusion, worst errors, accuracy last."""
    if evaluation.many:
        return text_of_many(evaluation)
    from ..train.use.metrics import confusion_text

    seen = [row for row in evaluation.rows if row["images"]]
    figures = ("precision", "recall", "f1")
    parts = [render(_rounded(seen, figures), ["label", "images", "correct", *figures])]
    parts.append(confusion_text(evaluation.confusion, evaluation.labels, width))
    summary = evaluation.summary
    parts += _worst(summary, ["file", "true", "predicted", "probability"])
    tops = "".join(f", {key[:-9].replace('_', '-')} {summary[key]:.1%}" for key in summary if key.startswith("top_"))
    parts.append(
        f"accuracy {summary['accuracy']:.1%}{tops}, macro F1 {summary['macro_f1']:.3f}, "
        f"loss {summary['loss']:.4f} on {summary['images']:,} images"
    )
    return "\n\n".join(parts)


def _worst(summary: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """The most confident errors as a table, where there are any."""
    worst = _rounded(summary["worst"], ["probability"])
    return [f"most confident errors\n{render(worst, columns)}"] if worst else []


def _rounded(rows: Sequence[dict[str, Any]], figures: Sequence[str]) -> list[dict[str, Any]]:
    return [{**row, **{each: None if row[each] is None else round(row[each], 3) for each in figures}} for row in rows]
