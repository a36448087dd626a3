"""The training graph: a net on a batch, its loss, and the operation of one step.

A tower is the net on one batch. The training tower has dropout and training-mode batch norm where the plan says so; the
inference tower shares its variables and has neither. Both are in one graph, under the name scopes `training/` and
`inference/`, so that tensors of the two correspond by name. If a batch is divided (devices.py), the training tower is
the first of several; the others are `part_1/` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from ...errors import TrainingError
from ...nets.graph import build_net
from ...nets.head import Dropout, Head
from ...nets.layers import Mode
from ...nets.net import Net
from ...plan import Plan
from ..options.training import Options
from ..plan.phases import ages, parse_phases
from .batches import ValueTable, fed_features, read_batch
from .cluster import after_all
from .devices import ONE_DEVICE, Placement, add_gradients, no_filler, split_batch, sum_over_devices
from .objective import image_losses, rightness
from .precision import compiled, make_loss_scale, unscaled
from .update import apply_gradients, rate_factors, weight_penalty

AUXILIARY_WEIGHT = 0.4
TRAINING, INFERENCE = "training", "inference"


class Tower(NamedTuple):
    """The net on a batch: images float32 [batch, height, width, 3], logits float32 [batch, classes], others [batch];
    labels int32 [batch], or [batch, classes] of 0 and 1 if images may have several.

    If only the head is built, `images` are the features, [batch, 1, 1, channels], which are fed or looked up in a table
    by the fed `rows`.
    """

    images: tf.Tensor
    labels: tf.Tensor
    logits: tf.Tensor
    losses: tf.Tensor  # cross-entropy of each image
    correct: tf.Tensor  # float32, see `rightness`
    end_points: Mapping[str, tf.Tensor]
    features: tf.Tensor  # [batch, channels]: the transfer values that reach the head
    auxiliary_logits: tf.Tensor | None  # [batch, classes], with --aux
    rows: tf.Tensor | None = None  # int32 [batch]

    @property
    def fed(self) -> tf.Tensor:
        """The tensor that is fed if only the head is built."""
        return self.images if self.rows is None else self.rows


class TrainStep(NamedTuple):
    """One training step: run `train` with `learning_rate` fed. `loss` and `correct` are those of its batch."""

    train: tf.Operation
    loss: tf.Tensor  # mean objective of the images plus weight decay
    accuracy: tf.Tensor  # share of correctly classified images
    learning_rate: tf.Tensor
    global_step: tf.Variable
    gradient_norms: tf.Tensor  # [variables], before clipping
    trained: tuple[tf.Variable, ...]
    begun: tf.Variable | None = None  # on several machines: the last step that began to change variables


class TowerSpec(NamedTuple):
    """What all towers of a graph are built from. The plan tells which batch norms train; of the options, only those on
    computation matter: precision, XLA, dropout, the auxiliary head."""

    net: Net
    plan: Plan
    options: Options
    num_classes: int
    head: Head

    @property
    def has_dropout(self) -> bool:
        """Whether the head has dropout in training."""
        return any(isinstance(layer, Dropout) and layer.rate > 0 for layer in self.head.layers)

    @property
    def infers_as_it_trains(self) -> bool:
        """Whether training and inference towers compute the same."""
        return not self.has_dropout and all(mode == "frozen" for mode in self.plan.batch_norm.values())


@dataclass
class Shared:
    """What the towers of a graph share: the step, which seeds dropout, and the variables with slim's initializers."""

    step: tf.Variable
    initializers: dict[str, Callable[..., tf.Tensor]] = field(default_factory=dict)

    def remember(self, getter: Callable[..., tf.Variable], name: str, *args: object, **how: object) -> tf.Variable:
        """A custom getter for tf.variable_scope that records the initializer and makes the variable as usual."""
        if callable(initializer := how.get("initializer")):
            self.initializers.setdefault(name, initializer)
        return getter(name, *args, **how)


def build_tower(
    spec: TowerSpec, batch: Mapping[str, tf.Tensor], shared: Shared, *, training: bool, part: int = 0
) -> Tower:
    """Builds the net on `batch` ("image" or "features", "label"), which is part number `part` of a whole batch. Later
    towers reuse the variables of the first."""
    options, modes = spec.options, spec.plan.batch_norm
    name = part_name(part) if training else INFERENCE
    exists = bool(tf.get_collection(tf.GraphKeys.MODEL_VARIABLES))
    scope = tf.variable_scope(tf.get_variable_scope(), reuse=exists, custom_getter=shared.remember)
    with tf.name_scope(name), scope, compiled(options.xla):
        given = batch.get("features")
        images = None if given is not None else tf.cast(batch["image"], options.precision)
        mode = Mode(
            trains_batch_norm=lambda layer: training and modes.get(layer, "frozen") != "frozen",
            batch_norm_decay=options.batch_norm_decay,
            dropout_seed=dropout_seed(options, shared.step, part) if training and spec.has_dropout else None,
        )
        built = build_net(
            spec.net, images, num_classes=spec.num_classes, head=spec.head, features=given, aux=options.aux, mode=mode
        )
        losses = image_losses(built.logits, batch["label"])
        correct = rightness(built.logits, batch["label"])
    return Tower(
        batch["image"] if given is None else given, batch["label"], built.logits, losses, correct, built.end_points,
        built.features, built.auxiliary_logits, batch.get("rows"),
    )  # fmt: skip


def part_name(part: int) -> str:
    """The name scope of the training tower for a part of a batch."""
    return f"part_{part}" if part else TRAINING


def dropout_seed(options: Options, step: tf.Variable, part: int) -> tf.Tensor:
    """The seed of dropout, made from the seed of the run, the step, and the part of the batch."""
    seed = tf.stack([tf.constant(options.seed, tf.int64), step.read_value()])
    return tf.random.experimental.stateless_fold_in(seed, part) if part else seed


def build_training(
    spec: TowerSpec, batch: Mapping[str, tf.Tensor], shared: Shared, *, class_weights: Sequence[float] | None,
    placement: Placement,
) -> tuple[tuple[Tower, ...], TrainStep]:  # fmt: skip
    """Builds the towers on the parts of `batch`, the objective and its gradients, the optimizer, and batch-norm
    updates.

    Parts on one device run one after the other: a tower starts when the gradients of the previous one are added up.
    """
    options = spec.options
    learning_rate = tf.placeholder(tf.float32, [], name="learning_rate")
    parts = split_batch(batch, len(placement.parts))
    count = tf.add_n([tf.reduce_sum(no_filler(part["label"])) for part in parts])
    towers: list[Tower] = []
    losses: list[tf.Tensor] = []
    totals: dict[str, list[tf.Tensor | None]] = {}
    scale = make_loss_scale(options.precision)
    for number, (part, device) in enumerate(zip(parts, placement.parts, strict=True)):
        before = [gradient for gradient in totals.get(device, ()) if gradient is not None]
        with placement.on(number), tf.control_dependencies(before):
            tower = build_tower(spec, part, shared, training=True, part=number)
            if not towers:
                # As in slim's towers, the moving statistics follow the first part of each batch.
                updates, trained = tf.get_collection(tf.GraphKeys.UPDATE_OPS), trained_variables(spec.plan)
                ever = ever_trained(options, trained)
            with tf.name_scope(part_name(number)):
                loss = tf.reduce_sum(objective(tower, options, class_weights)) / count
                penalty = None if towers else weight_penalty(options, trained, list(ever))
                loss = loss if penalty is None else loss + penalty
                scaled = loss if scale is None else loss * scale.value
            with compiled(options.xla):
                gradients = tf.gradients(scaled, trained)
            totals[device] = add_gradients(totals.get(device), gradients)
        towers.append(tower)
        losses.append(loss)
    gradients = list(zip(unscaled(sum_over_devices(totals, trained), scale), trained, strict=True))
    begun = None
    if placement.home:
        gradients, updates, begun = after_all(gradients, updates, shared.step)
    with tf.control_dependencies(updates):
        factors = rate_factors(options, spec.net, list(ever))
        update = apply_gradients(gradients, options, factors, learning_rate, shared.step, ages=ever, scale=scale)
    correct = tf.add_n([tf.reduce_sum(tower.correct) for tower in towers])
    found = {"loss": tf.add_n(losses), "accuracy": correct / count, "gradient_norms": update.gradient_norms}
    return tuple(towers), TrainStep(
        update.operation, learning_rate=learning_rate, global_step=shared.step, trained=tuple(trained), begun=begun,
        **found,
    )  # fmt: skip


def objective(tower: Tower, options: Options, class_weights: Sequence[float] | None) -> tf.Tensor:
    """The objective of each image: float32 [batch], 0 for a FILLER. The auxiliary head has the weight 0.4, as in slim's
    script."""
    labels = tf.maximum(tower.labels, 0)
    losses = image_losses(tower.logits, labels, options.label_smoothing, class_weights)
    if tower.auxiliary_logits is not None:
        auxiliary = image_losses(tower.auxiliary_logits, labels, options.label_smoothing, class_weights)
        losses += AUXILIARY_WEIGHT * auxiliary
    return losses * no_filler(tower.labels)


def ever_trained(options: Options, trained: Sequence[tf.Variable]) -> dict[str, int]:
    """Name -> age (see `apply_gradients`) of all variables that train in some phase of the run, to which options by
    scope refer."""
    phases = parse_phases(options.unfreeze)
    return ages(phases, [variable.op.name for variable in (tf.trainable_variables() if phases else trained)])


def trained_variables(plan: Plan) -> list[tf.Variable]:
    """The variables that the optimizer changes. Raises TrainingError if the graph lacks one of the plan's."""
    wanted = {row.name for row in plan.rows if row.trainable}
    found = [variable for variable in tf.trainable_variables() if variable.op.name in wanted]
    missing = sorted(wanted - {variable.op.name for variable in found})
    if missing:
        raise TrainingError(f"the graph has no trainable variable {', '.join(missing[:5])}")
    return found


def by_name(variables: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
    """Name in a checkpoint -> variable."""
    return {variable.op.name: variable for variable in variables}


def session_config(device: str, cpus: int = 1) -> tuple[tf.ConfigProto, str]:
    """The session's configuration for auto, gpu or cpu, and a sentence on what will be used. Several CPU devices share
    the cores.

    Raises TrainingError if a GPU is required and TensorFlow sees none.
    """
    import tensorflow

    gpus = tensorflow.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise TrainingError("TensorFlow sees no GPU", advice='pip install "ckpt-tools[gpu]", or use --device cpu.')
    config = tf.ConfigProto(allow_soft_placement=True)
    config.gpu_options.allow_growth = True
    config.device_count["CPU"] = cpus
    if device == "cpu" or not gpus:
        config.device_count["GPU"] = 0
        return config, "CPU" if not gpus else f"CPU, although TensorFlow sees {len(gpus)} GPU"
    details = tensorflow.config.experimental.get_device_details(gpus[0])
    return config, f"GPU ({details.get('device_name', gpus[0].name)})"


def for_feeding(config: tf.ConfigProto) -> tf.ConfigProto:
    """The configuration of a session to which transfer values are fed.

    It disables optimizer passes that replace the shape of a tensor by a constant depending on the tensor's operation,
    since fed values would then wait for the whole backbone. Fusing of operations, which makes a net fast, stays on.
    """
    config = tf.ConfigProto.FromString(config.SerializeToString())
    passes = config.graph_options.rewrite_options
    for name in ("constant_folding", "shape_optimization", "dependency_optimization", "arithmetic_optimization"):
        setattr(passes, name, passes.OFF)
    return config


class Model(NamedTuple):
    """A graph ready for training. `inference` is the training tower itself if the two would compute the same."""

    graph: tf.Graph
    parts: tuple[Tower, ...]  # the training towers, one per part of a batch
    inference: Tower
    step: TrainStep
    initializers: Mapping[str, Callable[..., tf.Tensor]]
    training_handle: tf.Tensor | None  # of the pipeline that the towers read from; None if batches are fed
    inference_handle: tf.Tensor | None
    index: tf.Tensor  # int64 [batch]: the images that the inference tower sees

    @property
    def training(self) -> Tower:
        """The training tower of the first part, or of the whole batch on one device."""
        return self.parts[0]

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """Name in a checkpoint -> variable, for the net, the optimizer's slots, and global_step."""
        return by_name(self.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES))


def build_model(
    spec: TowerSpec,
    *,
    like: tf.data.Dataset | None = None,
    features: int | None = None,
    class_weights: Sequence[float] | None = None,
    placement: Placement = ONE_DEVICE,
    table: ValueTable | None = None,
) -> Model:
    """Builds all towers and the step in the current graph. `like` is a pipeline with the same element_spec as all later
    ones. With `features`, the number of channels that reach the head, only the head is built, and the values that reach
    it, or their rows in the `table`, are fed."""

    def read() -> tuple[tf.Tensor | None, dict[str, tf.Tensor]]:
        if like is not None:
            return read_batch(like.element_spec, placement.batches)
        assert features is not None  # one of the two is given
        several = (spec.num_classes,) if spec.options.labels_per_image == "many" else ()
        return None, fed_features(features, several, table)

    shared = Shared(tf.train.get_or_create_global_step())
    handle, batch = read()
    towers, step = build_training(spec, batch, shared, class_weights=class_weights, placement=placement)
    inference, inference_handle, index = towers[0], handle, batch["index"]
    if len(towers) > 1 or not spec.infers_as_it_trains:
        inference_handle, batch = read()
        inference, index = build_tower(spec, batch, shared, training=False), batch["index"]
    graph = tf.get_default_graph()
    return Model(graph, towers, inference, step, shared.initializers, handle, inference_handle, index)
