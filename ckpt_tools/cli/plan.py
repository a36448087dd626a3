"""ckpt-plan: what each variable of a net will get from a checkpoint, and why."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DataError, OutputError, RecipeError, needs
from ..formats import Checkpoint, open_checkpoint
from ..formats.placing import write_text
from ..graphs.files import checkpoint_of, is_text
from ..labels import label_list
from ..nets.from_graph import classes_in
from ..nets.head import variables_with_head
from ..nets.net import Net
from ..nets.opening import as_known
from ..nets.registry import recognise
from ..nets.resolving import resolve
from ..plan import Origin, Plan, PlanRules, Variable
from ..plan.suggest import Suggestion, suggest
from ..plan.text import count_lines, scope_rows, variable_rows
from ..report import render
from ..tensors import Spec
from ..train.options.configuration import add_arguments, flag, from_arguments
from ..train.options.training import Options
from ..train.plan.phases import Phase
from ..train.plan.request import (
    DECIDING,
    class_map_of,
    for_grey_images,
    for_net,
    make_head,
    make_phases,
    plans_of,
    rules_of,
)
from . import DONE, FOUND, parser, print_json, run, say

if TYPE_CHECKING:
    from ..train.data.examples import DataSet

EXAMPLES = """\
  ckpt-plan inception_v3.ckpt --num-classes 5 --exclude Logits --trainable Logits
  ckpt-plan inception_v3.ckpt --num-classes 5 --exclude Logits --all --json
  ckpt-plan model.ckpt-5000 --net inception_v3 --num-classes 5 --rename model/InceptionV3=InceptionV3 --exclude Logits
  ckpt-plan model.ckpt-5000 --net inception_v3 --num-classes 5 --suggest --output plan.yaml
  ckpt-plan model.ckpt --net nets.py:build --image-size 32 --num-classes 5 --exclude logits --trainable logits"""


# How what --output writes begins.
WRITTEN = (b'{\n "rows": [', b"exclude:\n", b"trainable:\n", b"rename:\n", b"map:\n", b"fold:", b"{}\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of ckpt-plan."""
    made = parser("ckpt-plan", "Shows what a net would restore from a checkpoint, before anything is run.", EXAMPLES)
    add = made.add_argument
    add(
        "source",
        metavar="SRC",
        nargs="?",
        help="a checkpoint, any of its files, or SRC:scope; that of --graph by default",
    )
    add(
        "--num-classes",
        type=int,
        metavar="N",
        help="number of classes; that of the data or the checkpoint by default",
    )
    add("--suggest", action="store_true", help="propose --exclude, --trainable, --rename and --fold")
    add("--output", metavar="FILE", help="write the plan as JSON, or with --suggest the proposal as YAML")
    add("--all", action="store_true", help="one line per variable")
    add_arguments(made, Options, DECIDING)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 1 for a plan with conflicts."""

    def command(args: argparse.Namespace) -> int:
        options = from_arguments(Options, args)
        named = args.source or (checkpoint_of(options.graph) if options.graph else "")
        if not named:
            raise RecipeError("SRC must be given, or a --graph with its checkpoint")
        options, source, origin, net, classes = requested(
            replace(options, checkpoint=named), open_checkpoint(named), args.num_classes
        )
        specs = source.tensors.specs()
        variables = variables_with_head(net, classes, make_head(options))
        proposal = None
        if args.suggest:
            proposal = proposal_of(options, specs, variables, rules_of(options, net, classes, origin))
            exclude, trainable, renames, fold, _ = proposal
            options = replace(options, exclude=exclude, trainable=trainable, rename=renames, fold=fold)
        phases = make_phases(options, net, variables)
        # What is proposed has its plan already; that of a graph carries along what no variable takes, too.
        plans = (proposal.plan,) if proposal and net.graph is None else plans_of(options, specs, net, classes, origin)
        plan = next((plan for plan in plans if plan.conflicts), plans[0])
        if args.output:  # before anything is printed: whoever reads the table may stop reading it
            write(args.output, proposal, plan)
        if args.json:
            print_json(as_json(plan))
        else:
            parts = [proposal_text(proposal)] if proposal else []
            later = phases_text(options, phases, plans)
            print("\n\n".join([*parts, plan_text(f"{net.title}, {classes} classes", plan, later, args.all)]))
        return FOUND if plan.conflicts else DONE

    return run(make_parser(), command, argv)


def as_json(plan: Plan) -> dict[str, Any]:
    """What --json prints of a plan."""
    value = plan.to_json()
    return {key: value[key] for key in ("rows", "conflicts", "summary")}


def load_tensorflow(option: str, why: str) -> None:
    """Imports TensorFlow, which this command needs only for functions and graphs in text form. Raises UnsupportedError
    where it is not installed."""
    from ..train.graph.quiet import hush_tensorflow

    say(f"{why}, which takes TensorFlow")
    with needs(option):
        hush_tensorflow()


class Requested(NamedTuple):
    """What a plan is made of: the options with their class map written out; the source, under slim's names if it is
    another library's, and where it is from; the net, and its number of classes."""

    options: Options
    source: Checkpoint
    origin: Origin | None
    net: Net
    classes: int


def requested(options: Options, source: Checkpoint, num_classes: int | None) -> Requested:
    """Which net the options mean, for how many classes. Raises what is wrong with either."""
    source, origin = as_known(source, options.reference, renamed=bool(options.rename))
    specs = source.tensors.specs()
    if options.net and options.reference.is_function:
        load_tensorflow(f"--net {options.net}", f"{options.net} is run to see what it builds")
    elif options.graph and is_text(options.graph):
        load_tensorflow(f"--graph {options.graph}", f"{options.graph} is a graph in text form")
    net = resolve(options.reference, specs, source.known_as, origin)
    options = for_net(options, net)
    labels, net = labels_of(options, num_classes, net)
    classes = num_classes or len(labels) or classes_of(net, specs)
    options = replace(options, class_map=class_map_of(options, labels), labels_of_source=None)
    return Requested(options, source, origin, net, classes)


def labels_of(options: Options, classes: int | None, net: Net) -> tuple[tuple[str, ...], Net]:
    """The names of the new classes where they are needed: those of --labels or of --data; none where --num-classes is
    enough. And the net, which --adapt-input makes another one where the images of --data are grey.

    Raises RecipeError for --labels-of-source without names, and for a number of classes that is not theirs.
    """
    if classes is not None and classes < 1:
        raise RecipeError(f"--num-classes {classes}: a net has at least one class")
    if classes is not None and not options.labels_of_source:
        return (), net
    labels = label_list(options.labels) if options.labels else ()
    if options.data:
        data = read_data(options)
        labels, net = data.labels, for_grey_images(net, data)[0] if options.adapt_input else net
    if options.labels_of_source and not labels:
        advice = "Give --labels, a file with the names of the new ones, or --data."
        raise RecipeError("--labels-of-source keeps classes of the same name", advice=advice)
    if classes is not None and classes != len(labels):
        raise RecipeError(f"--num-classes {classes}: {options.data or options.labels} has {len(labels)} classes")
    return labels, net


def read_data(options: Options) -> DataSet:
    """The data set. Raises RecipeError for vectors, which have no net in front of the head."""
    from ..train.data.arrays import holds_vectors
    from ..train.data.loading import data_set_of

    if holds_vectors(options.data):
        advice = "Leave --data out and give --num-classes."
        raise RecipeError("holds vectors, on which no net is trained but a head", path=options.data, advice=advice)
    try:
        return data_set_of(options, training=False)
    except DataError as error:
        error.advice = f"{error.advice or ''} --num-classes plans without the data.".lstrip()
        raise


def classes_of(net: Net, specs: Mapping[str, Spec]) -> int:
    """The classes of the checkpoint, else those of the published one."""
    found = recognise(specs)
    if found and found.net and found.net.family == net.family and found.classes:
        return found.classes
    return (classes_in(net, specs) if net.graph else None) or net.classes


def proposal_of(
    options: Options, specs: Mapping[str, Spec], variables: Sequence[Variable], rules: PlanRules
) -> Suggestion:
    """What --suggest proposes, given the options that it does not propose."""
    given = [
        flag(key) for key in ("exclude", "trainable", "rename", "freeze_until", "unfreeze") if getattr(options, key)
    ]
    if given:
        raise RecipeError(f"--suggest proposes {' and '.join(given)} itself", advice="Leave out one or the other.")
    return suggest(specs, variables, rules)


def phases_text(options: Options, phases: Sequence[Phase], plans: Sequence[Plan]) -> list[str]:
    """What --freeze-until means, and the plans of the phases of --unfreeze: a line each."""
    if options.freeze_until:
        return [f"{'trains':<13}{', '.join(phases[0].trainable)}: everything after {options.freeze_until}"]
    lines: list[str] = []
    before: tuple[str, ...] = ()
    for phase, plan in zip(phases, plans, strict=True) if options.unfreeze else ():
        added = ", ".join(pattern for pattern in phase.trainable if pattern not in before)
        counted = f"{plan.summary['trainable_variables']:,} variables"
        lines.append(f"{'unfreezing':<13}from epoch {phase.epoch:g}: {added}, {counted}, plan {plan.digest}")
        before = phase.trainable
    return lines


def plan_text(title: str, plan: Plan, later: Sequence[str], every: bool) -> str:
    """The plan for people: counts, the phases, then what happens to each scope or variable, then the conflicts."""
    parts = ["\n".join([f"{'net':<13}{title}", count_lines(plan), *later, f"{'plan':<13}{plan.digest}"])]
    rows = variable_rows(plan) if every else scope_rows(plan)
    if rows:
        parts.append(render(rows, list(rows[0])))
    if plan.conflicts:
        parts.append(plan.conflict_text(None if every else 5))
    return "\n\n".join(parts)


def proposal_text(proposal: Suggestion) -> str:
    """What to type, as an option a line."""
    lists = {key: values if isinstance(values, list) else [""] for key, values in proposal.to_config().items()}
    options = [f"--{key} {value}".rstrip() for key, values in lists.items() for value in values]
    return "\n".join(["suggested", *(f"  {option}" for option in options or ["nothing: the checkpoint fits as it is"])])


def write(path: str, proposal: Suggestion | None, plan: Plan) -> None:
    """The proposal as YAML for --config, or the plan as JSON; never over a file that is neither."""
    if proposal:
        import yaml

        text = yaml.safe_dump(proposal.to_config(), sort_keys=False)
    else:
        text = json.dumps(plan.to_json(), indent=1) + "\n"
    try:
        target = Path(path)
        if target.is_file() and target.stat().st_size:
            with target.open("rb") as file:
                if not file.read(16).startswith(WRITTEN):
                    raise OutputError("exists and is not a plan", path=path, advice="Choose another name for --output.")
        write_text(target, text)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=path) from None
    say(f"wrote {path}")
