"""A train directory of a net of five values that is created, saved to and reopened, for tests without TensorFlow."""

from pathlib import Path

import numpy as np

from ckpt_tools import from_arrays, open_checkpoint
from ckpt_tools.plan import Plan, PlanRules, Variable, make_plan
from ckpt_tools.tensors import Spec
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.plan.job import NO_SOURCE
from ckpt_tools.train.run.continuing import open_run
from ckpt_tools.train.run.run_directory import RunDirectory

LABELS = ["cat", "dog"]


def net(classes: int = 2) -> list[Variable]:
    return [
        Variable("net/conv/weights", Spec("float32", (3,))),
        Variable("net/logits/weights", Spec("float32", (classes,)), role="head", class_axis=0),
    ]


def plan(classes: int = 2, **how) -> Plan:
    return make_plan({each.name: each.spec for each in net(classes)}, net(classes), PlanRules(**how))


def opened(folder, made=None, labels=None, source=NO_SOURCE, **options):
    """What `open_run` says of a folder."""
    return open_run(
        Options(train_dir=str(folder), **options), [made or plan()], labels or LABELS, source, head="net/logits"
    )


def begin(directory, *, fresh=False, resume=False, **facts):
    """Makes the folder a run's."""
    options = Options(train_dir=str(directory.path), fresh=fresh, resume=resume)
    directory.begin(plan(), options, LABELS, {"labels": LABELS, **facts}, anew=True)


def tensors(value, classes=2):
    """A checkpoint of the net at this step."""
    values = {"net/conv/weights": np.full(3, value, np.float32), "net/logits/weights": np.zeros(classes, np.float32)}
    return from_arrays({**values, "global_step": np.int64(value)})


def held(folder) -> dict[str, bytes]:
    """Every file of a folder and its bytes."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def write_run(folder, labels=LABELS, steps=(5, 10, 15)):
    """A run that trains the head, with a checkpoint of each of these steps, of which it keeps two."""
    directory = RunDirectory(Path(folder), keep=2)
    options = Options(train_dir=str(folder), trainable=("logits",), keep=2)
    directory.begin(
        plan(len(labels), trainable=["logits"]), options, labels, {"labels": labels, "net": "net"}, anew=True
    )
    for step in steps:
        directory.save(step, tensors(step, len(labels)), {})
    return directory


def step_of(path):
    """The training step that a checkpoint holds."""
    return open_checkpoint(path).tensors["global_step"].load()
