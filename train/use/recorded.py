"""Reads a train directory: which checkpoint to use, and the rows of metrics.csv."""

from __future__ import annotations

import csv
from pathlib import Path

from ...errors import TrainingError

METRICS = (
    "step", "epoch", "learning_rate", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds",
)  # fmt: skip
MEAN_AVERAGE_PRECISION = "validation_mean_average_precision"  # an additional column if images have several labels


def find_run(source: str, use: str) -> tuple[Path | None, str]:
    """The train directory that `source` is, or is in, and the prefix of the checkpoint to use; (None, "") if there is
    no train directory."""
    path = Path(source)
    if (path / "plan.json").is_file():
        numbers = [p.stem.removeprefix("model.ckpt-") for p in path.glob("model.ckpt-*.index")]
        steps = sorted(int(number) for number in numbers if number.isdigit())  # other names are copies, not the run's
        if use == "best" and (path / "best.ckpt.index").is_file():
            return path, str(path / "best.ckpt")
        if not steps:
            raise TrainingError("the run has no checkpoint yet", path=path)
        if use.isdigit() and int(use) not in steps:
            raise TrainingError(f"no checkpoint of step {use}; there are {', '.join(map(str, steps))}", path=path)
        return path, str(path / f"model.ckpt-{use if use.isdigit() else steps[-1]}")
    stem = path.name.removesuffix(".index")
    if (path.parent / "plan.json").is_file() and (path.parent / f"{stem}.index").is_file():
        return path.parent, str(path.parent / stem)
    return None, ""


def metrics_of(folder: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv as text, without a last line cut short by a kill. Raises TrainingError if columns are
    missing."""
    path = folder / "metrics.csv"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    missing = [column for column in METRICS if column not in (rows.fieldnames or METRICS)]
    if missing:
        fact = f"has no column {missing[0]}" + (f", nor {', '.join(missing[1:])}" if missing[1:] else "")
        raise TrainingError(fact, path=path, advice="Put its first line back, or move it away.")
    return [row for row in rows if row["step"].isdigit() and None not in row.values()]
