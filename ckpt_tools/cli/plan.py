"""ckpt-plan: what each variable of a net will get from a checkpoint, and why. No TensorFlow."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..adaptation import CLASS_MAP_HELP, class_map_of_labels, read_class_map
from ..errors import OutputError, RecipeError, SelectionError
from ..formats import open_checkpoint
from ..labels import label_list
from ..nets.head import Head, check_auxiliary, new_variables, parse_layers, variables_with_head
from ..nets.net import Net
from ..nets.registry import NETS, get_net, recognise
from ..plan import Plan, Variable, make_plan
from ..plan.batch_norm import parse_policies
from ..plan.suggest import Suggestion, suggest
from ..plan.text import overview, scope_rows, variable_rows
from ..report import render
from ..tensors import Spec
from ..train.configuration import read_config
from ..train.options import Options
from . import DONE, FOUND, parser, print_json, run, say

EXAMPLES = """\
  ckpt-plan inception_v3.ckpt --num-classes 5 --exclude Logits --trainable Logits
  ckpt-plan inception_v3.ckpt --num-classes 5 --exclude Logits --all --json
  ckpt-plan model.ckpt-5000 --net inception_v3 --num-classes 5 --map model/InceptionV3=InceptionV3 --exclude Logits
  ckpt-plan model.ckpt-5000 --net inception_v3 --num-classes 5 --suggest --output plan.yaml"""


# How what --output writes begins.
WRITTEN = (b'{\n "rows": [', b"exclude:\n", b"trainable:\n", b"map:\n", b"fold:", b"{}\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of ckpt-plan."""
    made = parser("ckpt-plan", "Says what a net takes from a checkpoint, before anything is run.", EXAMPLES)
    add = made.add_argument
    add("source", metavar="SRC", help="a checkpoint, any of its files, or SRC:scope")
    add("--net", help="name of the net; left out, it is read off the checkpoint")
    add("--num-classes", type=int, metavar="N", help="classes of the net; those of the checkpoint by default")
    add("--exclude", action="append", default=[], metavar="PATTERN", help="scopes to initialise afresh")
    add("--trainable", action="append", default=[], metavar="PATTERN", help="the only scopes to train")
    add("--map", action="append", default=[], metavar="OLD=NEW", help="a scope of SRC and what the net calls it")
    add("--head-scope", metavar="SCOPE", help="put the new last layer in a scope of its own")
    add("--head", default="", metavar="LAYERS", help='layers before the last one: "dense(64,relu)|dropout(0.5)"')
    add(
        "--class-map",
        metavar="MAP",
        help=f"keep classes: {CLASS_MAP_HELP}, a file of it, or NEW.txt=OLD.txt, files of labels",
    )
    add("--bn", action="append", default=[], metavar="SCOPE=MODE", help="batch norm: frozen, stats or train")
    add("--cast", action="store_true", help="convert other element types")
    add("--aux", action="store_true", help="train the auxiliary head as well")
    add("--adapt-input", action="store_true", help="adapt a first layer that has other input channels")
    add("--fold", action="store_true", help="fold scales and biases that the net lacks into weights and moving means")
    add("--config", metavar="FILE.yaml", help="options from a file of the training commands; the command line wins")
    add("--suggest", action="store_true", help="propose --exclude, --trainable, --map and --fold")
    add("--output", metavar="FILE", help="write the plan as JSON, or with --suggest the proposal as YAML")
    add("--all", action="store_true", help="one line for each variable")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 1 for a plan with conflicts."""

    def command(args: argparse.Namespace) -> int:
        read_config_file(args)
        source = open_checkpoint(args.source).tensors.specs()
        net, classes = find_net(args.net, args.num_classes, source)
        head = Head(parse_layers(args.head), args.head_scope)
        variables = variables_with_head(net, classes, head)
        if args.aux:
            check_auxiliary(net, head)
        new = new_variables(net, classes, head)
        proposal = proposal_of(args, source, variables, new) if args.suggest else None
        plan = proposal.plan if proposal else plan_of(args, source, variables, new)
        if args.output:  # before anything is printed: whoever reads the table may stop reading it
            write(args.output, proposal, plan)
        if args.json:
            value = plan.to_json()
            print_json({key: value[key] for key in ("rows", "conflicts", "summary")})
        else:
            print(
                "\n\n".join(
                    [
                        *([proposal_text(proposal)] if proposal else []),
                        plan_text(f"{net.title}, {classes} classes", plan, args.all),
                    ]
                )
            )
        return FOUND if plan.conflicts else DONE

    return run(make_parser(), command, argv)


def read_config_file(args: argparse.Namespace) -> None:
    """Fills in what the command line leaves open with what --config says; training options are passed over."""
    values = read_config(args.config, Options) if args.config else {}
    keys = ("net", "exclude", "trainable", "map", "head_scope", "head", "bn", "cast", "class_map", "aux")
    for key in (*keys, "adapt_input", "fold"):
        if not getattr(args, key) and values.get(key):
            setattr(args, key, values[key])


def find_net(name: str | None, classes: int | None, source: Mapping[str, Spec]) -> tuple[Net, int]:
    """The net that is named, or that the source is recognised as, and its number of classes."""
    found = recognise(source)
    if name is None and (found is None or found.net is None):
        looks = f": it looks like {found}" if found else ""
        raise SelectionError(f"cannot tell which net this is{looks}", advice=f"Give --net: {', '.join(NETS)}.")
    net = get_net(name) if name else found.net
    known = found.classes if found and found.net == net else None
    number = classes if classes is not None else known or net.classes
    if number < 1:
        raise RecipeError(f"--num-classes {number}: a net has at least one class")
    return net, number


def plan_of(
    args: argparse.Namespace, source: Mapping[str, Spec], variables: Sequence[Variable], new: Mapping[str, str]
) -> Plan:
    """The plan that the options ask for."""
    lists = {"exclude": args.exclude, "trainable": args.trainable, "renames": args.map}
    return make_plan(source, variables, **lists, **other_options(args, new))


def proposal_of(
    args: argparse.Namespace, source: Mapping[str, Spec], variables: Sequence[Variable], new: Mapping[str, str]
) -> Suggestion:
    """What --suggest proposes beside the options that it does not propose."""
    given = [f"--{key}" for key in ("exclude", "trainable", "map") if getattr(args, key)]
    if given:
        raise RecipeError(f"--suggest proposes {' and '.join(given)} itself", advice="Leave out one or the other.")
    return suggest(source, variables, **other_options(args, new))


def other_options(args: argparse.Namespace, new: Mapping[str, str]) -> dict[str, object]:
    """Arguments of make_plan that --suggest does not propose."""
    return {
        "class_map": class_map_of(args.class_map),
        "cast": args.cast,
        "aux": args.aux,
        "adapt_input": args.adapt_input,
        "fold": args.fold,
        "batch_norm": parse_policies(args.bn),
        "new": new,
    }


def class_map_of(text: str | None) -> tuple[int | None, ...] | None:
    """A list of indices, a file of it, or two files with labels: NEW.txt=OLD.txt."""
    if text is None:
        return None
    new, equals, old = text.partition("=")
    if not equals:
        return read_class_map(text)
    return class_map_of_labels(label_list(new), label_list(old))


def plan_text(title: str, plan: Plan, every: bool) -> str:
    """The plan for people: counts, then what happens to each scope or variable, then the conflicts."""
    parts = [f"{'net':<13}{title}\n{overview(plan)}\n{'plan':<13}{plan.digest}"]
    rows = variable_rows(plan) if every else scope_rows(plan)
    if rows:
        parts.append(render(rows, list(rows[0])))
    if plan.conflicts:
        parts.append(plan.conflict_text(None if every else 5))
    return "\n\n".join(parts)


def proposal_text(proposal: Suggestion) -> str:
    """What to type, as an option a line."""
    lists = {key: [""] if values is True else values for key, values in proposal.to_config().items()}
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
                    raise OutputError("exists and is no plan", path=path, advice="Choose another name for --output.")
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=path) from None
    say(f"wrote {path}")
