"""ckpt-finetune: restore by the plan, train the selected scopes, evaluate, prove what did not change."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..errors import PlanError
from ..events import OnEvent
from ..plan import Plan
from ..report import count
from ..train.graph.quiet import hush_tensorflow
from ..train.options.configuration import add_arguments, from_arguments
from ..train.options.training import Options
from . import DONE, FOUND, parser, print_json, run, say
from .events import Printer, audit_line, fact, figures
from .plan import as_json as plan_as_json

if TYPE_CHECKING:
    from ..train.run.finetune import Result

EXAMPLES = """\
  ckpt-finetune --checkpoint inception_v3.ckpt --data photos --train-dir run --exclude Logits --trainable Logits
  ckpt-finetune --checkpoint inception_v3.ckpt --data photos --train-dir run2 --exclude Logits \\
      --trainable Mixed_7c,Logits --learning-rate 1e-4 --epochs 5
  ckpt-finetune --checkpoint resnet_v1_50.ckpt --data photos --train-dir run3 --head-scope Logits --trainable Logits
  ckpt-finetune --checkpoint model.ckpt --net nets.py:build --image-size 32 --preprocessing unit --data photos \\
      --train-dir run5 --exclude logits --trainable logits
  ckpt-finetune --data features.npz --train-dir run4 --head "dense(1024,relu)" --learning-rate 1e-4 --batch-size 64
                                                     a small net on what ckpt-features wrote
  ckpt-finetune --checkpoint resnet_v1_50.ckpt --data photos --exclude logits --find-learning-rate rates.png
  ckpt-finetune --config run/config.yaml --steps 2000        the same run, continued to step 2,000"""


def make_parser() -> argparse.ArgumentParser:
    """The parser; its options are the fields of `train.options.training.Options`."""
    made = parser("ckpt-finetune", "Restores a checkpoint as planned and trains the selected scopes.", EXAMPLES)
    add_arguments(made, Options)
    return made


def main(argv: Sequence[str] | None = None, *, on_event: OnEvent | None = None) -> int:
    """The command; returns its exit code: 1 for a plan with conflicts, 130 after Ctrl-C or SIGTERM. What happens is
    printed, or told to `on_event`."""
    made = make_parser()
    on_event = on_event or Printer()

    def command(args: argparse.Namespace) -> int:
        try:
            hush_tensorflow()
            options = from_arguments(Options, args)
            if options.find_learning_rate:
                return find_rate(options, args.json, on_event)
            if options.dry_run:
                return estimate(options, args.json, on_event)
            result = train(options, on_event)
        except PlanError as error:
            say(f"{made.prog}: {error}")
            if args.json and isinstance(error.plan, Plan):
                print_json(plan_as_json(error.plan))
            return FOUND
        if result is None:  # this machine served another one
            return DONE
        if args.json:
            audited = result.freeze_audit
            text = audit_line(audited["identical"], len(audited["changed"]))
            print_json({**asdict(result), "freeze_audit": {**audited, "text": text}})
        else:
            print("\n".join(closing_lines(result)))
        return 130 if result.stopped else DONE

    return run(made, command, argv)


def train(options: Options, on_event: OnEvent) -> Result | None:
    """Trains; on a machine of TF_CONFIG that serves another one, serves it and returns None."""
    from ..train.graph.cluster import read_cluster
    from ..train.run.finetune import finetune
    from ..train.run.lead import finetune_as_task

    cluster = read_cluster(os.environ.get("TF_CONFIG"))
    if cluster is None:
        return finetune(options, on_event)
    result = finetune_as_task(cluster, options, on_event)
    if isinstance(result, str):
        say(f"{cluster.job} {cluster.index} ends: {result}")
        return None
    return result


def find_rate(options: Options, as_json: bool, on_event: OnEvent) -> int:
    """--find-learning-rate: no run, a picture."""
    from ..train.run.rate_finder import find_learning_rate

    found = find_learning_rate(options, on_event)
    print_json(found._asdict()) if as_json else print(f"{found.suggestion:.2g}")
    return DONE


def estimate(options: Options, as_json: bool, on_event: OnEvent) -> int:
    """--dry-run: no run, what it would take."""
    from ..train.run.dry_run import dry_run

    found = dry_run(options, on_event)
    print_json(found.as_dict()) if as_json else print("\n".join(found.lines()))
    return DONE


def closing_lines(result: Result) -> list[str]:
    """What a person reads last."""
    if result.stopped:
        text = f"stopped by {result.stopped} after step {result.step:,} of {result.total:,}; everything is saved"
        return [text, "Run the same command again to resume."]
    lines = [fact("done", f"{count(result.step, 'step')}, in {result.train_dir}")]
    if result.validation:
        best = figures(result.best, loss_first=False).rpartition(",")[0]
        lines.append(fact("validation", figures(result.validation, loss_first=False)))
        lines.append(fact("best", f"{best} at step {result.best['step']:,}: best.ckpt"))
    return lines
