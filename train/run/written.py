"""What a run wrote into its train directory: a list kept there, without which nothing is deleted or written over.

    written.json    {"run": "9f3a61c2d07b", "files": ["plan.json", ...], "checkpoints": {"best.ckpt": ["4be1..."]}}

A name is on the list before its file is there, so that a killed run leaves nothing that the list does not know. For a
checkpoint the name is not enough, since somebody may have put another one there: the list has the digest of its index,
which holds the checksum of every tensor; two of them while one checkpoint takes the place of another. The names of
event files, which TensorFlow makes up, end with the run's own mark.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import CheckpointError, OutputError, TrainingError
from ...formats.output import existing_files, remove_abandoned
from ...formats.placing import WRITING, digest_of_index, write_text
from ...nets.from_graph import NET_FILE

LIST = "written.json"
KEPT = (LIST, "config.yaml", "labels.txt")  # by a fresh start, until it writes its own: somebody may be reading them
FILES = (*KEPT, NET_FILE, "checkpoint", "metrics.csv", "result.json", "report.html", "plan.json")
_CHECKPOINT = re.compile(r"(?P<name>model\.ckpt-\d+|best\.ckpt)(?:\..*)?")
_PARTIAL = re.compile(r"\.(?P<name>model\.ckpt-\d+|best\.ckpt)\.partial-\d+")


@dataclass(frozen=True)
class Written:
    """The list of the train directory `folder`. `run` is the run's mark, empty where there is no list.

    `checkpoints` has for the name of each checkpoint the digests that its index may have.
    """

    folder: Path
    run: str = ""
    files: tuple[str, ...] = ()
    checkpoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def event_suffix(self) -> str:
        """What the names of the run's TensorBoard files end with."""
        return f".{self.run}"

    def owns(self, name: str) -> bool:
        """Whether what lies there as the checkpoint `name`, whole or not, is the run's."""
        if name not in self.checkpoints or (self.folder / name).exists():  # a V1 file: a run writes none
            return False
        index = self.folder / f"{name}.index"
        return not index.exists() or _digest(index) in self.checkpoints[name]

    def strangers(self) -> list[str]:
        """Files that the run did not write and whose names it gives to its own."""
        found = []
        for name in listed(self.folder):
            checkpoint = checkpoint_of(name)
            if (name in FILES and name not in self.files) or (checkpoint and not self.owns(checkpoint)):
                found.append(name)
        return found

    # --- changing the list ---

    def save(self) -> Written:
        """Writes the list; returns it."""
        record = {"run": self.run, "files": self.files, "checkpoints": self.checkpoints}
        write_text(self.folder / LIST, json.dumps(record, indent=1) + "\n")
        return self

    def announcing(self, name: str) -> Callable[[str], object]:
        """For `save_checkpoint(announce=...)`: puts the checkpoint `name` on the list before it is moved to its place.

        Raises OutputError where another one lies there, which the run did not write.
        """
        if existing_files(str(self.folder / name)) and not self.owns(name):
            fact = "exists, and this run did not write it"
            raise OutputError(fact, path=self.folder / name, advice="Move it away, then run the same command again.")

        def announce(made: str) -> None:
            digests = dict.fromkeys([*self.checkpoints.get(name, ()), digest_of_index(f"{made}.index")])
            replace(self, checkpoints={**self.checkpoints, name: tuple(digests)}).save()

        return announce

    def settle(self, name: str) -> Written:
        """Notes the one digest that the checkpoint `name` has now, or that it is gone; returns the list."""
        index = self.folder / f"{name}.index"
        kept = {other: digests for other, digests in self.checkpoints.items() if other != name}
        if index.exists():
            kept[name] = (digest_of_index(str(index)),)
        return replace(self, checkpoints=kept).save()

    # --- deleting ---

    def delete(self, name: str) -> Written:
        """Deletes a checkpoint of the run, its index first, so that no index is ever without its data; returns the
        list."""
        ours = re.compile(re.escape(name) + r"\.(index|data-\d{5}-of-\d{5}|provenance\.json)")
        names = [found for found in listed(self.folder) if ours.fullmatch(found)]
        for found in sorted(names, key=lambda each: not each.endswith(".index")):
            (self.folder / found).unlink(missing_ok=True)
        return self.settle(name)

    def clear(self) -> None:
        """Deletes all that the run wrote but KEPT; plan.json, which makes the folder a run, last of all."""
        left = self
        for name in self.checkpoints:
            left = left.delete(name) if self.owns(name) else left
        names = listed(self.folder)
        events = [name for name in names if name.startswith("events.") and name.endswith(self.event_suffix)]
        for name in [*events, *(name for name in FILES if name in self.files and name not in KEPT)]:
            (self.folder / name).unlink(missing_ok=True)
        for partial in filter(None, map(_PARTIAL.fullmatch, names)):
            remove_abandoned(str(self.folder / partial["name"]))
        for name in self.files:
            (self.folder / f"{name}{WRITING}").unlink(missing_ok=True)


def read_list(folder: Path) -> Written:
    """The list in this folder, an empty one where there is none. Raises TrainingError for a file of another kind."""
    try:
        record = json.loads((folder / LIST).read_text(encoding="utf-8"))
        files = tuple(name for name in record["files"] if name in FILES)
        names = {name: tuple(digests) for name, digests in record["checkpoints"].items() if checkpoint_of(name) == name}
        return Written(folder, str(record["run"]), files, names)
    except (FileNotFoundError, NotADirectoryError):
        return Written(folder)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TrainingError("is not the list of what a run wrote", path=folder / LIST) from None


def new_list(folder: Path) -> Written:
    """Begins the list of a new run: the first file of its folder."""
    return Written(folder, secrets.token_hex(6), FILES).save()


def checkpoint_of(name: str) -> str:
    """The checkpoint that a file of this name is a part of, if it is one that a run gives to its own; else empty."""
    match = _CHECKPOINT.fullmatch(name)
    return match["name"] if match else ""


def listed(folder: Path) -> list[str]:
    """Sorted names of what lies in a folder; none where there is no folder."""
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def _digest(index: Path) -> str:
    """Empty for what is no index."""
    try:
        return digest_of_index(str(index))
    except (CheckpointError, OSError):
        return ""
