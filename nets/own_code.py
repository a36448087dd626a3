"""Imports a file of a user's own in which `tensorflow` is TensorFlow 1, and says in one sentence what goes wrong in it.

    with imported("nets.py:build", names) as code:
        code.find("build")(images)

Only that file, what lies beside it, and what is in its package see the names of TensorFlow 1; the rest of the process
does not. Afterwards nothing of it is left among the loaded modules, so that an edited file is read again.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from ckpt_tools.errors import RecipeError, UnsupportedError, nearest

from .legacy_names import BUILTINS, TensorFlow1
from .resolving import is_file

_OURS = ("ckpt_tools", "keras", "numpy", "tensorflow", "tf_slim")  # packages whose code knows this TensorFlow


class FunctionLocation(NamedTuple):
    """Where a user's function is: `path` is that of its file, "" for a `module` that is imported by its name from
    wherever Python finds it, `folders` are looked through for what it imports."""

    path: str
    module: str
    function: str
    folders: tuple[str, ...]

    @property
    def shown(self) -> str:
        """What errors call it."""
        return _short(self.path) if self.path else self.module


def place_of(reference: str) -> FunctionLocation:
    """
    >>> place_of("models.cnn:build")[:3]
    ('', 'models.cnn', 'build')

    Raises RecipeError for what is no FILE.py:FUNCTION or MODULE:FUNCTION, and for a file that is not there.
    """
    where, _, function = reference.rpartition(":")
    if not where or not function.isidentifier():
        raise RecipeError(f"--net {reference}: write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION")
    here = str(Path.cwd())
    if not is_file(where):
        return FunctionLocation("", where, function, (here,))
    path = Path(where)
    if not path.is_file():
        raise RecipeError("there is no such file", path=where)
    folder, parts = path.absolute().parent, [path.stem]
    beside = str(folder)
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    folders = dict.fromkeys((str(folder), beside, here))
    return FunctionLocation(str(path.absolute()), ".".join(parts), function, tuple(folders))


def _short(path: str) -> str:
    """A path as people write it: relative where it lies in the current folder."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


class Code:
    """A user's module, imported. `files` are those that were run for it."""

    def __init__(self, place: FunctionLocation, module: ModuleType, files: set[str]) -> None:
        self.place, self.module, self.files = place, module, files

    def find(self) -> Callable[..., Any]:
        """The function that is meant. Raises RecipeError, with the nearest names, where there is none."""
        found = getattr(self.module, self.place.function, None)
        if callable(found):
            return found
        known = [name for name, value in vars(self.module).items() if callable(value)]
        what = "is not a function" if hasattr(self.module, self.place.function) else "is not in it"
        raise RecipeError(f"{self.place.function} {what}{nearest(self.place.function, known)}", path=self.place.shown)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Turns what the user's code raises into one sentence with its file and line."""
        try:
            yield
        except (Exception, SystemExit) as error:
            raise told_of(error, self.files, self.place.shown) from error


@contextlib.contextmanager
def imported(place: FunctionLocation, names: TensorFlow1, note: Callable[[str], None]) -> Iterator[Code]:
    """The module of a function, while the names of TensorFlow 1 are there for it. A file that cannot be imported since
    it is a script gives its definitions alone, of which a `note` is made.

    What it prints goes to stderr, and it has no command line. Raises RecipeError.
    """
    finder = _Finder(place, names)
    before, arguments, folders = dict(sys.modules), sys.argv, list(sys.path)
    sys.meta_path.insert(0, finder)
    sys.argv, sys.path[:] = [place.shown], [*folders, *(each for each in place.folders if each not in folders)]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield _module(place, finder, note)
    finally:
        sys.meta_path.remove(finder)
        sys.argv, sys.path[:] = arguments, folders
        for name, module in list(sys.modules.items()):
            if finder.has_loaded(module) or (name not in before and name.split(".")[0] in finder.packages):
                del sys.modules[name]
                if name in before:
                    sys.modules[name] = before[name]


def _module(place: FunctionLocation, finder: _Finder, note: Callable[[str], None]) -> Code:
    files = finder.files
    try:
        return Code(place, finder.load() if place.path else importlib.import_module(place.module), files)
    except (Exception, SystemExit) as error:
        if not place.path or isinstance(error, SyntaxError):
            raise told_of(error, files, place.shown) from error
        first = error
    try:
        module = finder.load(definitions_only=True)
    except (Exception, SystemExit):
        raise told_of(first, files, place.shown) from first
    if not hasattr(module, place.function):
        raise told_of(first, files, place.shown) from first
    note(f"{told_of(first, files, place.shown)}: its definitions are taken, the rest of it is not run")
    return Code(place, module, files)


class _Finder:
    """Finds the modules that lie beside a user's file or in a user's package, and gives them the names of TensorFlow
    1."""

    def __init__(self, place: FunctionLocation, names: TensorFlow1) -> None:
        self.place, self.names = place, names
        self.files: set[str] = set()  # that were run
        self.packages = {place.module.split(".")[0]} - set(_OURS)

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        top, folders = name.split(".")[0], list(self.place.folders)
        if top in _OURS:
            return None
        if path is not None:
            found = PathFinder.find_spec(name, path) if top in self.packages else None
        else:
            found = PathFinder.find_spec(name, folders)
            if found is None and top in self.packages:  # the package of --net, wherever it is installed
                found = PathFinder.find_spec(name)
            elif found is not None and found.loader is None and _without_code(PathFinder.find_spec(name)):
                self.packages.add(top)
        if found is None or found.origin is None or not isinstance(found.loader, SourceFileLoader):
            return None
        self.packages.add(top)
        found.loader = _Loader(name, found.origin, self)
        return found

    def load(self, *, definitions_only: bool = False) -> ModuleType:
        """The module of the file that is named."""
        name, path = self.place.module, self.place.path
        package = name.rpartition(".")[0]
        if package:
            importlib.import_module(package)
        loader = _Loader(name, path, self, definitions_only)
        spec = spec_from_file_location(name, path, loader=loader)
        assert spec is not None  # it has a loader
        module = module_from_spec(spec)
        sys.modules[name] = module
        loader.exec_module(module)
        return module

    def has_loaded(self, module: object) -> bool:
        loader = getattr(getattr(module, "__spec__", None), "loader", None)
        return isinstance(loader, _Loader) and loader.finder is self


def _without_code(found: ModuleSpec | None) -> bool:
    """Whether a package is no more than a folder, without an __init__.py."""
    return found is not None and found.origin is None


class _Loader(SourceFileLoader):
    """Runs a file in which `import` gives TensorFlow 1, and Python 2's names are there."""

    def __init__(self, name: str, path: str, finder: _Finder, definitions_only: bool = False) -> None:
        super().__init__(name, path)
        self.finder, self.definitions_only = finder, definitions_only

    def exec_module(self, module: ModuleType) -> None:
        self.finder.files.add(self.path)
        module.__dict__["__builtins__"] = {**vars(builtins), **BUILTINS, "__import__": self._import}
        super().exec_module(module)

    def get_code(self, name: str) -> CodeType:
        """Compiled each time: a cached one is as old as a second, and lies beside the user's file."""
        tree = ast.parse(self.get_data(self.path), self.path)
        return compile(definitions(tree) if self.definitions_only else tree, self.path, "exec", dont_inherit=True)

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> object:
        if level == 0 and name.split(".")[0] == "tensorflow":
            return self.finder.names.imported(name, fromlist or ())
        return builtins.__import__(name, globals, locals, fromlist, level)


def definitions(tree: ast.Module) -> ast.Module:
    """What a script defines: its imports, functions, classes, and constants that no call computes.

    >>> tree = definitions(ast.parse("import os\\nSIDE = 2 * 16\\nargs = parse()\\ndef build(x): return x\\nbuild(1)"))
    >>> print(ast.unparse(tree).replace("\\n\\n", "\\n"))
    import os
    SIDE = 2 * 16
    def build(x):
        return x
    """
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    constants = (ast.Assign, ast.AnnAssign)

    def is_kept(node: ast.stmt) -> bool:
        if isinstance(node, ast.Try):  # imports one or the other
            return all(isinstance(each, ast.Import | ast.ImportFrom) for each in node.body)
        calls = any(isinstance(each, ast.Call) for each in ast.walk(node))
        return isinstance(node, kinds) or (isinstance(node, constants) and not calls)

    return ast.Module([node for node in tree.body if is_kept(node)], [])


def told_of(error: BaseException, files: set[str], path: str) -> RecipeError:
    """An error of the user's code as one sentence, with the last line of that code that was reached."""
    if isinstance(error, SyntaxError) and error.filename:
        return RecipeError(f"line {error.lineno}: {error.msg}", path=_short(error.filename))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    what = said(error)
    if not frames:
        return RecipeError(what, path=path)
    last = frames[-1]
    where = "" if last.name == "<module>" else f", in {last.name}"
    return RecipeError(f"line {last.lineno}{where}: {what}", path=_short(last.filename))


def said(error: BaseException) -> str:
    """
    >>> said(ValueError("shapes differ\\nmore")), said(KeyError("a"))
    ('ValueError: shapes differ', "KeyError: 'a'")
    """
    if isinstance(error, SystemExit):
        return "it ends the program"
    text = str(error).strip().splitlines()
    if isinstance(error, UnsupportedError):
        return text[0]
    return f"{type(error).__name__}: {text[0].rstrip('.')}" if text else type(error).__name__
