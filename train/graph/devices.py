"""Divides batches into parts, which are computed on several devices at once, or one after the other on one device.

    --devices gpu:0,gpu:1      two towers, each on half of the batch
    --accumulate 4             four parts, one after the other, in the memory of a single part
    --devices 2 --accumulate 4 two towers, four parts each

Each part has its own tower; all towers share the variables. The gradient of a step is the sum over all images of the
batch divided by the batch size. So a step does not depend on how the batch is divided, up to the order in which floats
are added, except that training batch norms see only the images of their part, and dropout draws anew for each part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import RecipeError, TrainingError
from ...events import Divided
from ..options.training import Options
from .cluster import Cluster

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf

_NAME = re.compile(r"/?(?:device:)?(cpu|gpu):(\d+)", re.IGNORECASE)
ANYWHERE = ""  # as a device: TensorFlow's choice
FILLER = -1  # label of an image that only fills a part: it has no loss and never counts as correct


@dataclass(frozen=True)
class Placement:
    """`parts` are the devices of the parts of a batch, in order. Variables are on the device of the first part, or on
    parameter servers if there are any. `home` is the device of everything else: pipelines, updates, evaluation. An
    undivided batch is prefetched to the device `batches`."""

    parts: tuple[str, ...] = (ANYWHERE,)
    home: str = ANYWHERE
    parameter_servers: int = 0
    batches: str = ANYWHERE  # where batches are prefetched to

    @property
    def cpus(self) -> int:
        """Number of CPU devices that the session needs."""
        found = [int(match[2]) for part in self.parts if (match := _NAME.search(part)) and match[1].lower() == "cpu"]
        return max(found, default=0) + 1

    def on(self, part: int) -> tf.device:
        """The device scope for building a part's tower."""
        import tensorflow.compat.v1 as tf

        device = self.parts[part]
        if not self.parameter_servers:
            return tf.device(device)
        servers = {"ps_tasks": self.parameter_servers, "ps_device": "/job:ps"}
        return tf.device(tf.train.replica_device_setter(worker_device=device, **servers))

    def divided(self, batch_size: int) -> Divided:
        """The event that describes the parts, if there is more than one."""
        sizes = part_sizes(batch_size, len(self.parts))
        return Divided(batch_size, tuple(zip(map(shown_name, self.parts), sizes, strict=True)))


ONE_DEVICE = Placement()


def placement_of(options: Options, cluster: Cluster | None = None) -> Placement:
    """The placement by --devices and --accumulate, the same on each machine of the cluster.

    Raises RecipeError for a text that names no devices, and with --xla for CPUs that XLA cannot compile for. Raises
    TrainingError for a GPU that TensorFlow does not see.
    """
    devices = parse_devices(options.devices, visible_gpus(options.device)) if options.devices else (ANYWHERE,)
    machines = cluster.machines if cluster else (ANYWHERE,)
    parts = [machine + device for machine in machines for device in devices for _ in range(options.accumulate)]
    ahead = ANYWHERE if cluster or len(parts) > 1 else device_of_batches(options.device, parts[0])
    placement = Placement(tuple(parts), machines[0], cluster.parameter_servers if cluster else 0, ahead)
    if options.xla and (placement.cpus > 1 or cluster and not visible_gpus(options.device)):
        # The first step would fail: "Multiple CPU devices [.../device:CPU:1, .../device:CPU:0]"
        where = "TF_CONFIG" if cluster else f"--devices {options.devices}"
        raise RecipeError(f"--xla with {where}: XLA compiles for the first CPU of one machine only, or for GPUs")
    return placement


def parse_devices(text: str, gpus: int) -> tuple[str, ...]:
    """Devices of a machine, from "all", a number, or names.

    >>> parse_devices("cpu:0,cpu:1", gpus=0)
    ('/device:CPU:0', '/device:CPU:1')
    >>> parse_devices("all", gpus=2)
    ('/device:GPU:0', '/device:GPU:1')
    """
    kind = "GPU" if gpus else "CPU"
    if text == "all" or re.fullmatch(r"[1-9]\d*", text):
        numbers = range(max(1, gpus) if text == "all" else int(text))
        names = [(kind, number) for number in numbers]
    else:
        words = text.split(",")
        matches = [match for word in words if (match := _NAME.fullmatch(word.strip()))]
        if len(matches) < len(words):
            advice = "Write all, a number, or names such as gpu:0,gpu:1."
            raise RecipeError(f"--devices {text}: names no devices", advice=advice)
        names = [(match[1].upper(), int(match[2])) for match in matches]
    if len(set(names)) < len(names):
        raise RecipeError(f"--devices {text}: names a device twice", advice="--accumulate divides the batch further.")
    missing = [f"gpu:{number}" for kind, number in names if kind == "GPU" and number >= gpus]
    if missing:
        raise TrainingError(f"--devices {text}: TensorFlow sees {gpus} GPUs, and no {', '.join(missing)}")
    return tuple(f"/device:{kind}:{number}" for kind, number in names)


def visible_gpus(device: str) -> int:
    """Number of GPUs that a run with this `--device` may use."""
    import tensorflow

    return 0 if device == "cpu" else len(tensorflow.config.list_physical_devices("GPU"))


def runs_at_once(device: str) -> int:
    """How many independent batches to compute concurrently: two on CPUs, by measurement (benchmarks/bench_features.py),
    one on a GPU because of its memory."""
    return 1 if visible_gpus(device) else 2


def device_of_batches(device: str, wanted: str = ANYWHERE) -> str:
    """Where to prefetch the batches of a run with this `--device`: to the device `wanted`, else to the first GPU.
    ANYWHERE without a GPU, since the first CPU has them already."""
    found = wanted or ("/device:GPU:0" if visible_gpus(device) else ANYWHERE)
    return ANYWHERE if found == "/device:CPU:0" else found


def shown_name(part: str) -> str:
    """A readable device name: "worker:1 gpu:0" for "/job:worker/task:1/device:GPU:0"."""
    found = re.fullmatch(r"(?:/job:(\w+)/task:(\d+))?(?:/device:(\w+):(\d+))?", part)
    if not found or not part:
        return part or "one device"
    job, task, kind, number = found.groups()
    return " ".join(([f"{job}:{task}"] if job else []) + ([f"{kind.lower()}:{number}"] if kind else []))


# --- dividing a batch ----------------------------------------------------------------------------------------------


def part_sizes(count: int, parts: int) -> list[int]:
    """Sizes of the parts of a batch: as equal as possible, the larger ones first.

    >>> part_sizes(8, 3), part_sizes(1, 2)
    ([3, 3, 2], [1, 0])
    """
    return [count // parts + (number < count % parts) for number in range(parts)]


def split_batch(batch: Mapping[str, tf.Tensor], parts: int) -> list[dict[str, tf.Tensor]]:
    """The parts of a batch, each with the same keys: `part_sizes` in the graph, for batches of any size.

    A part that no image is left for gets the last image with the label FILLER, since oneDNN's convolutions on recent
    processors give the wrong shape for zero images (TensorFlow 2.21).
    """
    import tensorflow.compat.v1 as tf

    if parts == 1:
        return [dict(batch)]
    made = []
    with tf.name_scope("parts"):
        count = tf.shape(batch["label"])[0]
        for number in range(parts):
            size = count // parts + tf.cast(number < count % parts, tf.int32)
            start = tf.minimum(number * (count // parts) + tf.minimum(number, count % parts), count - 1)
            part = {key: value[start : start + tf.maximum(size, 1)] for key, value in batch.items()}
            part["label"] = tf.where_v2(size > 0, part["label"], FILLER)
            made.append(part)
    return made


def no_filler(labels: tf.Tensor) -> tf.Tensor:
    """float32 [batch]: 1 for each image, 0 for one that only fills a part."""
    import tensorflow.compat.v1 as tf

    one = labels if labels.shape.rank == 1 else labels[:, 0]
    return tf.cast(tf.not_equal(one, FILLER), tf.float32)


# --- putting gradients together ------------------------------------------------------------------------------------


def add_gradients(total: Sequence[tf.Tensor | None] | None, more: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """The sum of two lists of gradients. A variable without any gradient stays None, which the update reports."""
    if total is None:
        return list(more)
    return [a if b is None else b if a is None else a + b for a, b in zip(total, more, strict=True)]


def sum_over_devices(
    totals: Mapping[str, Sequence[tf.Tensor | None]], variables: Sequence[tf.Variable]
) -> list[tf.Tensor | None]:
    """The gradient of each variable over all devices, added up where the variable is."""
    import tensorflow.compat.v1 as tf

    summed = []
    for variable, *gradients in zip(variables, *totals.values(), strict=True):
        found = [gradient for gradient in gradients if gradient is not None]
        with tf.device(variable.device):
            summed.append(tf.add_n(found) if len(found) > 1 else found[0] if found else None)
    return summed
