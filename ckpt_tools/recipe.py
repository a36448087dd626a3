"""Recipes: checkpoint edits as a YAML list of operations, validated completely before a checkpoint is opened.

    # Only what inference needs, in half precision.
    - strip: [optimizer, ema, step]
    - cast: {dtype: float16, keep_statistics: true}

An operation's settings are the fields of its class in ckpt_tools.surgery; a bare value is its main setting. `${NAME}`
is replaced by the value of `--set NAME=VALUE`, `${NAME:-VALUE}` has a default, `$${` is a literal `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, RecipeError, nearest
from .recipe_settings import WrongSetting, read_setting
from .surgery import OPERATIONS, Operation
from .tensors import Tensors

if TYPE_CHECKING:
    from yaml import SafeLoader

    from .recipe_settings import Node

SHIPPED = Path(__file__).with_name("recipes")
_PARAMETER = re.compile(r"(?P<plain>\$\$\{)|\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


def load_recipe(source: str, parameters: Mapping[str, str] | None = None) -> tuple[Operation, ...]:
    """The operations of a recipe file, or of the shipped recipe of that name.

    Raises RecipeError with file and line of every problem.
    """
    path = Path(source)
    if not path.exists() and source in shipped_recipes():
        path = shipped_recipes()[source]
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = shipped_recipes()
        hint = nearest(source, known) or f"; shipped are {', '.join(known)}"
        raise RecipeError(f"no recipe file {source}, and no shipped recipe of that name{hint}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{source}: is not a text file in UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{source}: {error}") from None
    return parse_recipe(text, path=path.name if path.parent == SHIPPED else source, parameters=parameters)


def parse_recipe(
    text: str, *, path: str = "recipe", parameters: Mapping[str, str] | None = None
) -> tuple[Operation, ...]:
    """The operations that a recipe's text lists. `path` is used in messages of the form FILE:LINE: PROBLEM.

    Raises RecipeError with one line per problem: unknown operations and settings with the nearest known one, values of
    the wrong type, missing or unused parameters.

    >>> parse_recipe("- strip: [ema]\\n- keep: Logits")
    (Strip(what=('ema',)), Keep(select=('Logits',)))
    """
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        root: Any = loader.get_single_node()  # of one of the three kinds of nodes
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(f"{where}: not YAML: {problem}") from None
    return _Reading(loader, path, parameters or {}).operations(root)


def as_data(operations: Sequence[Operation]) -> list[object]:
    """The recipe as lists, dicts and plain values, for JSON. Since JSON is YAML, the result is again a recipe.

    Raises RecipeError for an operation that holds an opened checkpoint, which cannot be written down as a path.

    >>> from ckpt_tools.surgery import Cast, Strip
    >>> as_data([Strip(("ema",)), Cast("float16", keep_statistics=True)])
    [{'strip': ['ema']}, {'cast': {'dtype': 'float16', 'keep_statistics': True}}]
    """
    return [_item(operation) for operation in operations]


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of the recipes that come with the package."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def about(path: Path) -> str:
    """A recipe's description: the comment at its beginning."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = [line[1:].strip() for line in lines[: next((i for i, line in enumerate(lines) if line[:1] != "#"), None)]]
    return " ".join(comment)


class _Reading:
    """Converts a recipe's YAML nodes, which know their lines, to operations."""

    def __init__(self, loader: SafeLoader, path: str, parameters: Mapping[str, str]) -> None:
        self.loader, self.path, self.parameters = loader, path, parameters
        self.known_parameters: set[str] = set()
        self.filled: dict[Node, bool] = {}  # False while its children are being filled in
        self.problems: list[tuple[int, str]] = []

    def operations(self, root: Node | None) -> tuple[Operation, ...]:
        if root is None or root.id != "sequence" or not root.value:
            self._say(root, "a recipe is a list of operations, such as '- strip: [optimizer]'")
            made: list[Operation | None] = []
        else:
            made = [self._operation(node) for node in root.value]
        for name in self.parameters:
            if name not in self.known_parameters:
                self._say(None, f"there is no parameter ${{{name}}}{nearest(name, self.known_parameters)}")
        if self.problems:
            raise RecipeError("\n".join(text for _, text in sorted(self.problems, key=lambda item: item[0])))
        return tuple(operation for operation in made if operation is not None)

    def _say(self, node: Node | None, text: str) -> None:
        line = node.start_mark.line + 1 if node is not None else 0
        self.problems.append((line, f"{self.path}:{line}: {text}" if line else f"{self.path}: {text}"))

    def _fill_in(self, node: Node) -> None:
        """Fills parameters into the scalars below `node`, only once if an alias repeats it."""
        if node in self.filled:
            if not self.filled[node]:
                self._say(node, "this anchor contains an alias of itself")
            return
        self.filled[node] = False
        self._fill_in_scalars(node)
        self.filled[node] = True

    def _fill_in_scalars(self, node: Node) -> None:
        import yaml

        if isinstance(node, yaml.ScalarNode):
            if "${" in node.value:
                # Inside {...} YAML requires quotes around "${classes}", so a lone parameter becomes a number if it can.
                alone = _PARAMETER.fullmatch(node.value) or node.style is None
                node.value = _PARAMETER.sub(lambda match: self._parameter(match, node), node.value)
                if alone:  # the stub of `resolve` has no types
                    node.tag = self.loader.resolve(type(node), node.value, (True, False))  # type: ignore[no-untyped-call]
            return
        for child in node.value:
            for each in child if isinstance(child, tuple) else (child,):
                self._fill_in(each)

    def _parameter(self, match: re.Match[str], node: Node) -> str:
        if match["plain"]:
            return "${"
        self.known_parameters.add(match["name"])
        value = self.parameters.get(match["name"], match["default"])
        if value is None:
            self._say(node, f"{match[0]} has no value; give --set {match['name']}=VALUE")
            return ""
        return value

    def _operation(self, node: Node) -> Operation | None:
        """One operation; None if there are problems, which are recorded."""
        before = len(self.problems)
        self._fill_in(node)
        if len(self.problems) > before:
            return None
        if node.id == "scalar":
            command, settings = node, None
        elif node.id == "mapping" and len(node.value) == 1:
            command, settings = node.value[0]
        else:
            self._say(node, "each item is one operation, such as 'strip: [optimizer]'")
            return None
        if command.value not in OPERATIONS:
            self._say(command, f"unknown operation {command.value!r}{nearest(str(command.value), OPERATIONS)}")
            return None
        made = OPERATIONS[command.value]
        values = self._settings(made, settings)
        needed = [each.name for each in fields(made) if each.default is MISSING and each.name not in values]
        if len(self.problems) > before:
            return None
        try:
            if needed:
                raise RecipeError(f"{made.command} needs {' and '.join(needed)}")
            return made(**values)
        except CheckpointError as error:
            self._say(command, str(error))
            return None

    def _settings(self, made: type[Operation], node: Node | None) -> dict[str, object]:
        if node is None or node.tag.endswith(":null"):
            return {}
        known = {each.name: str(each.type) for each in fields(made)}
        # A rename's bare value is itself a mapping, OLD: NEW.
        if node.id != "mapping" or made.short == "rules":
            if not made.short:
                self._say(node, f"{made.command} takes no value")
                return {}
            pairs: list[tuple[Node, str, Node]] = [(node, made.short, node)]
        else:
            pairs = [(key, str(key.value), value) for key, value in node.value]
        values: dict[str, object] = {}
        for key, name, value in pairs:
            try:
                if name not in known:
                    raise WrongSetting(key, f"{made.command} has no setting {name!r}{nearest(name, known)}")
                if name in values:
                    raise WrongSetting(key, f"{made.command}: {name} is set twice")
                values[name] = read_setting(value, name, known[name])
            except WrongSetting as wrong:
                self._say(wrong.node, str(wrong))
            except CheckpointError as error:
                self._say(value, str(error))
        return values


def _item(operation: Operation) -> object:
    values = {each.name: getattr(operation, each.name) for each in fields(operation)}
    settings = {
        each.name: _plain(each.name, values[each.name])
        for each in fields(operation)
        if values[each.name] != each.default
    }
    if not settings:
        return operation.command
    return {operation.command: settings[operation.short] if [*settings] == [operation.short] else settings}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Tensors):
        raise RecipeError("an operation on an opened checkpoint has no recipe; give the checkpoint's path")
    if name in ("rules", "rename"):
        return {_plain("", old): _plain("", new) for old, new in value}
    if isinstance(value, tuple):
        return [_plain("", each) for each in value]
    return value.replace("${", "$${") if isinstance(value, str) else value
