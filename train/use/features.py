"""Transfer values of a data set: the output of one of the net's layers for each image, computed once and kept.

    write_features(FeatureOptions(checkpoint="inception_v3.ckpt", data="photos", output="features"))

    features.npy    the values, float32 or float16 [images, ...], suited for memory-mapping
    features.npz    the same with labels, label_names, names and split: a complete data set for `ckpt-finetune`
    features.tsv    label, name and split of each row, for people and for TensorBoard's projector
    features.json   where the values come from

`shards` and `shard` divide the images between machines, by default according to TF_CONFIG;
`feature_files.merge_features` merges the parts in the order that a single machine would give.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import DataError, RecipeError, nearest
from ...events import ExamplesFound, Finished, ImagesLeftOut, Noted, OnEvent, Opened, ignore
from ...names import select, unrepeated
from ...plan import PlanRules, make_plan
from ..data.examples import DataSet, Examples
from ..data.pipeline import Unreadable, turned
from ..graph.cluster import Cluster, own_shard
from ..options.configuration import option
from ..options.training import AUTO, FLOAT32, PRECISIONS, Choice
from .classifier import Classifier
from .costs import MEASURED, WARMING, Costs, Pace, gpu_memory, pace
from .data_options import DataOptions, data_of
from .feature_files import Features, check_outputs, shard_prefix, write_companions, write_values
from .running import Prepared, Wanted, prepare

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf

SPLITS = ("all", "train", "validation", "test")
POOLS = ("mean", "max", "none")


@dataclass(frozen=True)
class FeatureOptions(DataOptions):
    """The options of `ckpt-features`."""

    end_point: str | None = option(
        None, "layer to take the features from; the input of the last layer by default", group="source", metavar="NAME"
    )
    trainable: tuple[str, ...] = option(
        (), "take the output of what ckpt-finetune --trainable would leave frozen", group="source", metavar="PATTERN"
    )
    pool: str = option("mean", "pooling of feature maps: mean, max, or none", group="source", choices=POOLS)

    split: str = option("all", "which split of the data set", group="data", choices=SPLITS)
    output: str = option("", "prefix of the output files", group="run", metavar="PREFIX")
    type: str = option("float32", "element type of the features", group="run", choices=("float32", "float16"))
    shards: int = option(1, "how many machines share the work", group="run", least=1)
    shard: int = option(0, "number of this machine, from 0", group="run", least=0)
    batch_size: int = option(32, "images per batch", group="run", least=1)
    device: str = option("auto", "auto uses a GPU if there is one", group="run", choices=("auto", "gpu", "cpu"))
    dry_run: bool = option(False, "measure a few batches and estimate time, memory and disk", group="run")
    precision: str = option(
        "auto", "precision of the net; auto: the hardware's own if the values are nearly the same", group="run",
        choices=PRECISIONS,
    )  # fmt: skip

    def problems(self) -> list[str]:
        problems = super().problems()
        if not self.output and not self.dry_run:
            problems.append("--output must be given")
        if self.end_point and self.trainable:
            problems.append("--end-point and --trainable cannot be combined")
        if self.shard >= self.shards > 0:
            problems.append(f"--shard {self.shard}: {self.shards} shards are numbered from 0 to {self.shards - 1}")
        return problems


def share_of_machine(options: FeatureOptions, cluster: Cluster | None) -> FeatureOptions:
    """The options with this task's share in a cluster, unless --shards is given.

    Raises RecipeError on a parameter server, which has no share.
    """
    if cluster is None or options.shards > 1:
        return options
    share = own_shard(cluster)
    if share is None:
        advice = "Start ckpt-features on the chief and the workers."
        raise RecipeError("TF_CONFIG: a parameter server has no share of the images", advice=advice)
    return replace(options, shard=share[0], shards=share[1])


def write_features(
    options: FeatureOptions, on_event: OnEvent = ignore, *, data: DataSet | None = None
) -> tuple[str, Features]:
    """Computes the values of the images named by the options, or of `data`, and writes the files; returns their prefix
    and content.

    Raises DataError for an end point that the net does not have, OutputError if the files cannot be written.
    """
    work = work_of(options, on_event, data)
    classifier, examples = work.classifier, work.examples
    prefix = options.output if options.shards == 1 else shard_prefix(options.output, options.shard, options.shards)
    check_outputs(prefix, work.data.path, options.checkpoint, classifier.path)
    unreadable = Unreadable()
    with work.net:
        values, kept = computed(work, options, prefix, unreadable, on_event)
    if unreadable.reasons:
        on_event(ImagesLeftOut(dict(unreadable.reasons), unreadable.note()))
    facts = {
        "net": classifier.net.name,
        "source": classifier.path,
        "layer": work.layer,
        "pool": options.pool,
        "type": options.type,
        "precision": work.precision,
        "preprocessing": classifier.pixels.as_dict(),
        "data": work.data.path,
        "images": len(examples),
        "shards": options.shards,
    }
    position = work.position[kept]
    features = Features(
        values,
        examples.label_ids[position],
        work.data.labels,
        tuple(examples.names[i] for i in position),
        tuple(work.split[i] for i in position),
        position,
        facts,
        turned(examples) if classifier.upright else examples,
    )
    write_companions(features, prefix)
    on_event(Finished(features))
    return prefix, features


class Work(NamedTuple):
    """What to compute: the values of the `share` of the examples, at the indices `position`, by the `net`, which
    computes a layer in a precision."""

    classifier: Classifier
    data: DataSet
    examples: Examples
    split: list[str]  # one per example
    position: np.ndarray
    share: Examples
    net: Prepared
    layer: str
    precision: str


def work_of(options: FeatureOptions, on_event: OnEvent, data: DataSet | None = None) -> Work:
    """Opens net and data; raises like `write_features`."""
    classifier = options.open(head=False)
    classifier.must_take_images()
    data = data_of(classifier, options, data)
    examples, split = chosen(data, options.split)
    position = np.arange(options.shard, len(examples), options.shards)
    on_event(Opened(classifier.net.title, classifier.path))
    size = classifier.pixels.image_size
    on_event(ExamplesFound("images", len(position), options.split, data.path, len(examples), size))
    for note in (*classifier.notes, *data.notes):
        on_event(Noted(note))
    share = examples.take(position)
    layers = []

    def make(images: object) -> Wanted:
        wanted, layer = layer_of(classifier, images, options)
        layers.append(layer)
        return wanted

    precision, shared = options.precision, options.shards > 1 and options.precision == AUTO
    if shared:  # machines that share the images must use the same precision
        precision = FLOAT32
    choice, net = prepare(classifier, share, make, precision, options.device, on_event)
    choice = Choice(FLOAT32, "the same for every part; --precision gives another") if shared else choice
    on_event(choice.chosen())
    return Work(classifier, data, examples, split, position, share, net, layers[0], choice.precision)


def dry_run(options: FeatureOptions, on_event: OnEvent = ignore) -> Costs:
    """The costs of the work, estimated from a few batches; nothing is written. Raises like `write_features`."""
    work, shapes = work_of(options, on_event), []
    few = work.share.take(np.arange(min(len(work.share), (WARMING + MEASURED) * options.batch_size)))

    def batches() -> Iterator[int]:
        for part in work.net.run(few, title="features", batch_size=options.batch_size, on_event=on_event):
            shapes.append(part["values"].shape)
            yield len(part["index"])

    with work.net:
        found = Pace(len(work.share), pace(batches()))
    row = np.prod(shapes[0][1:], dtype=np.int64) * np.dtype(options.type).itemsize
    files = {".npy and .npz": 2 * int(row) * len(work.share)}
    return Costs({"features": found}, files, gpu_memory=gpu_memory(options.device))


def chosen(data: DataSet, split: str) -> tuple[Examples, list[str]]:
    """The examples of a split, or of all splits, and the split of each example."""
    names = [name for name in ("train", "validation", "test") if getattr(data, name) is not None]
    each = [name for name in names if split in ("all", name) for _ in range(len(getattr(data, name)))]
    return data.split(split), each


def computed(
    work: Work, options: FeatureOptions, prefix: str, unreadable: Unreadable, on_event: OnEvent
) -> tuple[np.ndarray, np.ndarray]:
    """Writes PREFIX.npy. Returns the values, and the indices of the examples that have a row."""
    kept = []
    how: dict[str, Any] = {"batch_size": options.batch_size, "unreadable": unreadable, "on_event": on_event}

    def blocks() -> Iterator[np.ndarray]:
        for part in work.net.run(work.share, title="features", **how):
            kept.append(part["index"])
            yield part["values"]

    values = write_values(blocks(), len(work.share), np.dtype(options.type), prefix)
    return values, np.concatenate(kept)


def layer_of(classifier: Classifier, images: object, options: FeatureOptions) -> tuple[Wanted, str]:
    """Builds the part of the net that is needed; returns the tensor "values" [batch, ...] and the layer's name."""
    import tensorflow.compat.v1 as tf

    from ...nets.graph import build_net

    net = classifier.net
    if options.trainable:
        return frontier_of(classifier, images, options.trainable)
    built = build_net(net, images, num_classes=None)
    if options.end_point is None:
        return Wanted({"values": built.features}), "features"
    if options.end_point not in built.end_points:
        known = list(built.end_points)
        advice = f"From input to output: {', '.join(known)}."
        raise DataError(f"no end point {options.end_point!r}{nearest(options.end_point, known)}", advice=advice)
    values = tf.cast(built.end_points[options.end_point], tf.float32)  # a mean below float32 would lose precision
    if values.shape.rank == 4 and options.pool != "none":
        values = (tf.reduce_mean if options.pool == "mean" else tf.reduce_max)(values, [1, 2])
    return Wanted({"values": values}), options.end_point


def frontier_of(classifier: Classifier, images: object, trainable: Sequence[str]) -> tuple[Wanted, str]:
    """The tensor that separates the frozen part of the net from the part that `trainable` would train, and its name.

    Raises DataError if nothing worth caching is frozen, or if more than one tensor separates the two.
    """
    from ...nets.graph import build_net
    from ...nets.layers import Mode
    from ..graph.frozen_prefix import find_frontier

    classes = classifier.classes or 2  # any number: the head is not kept
    variables = classifier.net.variables(classes)
    select([variable.name for variable in variables if variable.trainable], trainable)  # raises with the nearest names
    plan = make_plan(
        {variable.name: variable.spec for variable in variables}, variables, PlanRules(trainable=trainable)
    ).checked()
    moving = {row.name for row in plan.rows if row.trainable}
    built = build_net(
        classifier.net,
        images,
        num_classes=classes,
        mode=Mode(trains_batch_norm=lambda layer: plan.batch_norm.get(layer, "frozen") != "frozen"),
    )
    frontier = find_frontier(images, [built.logits], lambda name: name in moving)
    if frontier is None:
        raise DataError(f"too little of the net is frozen with --trainable {','.join(trainable)}")
    if len(frontier.tensors) > 1:
        fact = f"{len(frontier.tensors)} tensors divide what --trainable {','.join(trainable)} trains from the rest"
        found = last_frozen(built.end_points, images, built.logits, moving)
        advice = f"--end-point {found} is before all that is trained." if found else "Give an --end-point before them."
        shown = ", ".join(unrepeated(tensor.op.name) for tensor in frontier.tensors)
        raise DataError(f"{fact}: {shown}", advice=advice)
    tensor = frontier.tensors[0]
    return Wanted({"values": tensor}, frontier.variables), unrepeated(tensor.op.name)


def last_frozen(
    end_points: Mapping[str, tf.Tensor], images: tf.Tensor, logits: tf.Tensor, moving: Collection[str]
) -> str | None:
    """The last end point that every path to the logits passes through and that does not depend on any of `moving`."""

    def upstream(start: tf.Operation, until: tf.Operation | None) -> set[tf.Operation]:
        found, waiting = {start}, [start]
        while waiting:
            op = waiting.pop()
            before = set() if op is until else {tensor.op for tensor in op.inputs} - found
            found |= before
            waiting += before
        return found

    for name, tensor in reversed(list(end_points.items())):
        needed = upstream(tensor.op, None)
        divides = images.op in needed and images.op not in upstream(logits.op, tensor.op)
        if divides and not any(op.name in moving for op in needed):
            return name
    return None
