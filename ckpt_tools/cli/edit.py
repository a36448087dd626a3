"""ckpt-edit: renames, drops, casts, resizes, averages; values that stay are copied as bytes. No TensorFlow."""

from __future__ import annotations

import argparse
import gc
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ..adaptation import CLASS_MAP_HELP, read_class_map
from ..errors import CheckpointError, RecipeError
from ..formats import Checkpoint, open_checkpoint, save_checkpoint
from ..formats.output import WRITERS, check_tensors, format_of
from ..labels import label_list
from ..recipe import as_data, load_recipe, shipped_recipes
from ..renames import rename_rules
from ..report import count, render, size
from ..surgery import OPERATIONS, EditRow, Operation, Surgery, operate, row_sentence
from ..tensors import Spec
from . import DONE, as_typed, check_v2_options, parser, print_json, run, salvaging, say
from .progress import progress_line

EXAMPLES = """\
  ckpt-edit model.ckpt-5000 -o model.ckpt --strip optimizer,ema,step
  ckpt-edit inception_v3.ckpt -o net.ckpt --drop AuxLogits --rename InceptionV3=net/InceptionV3 --dry-run
  ckpt-edit inception_v3.ckpt -o five.ckpt --num-classes 5 --format v2
  ckpt-edit model.ckpt-5000 -o mean.ckpt --average model.ckpt-4000 model.ckpt-3000
  ckpt-edit model.ckpt -o half.ckpt --recipe half-precision"""


_WORST = 10  # tensors that the report of a cast lists


class InOrder(argparse.Action):
    """Keeps operations in the order in which they were typed."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        namespace.steps = [*namespace.steps, (self.dest, values)]


def make_parser() -> argparse.ArgumentParser:
    made = parser("ckpt-edit", "Changes a checkpoint without TensorFlow; operations run in the order given.", EXAMPLES)
    made.set_defaults(steps=[])
    made.add_argument("source", metavar="SRC", help="a checkpoint, any of its files, or SRC:scope")
    made.add_argument("-o", "--output", metavar="DST", help="the checkpoint to write")
    _add_operations(made.add_argument_group("operations, done in the order given"))
    names = "; ".join(shipped_recipes())
    recipes = made.add_argument_group("recipes", f"shipped: {names}")
    recipes.add_argument(
        "--recipe", action=InOrder, metavar="FILE", help="operations in a YAML file, or the name of a built-in recipe"
    )
    recipes.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="value of ${NAME} in the recipe"
    )
    add = made.add_argument_group("output").add_argument
    add("--dry-run", action="store_true", help="show what would be done to each tensor, and write nothing")
    add("--force", action="store_true", help="replace what is at DST")
    add("--format", choices=list(WRITERS), help="by the extension of DST, else as the source")
    add("--to", dest="format", choices=list(WRITERS), help=argparse.SUPPRESS)
    add("--shards", type=int, metavar="N", help="number of data files of a V2 checkpoint")
    add("--link", action="store_true", help="hard-link V2 data files that do not change instead of copying them")
    add("--stored-names", action="store_true", help="use the keys of object-based checkpoints as stored")
    return made


def _add_operations(group: argparse._ArgumentGroup) -> None:
    def add(flag: str, metavar: str | tuple[str, ...] | None, help: str, was: str = "", **more: Any) -> None:
        """`was`: an earlier spelling, which still works and is not shown."""
        made = group.add_argument(flag, action=InOrder, metavar=metavar, help=help, **more)
        if was:
            group.add_argument(was, action=InOrder, dest=made.dest, help=argparse.SUPPRESS, **more)

    add("--rename", "OLD=NEW", "rename a scope, a tensor or re:EXPR with \\1; A=B,B=A swaps", was="--map")
    add("--keep", "PATTERN", "only these tensors")
    add("--drop", "PATTERN", "drop these tensors")
    add("--strip", "WHAT", "drop any of optimizer,ema,step")
    add("--ema-to-weights", None, "replace the weights with their moving averages", nargs=0)
    add("--cast", "TYPE", "cast floating-point tensors to float16, bfloat16, float32, ...")
    add("--keep-statistics", None, "exclude batch-norm statistics from the --cast before it", nargs=0)
    add("--num-classes", "N", "a head for N classes, all of them new unless a map is given", was="--head", type=int)
    add("--class-map", "MAP", f"{CLASS_MAP_HELP}, or a file with such a list")
    add("--labels-of-source", "FILE", "labels of the old classes, one per line", was="--labels-from")
    add("--labels", "FILE", "labels of the new classes, one per line", was="--labels-to")
    add("--head-scope", "PATTERN", "scope of the head, if it is not one of the usual ones", was="--head-in")
    add("--head-init", "KIND", "initialise new classes with zeros or normal", choices=("zeros", "normal"))
    add("--background", "CHANGE", "drop or add class 0 of 1001, the background", choices=("drop", "add"))
    add("--input-channels", "N", "adapt the first convolution to N input channels", type=int)
    add("--fold", "WHAT", "fold gamma, biases or both of batch norms into weights and moving means")
    add("--average", "SRC", "average with these checkpoints", nargs="+")
    add("--graft", ("SRC", "PATTERN"), "take these tensors from another checkpoint", nargs=2)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0."""

    def command(args: argparse.Namespace) -> int:
        if not args.output and not args.dry_run:
            raise RecipeError("no output given", advice="Add -o DST, or --dry-run.")
        operations = operations_of(args.steps, args.set)
        source = open_checkpoint(args.source, names="stored" if args.stored_names else "variable")
        if args.output:
            check_v2_options(args, _format(args, source))
        try:
            surgery = operate(source.tensors, operations)
        except CheckpointError as error:
            raise error.at(path=args.source) from None
        files = () if args.dry_run else _write(args, source, surgery, argv)
        if args.dry_run and args.output:
            check_tensors(surgery.tensors, _format(args, source))
        if args.json:
            print_json(_as_json(source, surgery, files))
        else:
            _show(source, surgery, files, args.dry_run)
        return DONE

    # A large checkpoint is millions of small tuples, among which Python looks for cycles again and again: a quarter
    # of the time, and there are none.
    gc.disable()
    try:
        return run(make_parser(), command, argv)
    finally:
        gc.enable()


def _write(
    args: argparse.Namespace, source: Checkpoint, surgery: Surgery, argv: Sequence[str] | None
) -> tuple[str, ...]:
    """Writes the result with its recipe, what was done to each tensor, and what casts could not keep."""
    others = [open_checkpoint(path) for operation in surgery.operations for path in operation.sources]
    provenance = {
        "source": [source, *others] if others else source,
        "command": as_typed("ckpt-edit", argv),
        "recipe": as_data(surgery.operations),
        "actions": {row.name: row_sentence(row) for row in surgery.rows if row.after is not None},
        "left_out": {row.name: row_sentence(row) for row in surgery.rows if row.after is None},
        # Counted while the values are written, and so before the sidecar is.
        "losses": [edit.losses for edit in surgery.edits if any(row.action == "cast" for row in edit.rows)],
    }
    with salvaging(), progress_line("writing", surgery.summary["after"]["bytes"]) as progress:
        return save_checkpoint(
            source._replace(tensors=surgery.tensors),
            args.output,
            format=_format(args, source),
            shards=args.shards,
            force=args.force,
            link=args.link,
            provenance=provenance,
            progress=progress,
        )


def operations_of(steps: Sequence[tuple[str, Any]], settings: Sequence[str] = ()) -> tuple[Operation, ...]:
    """The operations that the flags mean, in their order.

    Raises RecipeError that says what is wrong with a flag or a recipe.
    """
    parameters = dict(_parameter(text) for text in settings)
    operations: list[Operation] = []
    for command, fields in _merged(steps):
        if command == "recipe":
            operations += load_recipe(fields["path"], parameters)
        else:
            operations.append(OPERATIONS[command](**fields))
    if parameters and not any(flag == "recipe" for flag, _ in steps):
        raise RecipeError("--set fills the parameters of a --recipe, and there is none")
    return tuple(operations)


def _merged(steps: Sequence[tuple[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """(operation, its fields): flags that say more of an operation are joined to it.

    Neighbouring --keep flags are one list of patterns, as every repeated option is; so are neighbouring --drop flags,
    and the --head-scope of one head.
    """
    made: list[tuple[str, dict[str, Any]]] = []
    for flag, value in steps:
        last, fields = made[-1] if made else ("", {})
        if flag in ("keep", "drop") and last == flag:
            fields["select"] += (value,)
        elif flag == "keep_statistics":
            if last != "cast":
                raise RecipeError("--keep-statistics must follow --cast")
            fields["keep_statistics"] = True
        elif flag == "head_scope" and last == "background":
            fields["select"] = (*fields.get("select", ()), value)
        elif flag in (*_HEAD, "head_scope"):
            head = next((found for command, found in made if command == "head"), None)
            if head is None:
                made.append(("head", head := {}))
            head |= {"select": (*head.get("select", ()), value)} if flag == "head_scope" else _HEAD[flag](value)
        else:
            made.append((flag, _FIELDS[flag](value)))
    return made


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"--set {text} is not NAME=VALUE")
    return name, value


# What a flag's value means for the fields of its operation.
_FIELDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "recipe": lambda path: {"path": path},
    "rename": lambda text: {"rules": rename_rules(text)},
    "keep": lambda text: {"select": (text,)},
    "drop": lambda text: {"select": (text,)},
    "strip": lambda text: {"what": tuple(word.strip() for word in text.split(","))},
    "ema_to_weights": lambda _: {},
    "cast": lambda text: {"dtype": text},
    "background": lambda text: {"change": text},
    "input_channels": lambda number: {"channels": number},
    "fold": lambda text: {"what": tuple(word.strip() for word in text.split(","))},
    "average": lambda paths: {"others": tuple(paths)},
    "graft": lambda pair: {"source": pair[0], "select": (pair[1],)},
}
_HEAD: dict[str, Callable[[Any], dict[str, Any]]] = {
    "num_classes": lambda number: {"classes": number},
    "class_map": lambda text: {"class_map": read_class_map(text)},
    "labels_of_source": lambda path: {"labels_from": label_list(path)},
    "labels": lambda path: {"labels_to": label_list(path)},
    "head_init": lambda kind: {"init": kind},
}


def _format(args: argparse.Namespace, source: Checkpoint) -> str:
    """What --format or the ending of DST says, else the format of the source where it can be written."""
    named = args.format or format_of(args.output)
    is_plain = not args.format and not args.output.endswith(".index") and named == "v2"
    return source.format if is_plain and source.format == "v1" else named


def _as_json(source: Checkpoint, surgery: Surgery, files: Sequence[str]) -> dict[str, Any]:
    return {
        "source": source.path,
        "format": source.format,
        "recipe": as_data(surgery.operations),
        "rows": [row._asdict() | {"before": _spec(row.before), "after": _spec(row.after)} for row in surgery.rows],
        "summary": surgery.summary,
        "losses": surgery.losses,
        "files": list(files),
    }


def _spec(spec: Spec | None) -> dict[str, Any] | None:
    return None if spec is None else {"dtype": spec.dtype, "shape": list(spec.shape)}


def _show(source: Checkpoint, surgery: Surgery, files: Sequence[str], dry: bool) -> None:
    if source.note:
        say(source.note)
    if source.tensors.stored_names:
        say("the object graph is left out and variables go by their own names; --stored-names keeps both")
    if dry and surgery.rows:
        rows = [_row(row) for row in surgery.rows]
        print(render(rows, [column for column in rows[0] if any(row[column] for row in rows)]), end="\n\n")
    done = Counter(row.action for row in surgery.rows)
    width = max([14, *map(len, done)]) + 2
    lines = [f"{action:<{width}}{count(number, 'tensor')}" for action, number in done.items()]
    print("\n".join(lines) or "nothing changes")
    print(f"\n{render(summary_rows(surgery), ['', 'before', 'after'])}")
    _show_losses(surgery)
    if files:
        say(f"wrote {', '.join(files)}")


def _show_losses(surgery: Surgery) -> None:
    """The tensors that a cast hurt most, and how many others."""
    rows: list[dict[str, Any]] = [
        {"name": name, "values": surgery.tensors[name].spec.parameters, **loss} for name, loss in surgery.losses.items()
    ]
    if not rows:
        return
    worst = sorted(rows, key=lambda row: (-row["overflow"], -row["underflow"]))[:_WORST]
    print(f"\n{render(worst, ['name', 'values', 'overflow', 'underflow'])}")
    if len(rows) > len(worst):
        print(f"... and {count(len(rows) - len(worst), 'tensor')} with fewer")
    say(f"{count(len(rows), 'tensor')} not cast whole: values became infinite (overflow) or 0 (underflow)")


def _row(row: EditRow) -> dict[str, Any]:
    """A row for people: the old name and the new spec, where they differ."""
    return {
        "name": row.name,
        "action": row.action,
        "from": row.source if row.source != row.name else None,
        "before": str(row.before) if row.before else None,
        "after": str(row.after) if row.after and row.after != row.before else None,
        "detail": row.detail or None,
    }


def summary_rows(surgery: Surgery) -> list[dict[str, Any]]:
    """Tensors, parameters and bytes before and after."""
    before, after = surgery.summary["before"], surgery.summary["after"]
    show: dict[str, Callable[[int], str]] = {"tensors": count, "parameters": count, "bytes": size}
    return [{"": name, "before": text(before[name]), "after": text(after[name])} for name, text in show.items()]
