"""What the commands share: parsing, errors in one line, exit codes. A command is parse, one library call, render.

Exit codes, as in diff(1): 0 done, same, nothing found; 1 differences, findings, a plan with conflicts; 2 cannot.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from .. import __version__
from ..errors import CheckpointError, DamagedError, RecipeError, nearest, needs

DONE, FOUND, CANNOT = 0, 1, 2
LAYOUTS = ("slim", "keras", "torchvision", "timm")  # slim, and layouts.WORLDS, which takes long to import


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """argparse makes one for every option; told the width, it need not import shutil to ask for it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line, and what an unknown flag is called here: slim's own flags, other spellings, typos."""

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        before = words[: words.index("--") if "--" in words else None]
        flags = [word.partition("=")[0] for word in before]
        unknown = [each for each in flags if each.startswith("--") and each not in self._option_string_actions]
        told = list(filter(None, map(self._told, dict.fromkeys(unknown))))
        dashed = [each for each in before if each.startswith("-") and each not in self._option_string_actions]
        files = [each for each in dashed if any(map(os.path.exists, (each, f"{each}.index")))]
        told += [f"{each} begins like an option: write ./{each}" for each in files]
        if told:
            self.exit(CANNOT, f"{self.prog}: {'; '.join(told)}\n")
        return super().parse_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """One line, without the usage, which is longer than a screen for some commands."""
        from pathlib import Path

        word = message.removeprefix("unrecognized arguments: ").partition(" ")[0]
        advice = f"{self.prog} --help shows all that it takes"
        if "--train-dir" in self._option_string_actions and Path(word, "plan.json").is_file():
            advice = f"the folder of a run is given with --train-dir {word}"
        self.exit(CANNOT, f"{self.prog}: {message}; {advice}\n")

    def _told(self, flag: str) -> str:
        from ..train.options.slim_flags import here

        if found := here(flag, self._option_string_actions):
            return f"{flag} is {found}{' here' * found.startswith('--')}"
        bare = [known.removeprefix("--") for known in self._option_string_actions]  # the dashes make all alike
        return f"there is no {flag}{nearest(flag, self._option_string_actions)}" if nearest(flag[2:], bare) else ""


def _columns() -> int:
    """Width of the terminal, as shutil.get_terminal_size finds it."""
    with suppress(ValueError):
        return int(os.environ.get("COLUMNS", "")) or 80
    try:
        return os.get_terminal_size().columns or 80
    except OSError:  # not a terminal
        return 80


def parser(prog: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser with the options that every command has; `examples` is shown at the end of --help."""
    made = _Parser(
        prog=prog,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    made.add_argument("--json", action="store_true", help="print JSON instead of tables")
    made.add_argument("--debug", action="store_true", help="show the Python traceback of an error")
    made.add_argument("--version", action="version", version=f"{prog} {__version__}", help="print the version and exit")
    return made


def run(made: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int], argv: Sequence[str] | None) -> int:
    """Parses `argv` (the process's own when None), runs `command`, turns errors into one line and an exit code."""
    return printed(made.prog, lambda: _run(made, command, argv))


def printed(prog: str, command: Callable[[], int]) -> int:
    """The exit code of a command, when all that it printed is written."""
    # Closed, as by `2>&-`: print would take the other stream, and the next file that is opened its number.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    try:
        code = command()
    except BrokenPipeError:  # the reader of our output (head, less) has gone; nothing is wrong
        code = DONE
    except SystemExit:  # --help, or a wrong command line
        _written(prog, CANNOT)
        raise
    return _written(prog, code)


def as_typed(prog: str, argv: Sequence[str] | None) -> str:
    """The command line, for the provenance of what it writes; `argv` is that of `run`."""
    import shlex

    return shlex.join([prog, *(sys.argv[1:] if argv is None else argv)])


def _written(prog: str, code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again, and shows a traceback
        if isinstance(error, BrokenPipeError):
            return code
        if code != CANNOT:
            print(f"{prog}: {_said_by_system(error)}", file=sys.stderr)
        return CANNOT
    return code


def _run(
    made: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int], argv: Sequence[str] | None
) -> int:
    args = made.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name need not be UTF-8
    try:
        with needs():
            return command(args)
    except BrokenPipeError:
        raise
    except (CheckpointError, OSError) as error:
        if args.debug:
            raise
        said = _said_by_system(error) if isinstance(error, OSError) else str(error)
        print(f"{made.prog}: {said}", file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        print(f"{made.prog}: stopped; nothing was left half-written", file=sys.stderr)
        return 130
    except Exception as error:
        failed = None if args.debug else _failed(error, made)
        if failed is None:
            raise
        print(f"{made.prog}: {failed}", file=sys.stderr)
        return CANNOT


def _failed(error: Exception, made: argparse.ArgumentParser) -> str | None:
    """What is said of memory that runs out and of other failures of TensorFlow's, which is not imported for this; None
    for a defect of ours, which shows where it is."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"MemoryError", "ResourceExhaustedError"}:
        smaller = [flag for flag in ("--batch-size", "--image-size") if flag in made._option_string_actions]
        return f"out of memory; try a smaller {' or '.join(smaller)}" if smaller else f"out of memory: {error}"
    if "OpError" in kinds:
        return f"TensorFlow failed: {str(error).splitlines()[0]}; --debug shows where"
    return None


def _said_by_system(error: OSError) -> str:
    """The file and what is wrong with it, without the error number."""
    what = error.strerror or str(error)
    if isinstance(error, FileNotFoundError) and error.filename is None:  # of os.getcwd alone
        what = "the current folder was deleted. Change to one that is there."
    return what if error.filename is None else f"{error.filename}: {what[0].lower()}{what[1:]}"


@contextmanager
def salvaging() -> Iterator[None]:
    """Adds to the error for a damaged source how to save the rest."""
    try:
        yield
    except DamagedError as error:
        error.advice = error.advice or f"ckpt-verify {error.path} --salvage DST saves the tensors that are good."
        raise


def check_v2_options(args: argparse.Namespace, format: str) -> None:
    """Raises RecipeError for --shards and --link where no V2 checkpoint is written."""
    for flag in ("shards", "link"):
        if getattr(args, flag) and format != "v2":
            raise RecipeError(f"--{flag} is for V2 checkpoints; a {format} file is written as one")


def print_json(value: object) -> None:
    """Prints a value as JSON on stdout, each row of a list on a line of its own.

    A number that is not finite is a text, "nan", "inf" or "-inf": JSON has none.
    """
    import json

    def text(part: object) -> str:
        try:
            return json.dumps(part, allow_nan=False)
        except ValueError:
            return json.dumps(_spelt(part))

    def dumped(part: object) -> str:
        if isinstance(part, list) and part:
            return "[\n  " + ",\n  ".join(map(text, part)) + "\n ]"
        return text(part)

    if isinstance(value, dict) and value:
        parts = [f" {json.dumps(key)}: {dumped(part)}" for key, part in value.items()]
        sys.stdout.write("{\n" + ",\n".join(parts) + "\n}\n")
    else:
        sys.stdout.write(dumped(value) + "\n")


def _spelt(value: object) -> object:
    """The value with numbers that are not finite as text."""
    if isinstance(value, dict):
        return {key: _spelt(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def say(text: str) -> None:
    """Prints a message for people on stderr: data alone goes to stdout."""
    print(text, file=sys.stderr)
