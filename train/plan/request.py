"""The plan that a command's options ask for: one way for every command. Neither TensorFlow nor numpy is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...adaptation import class_map_of_labels, class_map_text, read_class_map
from ...errors import RecipeError
from ...labels import label_list, plain
from ...nets.from_graph import RAW, has_head, takes_whole_numbers
from ...nets.head import Dropout, Head, check_auxiliary, new_variables, parse_layers, variables_with_head
from ...nets.net import Net
from ...nets.registry import names_by_scope
from ...plan import Origin, Plan, PlanRules, Variable, make_plan
from ...plan.batch_norm import parse_policies
from ...tensors import Spec
from ..data.preprocess import Preprocessing
from ..options.styles import STYLES, style_problem
from ..options.training import AUTO, FLOAT32, Options
from .phases import Phase, parse_phases, scopes_after

if TYPE_CHECKING:
    from ..data.examples import DataSet

NEW_HEAD = "Logits"  # scope of the head on features that have no last layer of their own
# The options that decide a plan. `data`, and how its labels are read, says what the classes are.
DECIDING = (
    "net", "graph", "input", "features", "logits", "feed", "image_size", "exclude", "rename", "cast", "class_map",
    "labels_of_source", "adapt_input", "fold", "data", "labels", "labels_csv", "label_column", "labels_per_image",
    "trainable", "freeze_until", "unfreeze", "aux", "bn", "head_scope", "head", "optimizer",
)  # fmt: skip


def make_head(options: Options) -> Head:
    """The head that --head, --head-scope and --dropout describe; dropout stands right before the last layer."""
    layers = parse_layers(options.head) if options.head else ()
    last = (Dropout(options.dropout),) if options.dropout else ()
    return Head((*layers, *last), options.head_scope)


def pixels_of(net: Net, style: str | None, image_size: int | None, **others: Any) -> Preprocessing:
    """How images become what a net takes; `style` and `image_size` are what the user says, over what the net does.

    Raises RecipeError where neither says it: a graph rarely tells how its images are scaled, and how large they are.
    """
    style, image_size = style or net.preprocessing, image_size or net.image_size
    if style and (problem := style_problem(style)):  # a function's file says its own
        raise RecipeError(f"{net.title}: {problem}")
    check_style(net, style)
    missing = []
    if not style:
        missing.append(f"--preprocessing ({', '.join(STYLES)}, or MEAN,DIVISOR)")
    if not image_size:
        missing.append("--image-size")
    if missing:
        raise RecipeError(f"{net.title} does not say how images are preprocessed: give {' and '.join(missing)}")
    return Preprocessing(style, image_size, channels="grey" if net.input_channels == 1 else "rgb", **others)


def check_style(net: Net, style: str | None) -> None:
    """Raises RecipeError for scaled pixels where a net takes whole numbers: cast to them, all images would be alike."""
    if style and style != RAW and net.graph is not None and takes_whole_numbers(net.graph):
        fact = f"{net.title} takes whole numbers from 0 to 255, which --preprocessing {style} does not give"
        raise RecipeError(fact, advice="Leave it out.")


def for_net(options: Options, net: Net) -> Options:
    """The options for this net: without a last layer of its own, the new one has a scope of its own.

    Raises RecipeError for what cannot be done with a net of a graph.
    """
    if net.graph is None:
        return options
    if options.precision not in (AUTO, FLOAT32):
        raise RecipeError(f"--precision {options.precision}: a net from a graph keeps the graph's own types")
    if options.bn:
        raise RecipeError("--bn: the batch norms of a net of a graph stay as they are; they cannot be trained")
    if has_head(net) or options.head_scope:
        return options
    if net.graph.found.logits:
        fact = f"the last layer of {net.title} has no variables of its own"
        raise RecipeError(fact, advice=f"--head-scope {NEW_HEAD} puts a new one on the features.")
    return replace(options, head_scope=NEW_HEAD)


def for_grey_images(net: Net, data: DataSet) -> tuple[Net, DataSet]:
    """What --adapt-input makes of grey images: the net with one input channel, and the data set with a note of it."""
    from ..data.pipeline import are_grey

    if not are_grey(data.split("all")):
        return net, data
    adapted = net.for_grey_images()
    if adapted is None:
        note = f"the images are grey and become three channels: the first layer of {net.name} cannot take one"
        return net, replace(data, notes=(*data.notes, note))
    return adapted, replace(data, notes=(*data.notes, "the images are grey, and so is what the net sees: one channel"))


def make_phases(options: Options, net: Net, variables: Sequence[Variable]) -> tuple[Phase, ...]:
    """The phases of the run: those of --unfreeze, else one that trains what is asked for."""
    if options.freeze_until:
        return (Phase(0.0, tuple(scopes_after(net, variables, options.freeze_until, aux=options.aux))),)
    return parse_phases(options.unfreeze) or (Phase(0.0, options.trainable),)


def class_map_of(options: Options, labels: Sequence[str]) -> str | None:
    """The class map that --class-map or --labels-of-source asks for, written out: no file is needed to continue."""
    text = options.class_map
    if options.labels_of_source:
        made = class_map_of_labels([each.name for each in plain(labels)], label_list(options.labels_of_source))
    elif text and "=" in text and not Path(text).exists():  # two files of labels: NEW.txt=OLD.txt
        new, _, old = text.partition("=")
        made = class_map_of_labels(label_list(new), label_list(old))
    elif text:
        made = read_class_map(text)
    else:
        return None
    return class_map_text(made)


def plans_of(
    options: Options, specs: Mapping[str, Spec], net: Net, classes: int, origin: Origin | None = None
) -> tuple[Plan, ...]:
    """What the source gives to the net, and what trains: a plan for each phase of the run."""
    variables = variables_with_head(net, classes, make_head(options))
    rules = rules_of(options, net, classes, origin)
    phases = make_phases(options, net, variables)
    rules = replace(rules, exclude=options.exclude, renames=options.rename)
    if net.graph is None:
        return tuple(make_plan(specs, variables, replace(rules, trainable=phase.trainable)) for phase in phases)
    stays = ("beta1_power", "beta2_power") if options.optimizer == "adam" else ()
    last = make_plan(specs, variables, replace(rules, trainable=phases[-1].trainable, carry=stays))
    # What the last phase leaves behind, such as slots of what it trains, no phase before it carries to it.
    rules = replace(rules, carry=(*stays, *(row.name for row in last.rows if row.action == "unused")))
    plans = [make_plan(specs, variables, replace(rules, trainable=phase.trainable)) for phase in phases[:-1]]
    plans.append(last)
    return tuple(replace(plan, batch_norm=dict.fromkeys(plan.batch_norm, "frozen")) for plan in plans)


def rules_of(options: Options, net: Net, classes: int, origin: Origin | None = None) -> PlanRules:
    """The rules of a plan besides those that `ckpt-plan --suggest` proposes."""
    head = make_head(options)
    if options.aux:
        check_auxiliary(net, head)
    if options.checkpoint:
        new = new_variables(net, classes, head)
    else:
        new = {variable.name: "no checkpoint" for variable in variables_with_head(net, classes, head)}
    return PlanRules(
        class_map=read_class_map(options.class_map) if options.class_map else None,
        cast=options.cast,
        aux=options.aux,
        adapt_input=options.adapt_input,
        fold=options.fold,
        batch_norm=parse_policies(options.bn),
        new=new,
        origin=origin,
        nets=names_by_scope(),
    )
