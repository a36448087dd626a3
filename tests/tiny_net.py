"""A net of 3,000 parameters in slim's style for tests, registered under the name `tiny` on import.

Run as a script, it is `ckpt-finetune` with that net. KILL_AT=STEP in the environment makes the process kill itself, or
the process KILL_PID, with SIGKILL after that step, like a lost machine. KILL_BEFORE=N and KILL_IN=FOLDER kill it right
before it changes a file there for the N-th time.
"""

import os
import signal
import sys

from ckpt_tools.nets import registry
from ckpt_tools.nets.net import Net, TableRow

SCOPE = "Tiny"
BLOCKS = {"Conv_1": (3, 8), "Conv_2": (8, 16), "Conv_3": (16, 16)}


def tiny(images, num_classes=10, is_training=True, dropout_keep_prob=0.8, spatial_squeeze=True, scope=SCOPE):
    """Three convolutions with batch norm, the mean over the map, dropout, a 1 x 1 convolution to the classes."""
    import tensorflow.compat.v1 as tf
    from tf_slim import layers

    end_points = {}
    with tf.variable_scope(scope, "Tiny", [images]):
        net = images
        for name, (_, channels) in BLOCKS.items():
            net = layers.conv2d(net, channels, [3, 3], stride=2, normalizer_fn=layers.batch_norm, scope=name)
            end_points[name] = net
        with tf.variable_scope("Logits"):
            net = tf.reduce_mean(net, [1, 2], keepdims=True, name="pool")
            net = layers.dropout(net, keep_prob=dropout_keep_prob, is_training=is_training, scope="Dropout_1b")
            net = layers.conv2d(net, num_classes, [1, 1], activation_fn=None, normalizer_fn=None, scope="Conv2d_1c_1x1")
        end_points["Logits"] = net
    return net, end_points


def tiny_arg_scope(weight_decay=0.0):
    from tf_slim import arg_scope, layers

    with arg_scope([layers.conv2d], padding="SAME") as scope:
        return scope


def register() -> None:
    """Makes `--net tiny` and the recognition of its checkpoints work in this process."""
    rows = []
    for name, (before, channels) in BLOCKS.items():
        rows.append(TableRow(f"{SCOPE}/{name}/weights", (3, 3, before, channels), True))
        rows.append(TableRow(f"{SCOPE}/{name}/BatchNorm/beta", (channels,), True))
        rows.append(TableRow(f"{SCOPE}/{name}/BatchNorm/moving_mean", (channels,), False))
        rows.append(TableRow(f"{SCOPE}/{name}/BatchNorm/moving_variance", (channels,), False))
    rows.append(TableRow(f"{SCOPE}/Logits/Conv2d_1c_1x1/weights", (1, 1, 16, -1), True))
    rows.append(TableRow(f"{SCOPE}/Logits/Conv2d_1c_1x1/biases", (-1,), True))
    registry.register(
        Net(
            name="tiny",
            title="Tiny",
            scope=SCOPE,
            landmark="Conv_1/weights",
            builder=tiny,
            image_size=32,
            preprocessing="inception",
            head="Logits",
            last_layer="Logits/Conv2d_1c_1x1",
            classes=10,
            class_offset=0,
            rows=tuple(rows),
            points=(*((name, 4 * (i + 1)) for i, name in enumerate(BLOCKS)), ("Logits", len(rows))),
        )
    )


def write_source(path, classes=10, seed=0):
    """A checkpoint of the net with random values under its names; returns `path`."""
    import numpy as np

    from ckpt_tools import from_arrays, save_checkpoint

    random = np.random.default_rng(seed)
    arrays = {}
    for row in registry.NETS["tiny"].table:
        shape = row.shape_for(classes)
        values = random.normal(0.0, 0.3, shape).astype(np.float32)
        arrays[row.name] = np.abs(values) + 0.5 if row.name.endswith("variance") else values
    save_checkpoint(from_arrays(arrays), path, format="v2")
    return str(path)


def write_photos(folder, classes=("cat", "dog", "frog"), train=14, validation=6, seed=1):
    """PNG files of 32 x 32 pixels in class folders; the classes differ in colour, so that they can be learnt."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    for number, label in enumerate(classes):
        for split, count in (("train", train), ("validation", validation)):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 120, (32, 32, 3), dtype=np.uint8)
                pixels[..., number % 3] += 100
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return str(folder)


def write_job(folder, **others):
    """Writes a source and photos to `folder`; the options of a run with a new head on them, with `others` besides."""
    return {
        "net": "tiny",
        "checkpoint": write_source(folder / "source.ckpt"),
        "data": write_photos(folder / "photos"),
        "exclude": ("Logits",),
        "batch_size": 8,
        "device": "cpu",
        "cache_dir": str(folder / "cache"),
        **others,
    }


register()

if __name__ == "__main__":
    from file_operations import kill_before
    from telling import at_step

    from ckpt_tools.cli.events import Printer
    from ckpt_tools.cli.finetune import main

    on_event = Printer()

    if "KILL_IN" in os.environ:
        kill_before(int(os.environ["KILL_BEFORE"]), os.environ["KILL_IN"])
    if "KILL_AT" in os.environ:
        victim = int(os.environ.get("KILL_PID", os.getpid()))
        on_event = at_step(int(os.environ["KILL_AT"]), lambda: os.kill(victim, signal.SIGKILL), on_event)
    sys.exit(main(sys.argv[1:], on_event=on_event))
