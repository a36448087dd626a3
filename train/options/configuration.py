"""Options classes: each field is one option, which defines its flag, its YAML key, its validation and its help.

The command line overrides the YAML file given by --config; an unknown key is an error that names the nearest one.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import RecipeError, nearest
from ...formats.storage import is_remote
from .slim_flags import here

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from .net_options import NetOptions

Made = TypeVar("Made", bound="NetOptions")


def option(
    default: object,
    help: str,
    *,
    group: str,
    metavar: str | None = None,
    choices: Sequence[str] = (),
    least: float | None = None,
    above: float | None = None,
    same_run: bool = False,
    also: str = "",
) -> typing.Any:
    """A field of an options class. With `same_run`, a run may be continued with another value. `also` is another
    spelling that is accepted but not shown."""
    facts = {"help": help, "group": group, "metavar": metavar, "choices": tuple(choices), "same_run": same_run}
    facts["also"] = also
    return field(default=default, metadata={**facts, "least": least, "above": above})


def flag(name: str) -> str:
    """The command-line flag of a field: `--train-dir` for `train_dir`."""
    return "--" + name.replace("_", "-")


def add_arguments(parser: argparse.ArgumentParser, kind: type[NetOptions], only: Collection[str] = ()) -> None:
    """Adds to `parser` a flag for every field of the options class `kind` (or only those in `only`), in groups, and
    --config."""
    parser.add_argument("--config", metavar="FILE.yaml", help="options from a YAML file; the command line overrides it")
    groups: dict[str, argparse._ArgumentGroup] = {}
    hints = typing.get_type_hints(kind)
    for found in dataclasses.fields(kind):
        facts = found.metadata
        if only and found.name not in only:
            continue
        if facts["group"] not in groups:
            groups[facts["group"]] = parser.add_argument_group(facts["group"])
        text = facts["help"].replace("%", "%%")
        if found.default not in (None, (), "", False):
            default = ",".join(found.default) if isinstance(found.default, tuple) else found.default
            text += f" (default: {default})"
        if hints[found.name] is bool:
            how: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        elif hints[found.name] == tuple[str, ...]:
            how = {"action": "append", "metavar": facts["metavar"]}
        else:
            how = {"metavar": facts["metavar"] or ("{" + ",".join(facts["choices"]) + "}" if facts["choices"] else "N")}
        group = groups[facts["group"]]
        made = group.add_argument(flag(found.name), default=argparse.SUPPRESS, help=text, **how)
        if facts["also"]:
            hidden: dict[str, Any] = {"dest": made.dest, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
            group.add_argument(flag(facts["also"]), **hidden, **how)


def other_names(kind: type[NetOptions]) -> dict[str, str]:
    """Other spelling -> the field that it means."""
    return {found.metadata["also"]: found.name for found in dataclasses.fields(kind) if found.metadata["also"]}


def meant(name: str, names: Collection[str]) -> str:
    """The end of a message on a name that is not among the options' `names`: the equivalent of a slim flag, else the
    nearest name."""
    known = here(name, list(map(flag, names)))
    return f"; it is {known[2:].replace('-', '_')} here" if known.startswith("--") else nearest(name, names)


def from_arguments(kind: type[Made], args: argparse.Namespace) -> Made:
    """The options object: defaults, then the file of --config, then the command line.

    Raises RecipeError for an unknown key, a value of the wrong type, or values that cannot be combined.
    """
    fields = {found.name: found for found in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = read_config(args.config, kind) if args.config else {}
    for name, value in vars(args).items():
        if name in fields:
            values[name] = convert(flag(name), value, hints[name])
    return kind(**values)


def read_config(path: str | os.PathLike[str], kind: type[NetOptions]) -> dict[str, Any]:
    """Field name -> value from a YAML file whose keys are the flags without `--`.

    Raises RecipeError with the file and the key.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding="utf-8"))
        root = loader.get_single_node()
        read = loader.construct_document(root) if root else None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise RecipeError(f"not YAML: {line}{error.problem}", path=path) from None
    except (yaml.YAMLError, UnicodeDecodeError):  # of characters that a text file has not
        raise RecipeError("is not a text file in UTF-8", path=path) from None
    if root is None or read is None:
        return {}
    if not isinstance(read, Mapping):
        raise RecipeError("must hold `option: value` lines", path=path)
    keys = [key.value for key, _ in root.value]
    for key in keys:
        if keys.count(key) > 1:  # YAML itself takes the last one
            raise RecipeError(f"{key} is given twice", path=path)
    names = {found.name for found in dataclasses.fields(kind)}
    others = other_names(kind)
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in read.items():
        name = str(key).replace("-", "_")
        name = others.get(name, name)
        if name in values:
            raise RecipeError(f"{name.replace('_', '-')} is given twice, once as {key}", path=path)
        if name not in names:
            raise RecipeError(f"no option {key!r}{meant(name, names)}", path=path)
        try:
            values[name] = convert(repr(key), value, hints[name])
        except RecipeError as error:
            raise error.at(path=path) from None
    return values


def coerce(options: DataclassInstance) -> None:
    """Converts the values of a new options object to the types of its fields: a Path becomes text, a number written as
    text becomes a number, a single pattern becomes a tuple.

    Raises RecipeError that names every option whose value cannot be converted.
    """
    problems, hints = [], typing.get_type_hints(type(options))
    for found in dataclasses.fields(options):
        try:
            value = convert(flag(found.name), getattr(options, found.name), hints[found.name])
            object.__setattr__(options, found.name, value)
        except RecipeError as error:
            problems.append(error.fact)
    if problems:
        raise RecipeError("; ".join(problems))


def given(options: DataclassInstance) -> dict[str, object]:
    """Field name -> value of what was set to something else than its default."""
    values = {found.name: (getattr(options, found.name), found.default) for found in dataclasses.fields(options)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, (value, default) in values.items()
        if value != default
    }


def to_config(options: DataclassInstance) -> str:
    """YAML for `read_config` with all options that differ from their defaults."""
    import yaml

    return yaml.safe_dump(given(options), sort_keys=False, allow_unicode=True, width=120)


def differences(before: Mapping[str, object], now: DataclassInstance) -> list[str]:
    """One sentence for each option that makes `now` another run than the one with the configuration `before`."""
    lines = []
    for found in dataclasses.fields(now):
        old, new = before.get(found.name, found.default), getattr(now, found.name)
        if old != new and not found.metadata["same_run"]:
            lines.append(f"{flag(found.name)} was {_shown(old)}, is {_shown(new)}")
    return lines


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value) or "not given"
    return "not given" if value in (None, "") else str(value)


def convert(shown: str, value: Any, hint: object) -> Any:
    """`value`, from the command line, YAML or Python, converted to the field's type."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] or [hint]
    if hint == tuple[str, ...]:
        listed = value if isinstance(value, list | tuple) else [value]
        if all(isinstance(item, str | os.PathLike | Real) for item in listed):
            return tuple(_text(item) for item in listed)
        raise RecipeError(f"{shown} must be a pattern or a list of them, not {value!r}")
    if value is None and len(kinds) < len(typing.get_args(hint)):
        return None
    kind = kinds[0]
    if kind is bool or isinstance(value, bool):
        if kind is bool and isinstance(value, bool):
            return value
        raise RecipeError(f"{shown} must be {_WORDS[kind]}, not {value!r}")
    if isinstance(value, str | os.PathLike | Real):
        try:
            made = _text(value) if kind is str else kind(value)
        except (ValueError, TypeError, OverflowError):
            made = None
        if made is not None and not (kind is int and isinstance(value, Real) and value != made):
            return made
    raise RecipeError(f"{shown} must be {_WORDS[kind]}, not {value!r}")


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _text(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)


def problem_with(found: dataclasses.Field[Any], value: object) -> str | None:
    """The problem with a field's value, or None."""
    facts, shown = found.metadata, flag(found.name)
    if value is None:
        return None
    if (
        str(facts["metavar"]).startswith(("DIR", "FILE", "PREFIX"))
        and found.name not in ("data", "graph")
        and is_remote(str(value))
    ):
        return f"{shown} {value}: must be a name on this machine, not a URL"
    if facts["choices"] and value not in facts["choices"]:
        return f"{shown} {value}: must be one of {', '.join(facts['choices'])}{nearest(str(value), facts['choices'])}"
    if facts["least"] is not None and not value >= facts["least"]:
        return f"{shown} {value}: must be at least {facts['least']:g}"
    if facts["above"] is not None and not value > facts["above"]:
        return f"{shown} {value}: must be above {facts['above']:g}"
    return None
