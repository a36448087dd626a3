"""Keyword arguments as options: the names, types, checks and help texts are those of the commands."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..train.options.configuration import meant, other_names

if TYPE_CHECKING:
    from ..train.options.net_options import NetOptions

Function = TypeVar("Function", bound=Callable[..., Any])
Made = TypeVar("Made", bound="NetOptions")


def options_from(kind: type[Made], given: Mapping[str, Any], function: str) -> Made:
    """The options object of a call. Raises TypeError for a name that is no option, saying which one is meant, and
    RecipeError for values, as the command does."""
    names = [found.name for found in dataclasses.fields(kind)]
    others = other_names(kind)
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = others.get(key, key)
        if name not in names:
            raise TypeError(f"{function}() has no option {name!r}{meant(name, names)}")
        if name in values:
            raise TypeError(f"{function}() is given {name} twice, once as {key}")
        values[name] = value
    return kind(**values)


def takes(kind: type[NetOptions], leave_out: typing.Collection[str] = ()) -> Callable[[Function], Function]:
    """Shows the options of a class as keyword arguments of a function that takes `**options`: to help(), to editors and
    in the reference. `leave_out` are options that the function does not take, or takes in its own way. Given one that
    it has no parameter for, it raises TypeError, with what `leave_out` says to do instead, if it is a mapping."""
    others, instead = other_names(kind), leave_out if isinstance(leave_out, Mapping) else {}

    def shown(function: Function) -> Function:
        own = inspect.signature(function)
        hints = typing.get_type_hints(kind)
        fixed = [each for each in own.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        taken = {each.name for each in fixed} | set(leave_out)
        refused = set(leave_out) - {each.name for each in fixed}

        @functools.wraps(function)
        def checked(*given: Any, **options: Any) -> Any:
            named = {others.get(key, key): value for key, value in options.items()}
            for name in sorted(name for name in refused & named.keys() if named[name]):
                raise TypeError(f"{function.__name__}() does not take {name}{instead.get(name, '')}")
            return function(*given, **options)

        fields = [found for found in dataclasses.fields(kind) if found.name not in taken]
        options = [
            inspect.Parameter(found.name, inspect.Parameter.KEYWORD_ONLY, default=found.default,
                              annotation=_loosely(hints[found.name]))
            for found in fields
        ]  # fmt: skip
        lines = [f"- `{found.name}`: {found.metadata['help']}" for found in fields]
        # What inspect.signature looks for first; typeshed gives functions none.
        checked.__signature__ = own.replace(parameters=[*fixed, *options])  # type: ignore[attr-defined]
        checked.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nOptions:\n\n" + "\n".join(lines)
        return typing.cast(Function, checked)

    return shown


def _loosely(hint: Any) -> Any:
    """The type that a caller may give: one pattern for a tuple of them."""
    return str | tuple[str, ...] if hint == tuple[str, ...] else hint
