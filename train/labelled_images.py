"""The data set that a command looks at: that of the run whose net it takes, or another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import RecipeError
from .configuration import option
from .data import load_data_set
from .examples import DataSet
from .inference import Classifier, SourceOptions


@dataclass(frozen=True)
class DataOptions(SourceOptions):
    """Which net a command runs, and on which data set."""

    data: str = option("", "the data set; that of the run by default", group="data", metavar="DIR")
    labels_csv: str | None = option(
        None, "CSV of the images in --data and their labels; one in the folder is found", group="data", metavar="FILE"
    )
    label_column: tuple[str, ...] = option(
        (),
        "which labels, where there are several: a column of the CSV; fine or coarse of CIFAR-100",
        group="data",
        metavar="NAME",
    )
    validation_fraction: float = option(0.2, "share set aside where there is no such split", group="data", above=0.0)
    seed: int = option(0, "of that choice; a run's own is taken for its own data", group="data", least=0)

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.checkpoint and not self.data:
            problems.append("--data must be given")
        return problems


def data_of(classifier: Classifier, options: DataOptions | None = None) -> DataSet:
    """The data set that the options name; that of the run by default, which is read and split as the run did.

    Raises DataError for one that does not suit, RecipeError where none is named.
    """
    run = classifier.options
    path = options.data if options else ""
    if not path and not run.data:
        fact = "--data must be given: no run of ckpt-finetune says what this was trained on"
        raise RecipeError(fact, path=classifier.path)
    own = bool(run.data) and (not path or Path(path).resolve() == Path(run.data).resolve())
    how = run if own else options
    data = load_data_set(
        path or run.data,
        validation_fraction=how.validation_fraction,
        seed=how.seed,
        labels_file=run.labels if own else None,
        labels_per_image=run.labels_per_image,
        labels_csv=options and options.labels_csv or how.labels_csv,
        label_column=options and options.label_column or how.label_column,
        upright=classifier.upright,
        training=False,
    )
    classifier.check_takes(data)
    return data
