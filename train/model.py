"""The graph that is trained: a net on a batch, its loss, and the operation of one step.

A tower is the net on one batch. The training tower has dropout and training-mode batch norm where the plan says so;
the inference tower shares its variables and has neither. Both are in one graph, under the name scopes `training/` and
`inference/`, so that a tensor of one is found in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from ..errors import TrainingError
from ..nets.graph import build_net
from ..nets.head import Dropout, Head
from ..nets.net import Net
from ..plan import Plan
from .batches import read_batch
from .objective import image_losses
from .options import Options
from .update import apply_gradients, rate_factors, weight_penalty

TRAINING, INFERENCE = "training", "inference"


class Tower(NamedTuple):
    """The net on a batch: images float32 [batch, height, width, 3], logits float32 [batch, classes], others [batch]."""

    images: tf.Tensor
    labels: tf.Tensor
    logits: tf.Tensor
    losses: tf.Tensor  # cross-entropy of each image
    correct: tf.Tensor  # bool
    end_points: Mapping[str, tf.Tensor]
    features: tf.Tensor  # [batch, channels]: the transfer values, what reaches the head


class Step(NamedTuple):
    """One training step: run `train` with `learning_rate` fed. `loss` and `correct` are those of its batch."""

    train: tf.Operation
    loss: tf.Tensor  # mean objective of the images, and weight decay
    accuracy: tf.Tensor  # share of its images that were classified rightly
    learning_rate: tf.Tensor
    global_step: tf.Variable
    gradient_norms: tf.Tensor  # [variables], before clipping
    trained: tuple[tf.Variable, ...]


@dataclass
class Variables:
    """What the graph's variables are started with: slim's initializer of each, as the layers asked for them."""

    initializers: dict[str, Callable] = field(default_factory=dict)

    def remember(self, getter: Callable, name: str, *args: object, **how: object) -> tf.Variable:
        """A custom getter for tf.variable_scope: notes the initializer and makes the variable as it would be made."""
        if callable(how.get("initializer")):
            self.initializers.setdefault(name, how["initializer"])
        return getter(name, *args, **how)


def build_tower(
    net: Net, batch: Mapping[str, tf.Tensor], plan: Plan, options: Options, *, num_classes: int, head: Head,
    training: bool, variables: Variables, step: tf.Variable,
) -> Tower:  # fmt: skip
    """Builds the net on `batch` ("image", "label"); a second tower takes the variables of the first."""
    name = TRAINING if training else INFERENCE
    exists = bool(tf.get_collection(tf.GraphKeys.MODEL_VARIABLES))
    scope = tf.variable_scope(tf.get_variable_scope(), reuse=exists, custom_getter=variables.remember)
    with tf.name_scope(name), scope:
        drops = training and has_dropout(head)
        built = build_net(
            net, batch["image"],
            num_classes=num_classes,
            trains_batch_norm=lambda layer: training and plan.batch_norm.get(layer, "frozen") != "frozen",
            batch_norm_decay=options.batch_norm_decay,
            dropout_seed=tf.stack([tf.constant(options.seed, tf.int64), step.read_value()]) if drops else None,
            weight_decay=0.0,
            head=head,
        )  # fmt: skip
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=batch["label"], logits=built.logits)
        correct = tf.equal(tf.argmax(built.logits, axis=1, output_type=tf.int32), batch["label"])
    return Tower(batch["image"], batch["label"], built.logits, losses, correct, built.end_points, built.features)


def build_step(
    tower: Tower, net: Net, plan: Plan, options: Options, step: tf.Variable, class_weights: Sequence[float] | None
) -> Step:
    """Adds the objective, gradients, the optimizer and the updates of the batch norms that train."""
    wanted = {row.name for row in plan.rows if row.trainable}
    trainable = [variable for variable in tf.trainable_variables() if variable.op.name in wanted]
    if {variable.op.name for variable in trainable} != wanted:
        missing = sorted(wanted - {variable.op.name for variable in trainable})
        raise TrainingError(f"the graph has no trainable variable {', '.join(missing[:5])}")
    with tf.name_scope(TRAINING):
        learning_rate = tf.placeholder(tf.float32, [], name="learning_rate")
        loss = tf.reduce_mean(image_losses(tower.logits, tower.labels, options, class_weights), name="objective")
        penalty = weight_penalty(options, trainable)
        if penalty is not None:
            loss += penalty
        accuracy = tf.reduce_mean(tf.cast(tower.correct, tf.float32))
    gradients = list(zip(tf.gradients(loss, trainable), trainable, strict=True))
    # The updates of this tower only: another tower of the graph has none, since it runs in inference mode.
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        factors = rate_factors(options, net, [variable.op.name for variable in trainable])
        update = apply_gradients(gradients, options, factors, learning_rate, step)
    return Step(update.operation, loss, accuracy, learning_rate, step, update.gradient_norms, tuple(trainable))


def has_dropout(head: Head) -> bool:
    """Whether the head drops anything while it trains."""
    return any(isinstance(layer, Dropout) and layer.rate > 0 for layer in head.layers)


def by_name(variables: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
    """Name in a checkpoint -> variable."""
    return {variable.op.name: variable for variable in variables}


def session_config(device: str) -> tuple[tf.ConfigProto, str]:
    """The session's configuration for auto, gpu or cpu, and a sentence that says what will be used.

    Raises TrainingError when a GPU is asked for and TensorFlow sees none.
    """
    import tensorflow

    gpus = tensorflow.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise TrainingError("TensorFlow sees no GPU", advice='pip install "ckpt-tools[gpu]", or use --device cpu.')
    config = tf.ConfigProto(allow_soft_placement=True)
    config.gpu_options.allow_growth = True
    # These passes replace the shape of a tensor by a constant that waits for the operation that makes the tensor. Fed
    # transfer values would then wait for the whole backbone. What makes the net fast, the fusing of operations, stays.
    passes = config.graph_options.rewrite_options
    for name in ("constant_folding", "shape_optimization", "dependency_optimization", "arithmetic_optimization"):
        setattr(passes, name, passes.OFF)
    if device == "cpu" or not gpus:
        config.device_count["GPU"] = 0
        return config, "CPU" if not gpus else f"CPU, although TensorFlow sees {len(gpus)} GPU"
    details = tensorflow.config.experimental.get_device_details(gpus[0])
    return config, f"GPU ({details.get('device_name', gpus[0].name)})"


class Model(NamedTuple):
    """A graph ready to be trained. `training` and `inference` are the same tower when nothing tells them apart."""

    graph: tf.Graph
    training: Tower
    inference: Tower
    step: Step
    initializers: Mapping[str, Callable]
    training_handle: tf.Tensor  # of the pipeline that each tower reads from
    inference_handle: tf.Tensor
    index: tf.Tensor  # int64 [batch]: which images the inference tower sees

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """Name in a checkpoint -> variable: those of the net, the optimizer's slots, global_step."""
        return by_name(self.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES))


def build_model(
    net: Net,
    plan: Plan,
    options: Options,
    *,
    num_classes: int,
    head: Head,
    like: tf.data.Dataset,
    class_weights: Sequence[float] | None = None,
) -> Model:
    """Builds both towers and the step in the current graph. `like` is a pipeline whose batches look as all will."""
    variables, global_step = Variables(), tf.train.get_or_create_global_step()
    towers, handles, batches = [], [], []
    differ = has_dropout(head) or any(mode != "frozen" for mode in plan.batch_norm.values())
    for training in (True, False) if differ else (True,):
        handle, batch = read_batch(like)
        handles.append(handle)
        batches.append(batch)
        towers.append(
            build_tower(
                net, batch, plan, options, num_classes=num_classes, head=head, training=training,
                variables=variables, step=global_step,
            )
        )  # fmt: skip
    step = build_step(towers[0], net, plan, options, global_step, class_weights)
    graph = tf.get_default_graph()
    index = batches[-1]["index"]
    return Model(graph, towers[0], towers[-1], step, variables.initializers, handles[0], handles[-1], index)
