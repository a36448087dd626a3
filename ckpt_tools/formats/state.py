"""The `checkpoint` text file of a training folder, which names the latest checkpoint and the others."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ..errors import DamagedError
from .storage import is_remote, open_file

MAX_SIZE = 16 << 20  # bytes; a state file only lists paths
_TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | (?P<name>[A-Za-z_]\w*) \s* :? | (?P<string>(?:"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'))"""
    r""" | (?P<number>[-+.\w]+) | [{}<>\[\];,]""",
    re.VERBOSE,
)
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_SIMPLE = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}


class State(NamedTuple):
    """CheckpointState: paths as written in the file, absolute or relative to its folder."""

    latest: str
    all: tuple[str, ...]


def parse_state(text: str) -> State:
    """Reads CheckpointState in protobuf's text format; fields of newer releases are skipped.

    >>> parse_state('model_checkpoint_path: "m-2"  # newest\\nall_model_checkpoint_paths: "m-1"')
    State(latest='m-2', all=('m-1',))
    """
    found: dict[str, list[str]] = {}
    name, pos = "", 0
    while pos < len(text):
        match = _TOKEN.match(text, pos)
        if match is None:
            raise DamagedError(f"is not a checkpoint state file: character {pos + 1} is {text[pos]!r}")
        pos = match.end()
        if match["name"]:
            name = match["name"]
        elif match["string"]:
            if not name:
                raise DamagedError("is not a checkpoint state file: a string stands without the name of a field")
            found.setdefault(name, []).append(_unescape(match["string"][1:-1]))
    latest = found.get("model_checkpoint_path", [""])[-1]
    if not latest:
        raise DamagedError("is a checkpoint state file that names no checkpoint (no model_checkpoint_path)")
    return State(latest, tuple(found.get("all_model_checkpoint_paths", ())))


def _unescape(text: str) -> str:
    def character(match: re.Match[bytes]) -> bytes:
        octal, hexadecimal, other = match.groups()
        if octal:
            return bytes((int(octal, 8) & 0xFF,))
        if hexadecimal:
            return bytes((int(hexadecimal, 16),))
        return _SIMPLE.get(other, other)

    raw = _ESCAPE.sub(character, text.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


def read_state(path: str) -> State:
    """Reads a state file. Raises DamagedError if the file is not one."""
    with open_file(path) as file:
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise DamagedError("is too large for a checkpoint state file", path=path)
    try:
        return parse_state(data.decode("utf-8", "surrogateescape"))
    except DamagedError as error:
        raise error.at(path=path) from None


def candidates(state_path: str, stored: str) -> list[str]:
    """Possible paths of the checkpoint that a state file names: as written, then beside it, if the folder was moved.

    If a URL is involved, only beside it: a remote file must not decide what is opened locally, nor vice versa.
    """
    folder = os.path.dirname(state_path)
    beside = os.path.join(folder, os.path.basename(stored.replace("\\", "/")))
    if is_remote(stored) or (is_remote(state_path) and os.path.isabs(stored)):
        return [beside]
    return [stored, beside] if os.path.isabs(stored) else [os.path.join(folder, stored)]
