"""The data set that a command looks at: that of the run whose net it takes, or another one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import RecipeError
from .configuration import option
from .data import data_set_of
from .examples import DataSet
from .inference import Classifier, SourceOptions

READ = ("labels_csv", "label_column", "validation_fraction", "seed")  # options that say how a data set is read


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
    read = run if own else replace(run, **{name: getattr(options, name) for name in READ}, data=path, labels=None)
    if own and options:  # what is given wins
        read = replace(read, **{name: getattr(options, name) for name in READ[:2] if getattr(options, name)})
    data = data_set_of(replace(read, exif_orientation=classifier.upright), training=False)
    classifier.check_takes(data)
    return data
