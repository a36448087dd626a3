"""ckpt-completion: what a shell needs to complete commands, options, choices and file names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from ..errors import needs
from . import DONE, parser, run

EXAMPLES = """\
  source <(ckpt-completion bash)        in ~/.bashrc
  eval "$(ckpt-completion zsh)"         in ~/.zshrc, after compinit
  ckpt-completion tcsh > ~/.ckpt.tcsh   and `source ~/.ckpt.tcsh` in ~/.tcshrc"""


def make_parser() -> argparse.ArgumentParser:
    made = parser("ckpt-completion", "Prints completions of all commands for a shell.", EXAMPLES)
    made.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return made


def completions(shell: str) -> str:
    """The script for one shell. Raises UnsupportedError without shtab."""
    from ..__main__ import COMMANDS

    with needs(extra="completion"):
        import shtab
    parts = []
    for command in COMMANDS:
        made = import_module(f"ckpt_tools.cli.{command}").make_parser()
        for action in made._actions:
            if action.nargs != 0 and not action.choices:
                action.complete = shtab.FILE
        parts.append(shtab.complete(made, shell))
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    def command(args: argparse.Namespace) -> int:
        print(completions(args.shell))
        return DONE

    return run(make_parser(), command, argv)
