"""The data set of a command: that of the run whose net it uses, or another one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import RecipeError
from ..data.examples import DataSet
from ..data.loading import data_set_of
from ..data.memory import in_memory, was_in_memory
from ..options.configuration import option
from .classifier import Classifier, SourceOptions

READ = ("labels_csv", "label_column", "validation_fraction", "seed")  # options on how to read a data set


@dataclass(frozen=True)
class DataOptions(SourceOptions):
    """Which net a command runs, and on which data set."""

    data: str = option("", "the data set; that of the run by default", group="data", metavar="DIR")
    labels_csv: str | None = option(
        None,
        "CSV with files and labels of the images in --data; one in that folder is found by itself",
        group="data",
        metavar="FILE",
    )
    label_column: tuple[str, ...] = option(
        (),
        "which labels to use if there are several: a column of the CSV, or fine or coarse for CIFAR-100",
        group="data",
        metavar="NAME",
    )
    validation_fraction: float = option(0.2, "fraction to hold out if there is no such split", group="data", above=0.0)
    seed: int = option(
        0, "random seed of that choice; for a run's own data, the run's seed is used", group="data", least=0
    )

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.checkpoint and not self.data:
            problems.append("--data must be given")
        return problems


def data_of(classifier: Classifier, options: DataOptions | None = None, given: DataSet | None = None) -> DataSet:
    """The data set named by the options; by default that of the run, read and split as in the run. `given` is a data
    set already in memory.

    Raises DataError if the data set does not fit the net, RecipeError if none is named.
    """
    run = classifier.options
    if given is not None:
        data = in_memory(given, run, training=False)
        classifier.check_takes(data)
        return data
    path = options.data if options else ""
    if not path and was_in_memory(run.data):
        fact = "the run was trained on arrays in memory"
        raise RecipeError(fact, path=classifier.path, advice="Give --data; in Python, data=.")
    if not path and not run.data:
        fact = "--data must be given: no run of ckpt-finetune says what this was trained on"
        raise RecipeError(fact, path=classifier.path)
    own = bool(run.data) and (not path or Path(path).resolve() == Path(run.data).resolve())
    read = run if own else replace(run, **{name: getattr(options, name) for name in READ}, data=path, labels=None)
    if own and options:  # given options win
        read = replace(read, **{name: getattr(options, name) for name in READ[:2] if getattr(options, name)})
    data = data_set_of(replace(read, exif_orientation=classifier.upright), training=False)
    classifier.check_takes(data)
    return data
