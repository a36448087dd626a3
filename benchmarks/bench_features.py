"""Extraction of transfer values, against the bare forward pass of the same net on images already in memory.

    python benchmarks/bench_features.py CHECKPOINT [IMAGES]

JPEG files of 500 x 375 pixels, at the net's own size, batches of 32. The two take turns, so that another load on the
machine hits both; the best turn of each counts, and processor time says what would be left without that load. Building
the graph and restoring are left out on both sides. Then the input pipeline alone.
"""

import io
import sys
import time

import numpy as np
from PIL import Image

from ckpt_tools.train.quiet import hush_tensorflow

hush_tensorflow()
import tensorflow.compat.v1 as tf  # noqa: E402

from ckpt_tools.nets.graph import build_net  # noqa: E402
from ckpt_tools.train.examples import Examples  # noqa: E402
from ckpt_tools.train.inference import open_classifier, restore  # noqa: E402
from ckpt_tools.train.pipeline import make_batches  # noqa: E402

BATCH, TURNS = 32, 3


def photos(count):
    """JPEG files, about as large as photos of that size are (40 kB): smooth noise."""
    random, held = np.random.default_rng(0), []
    for _ in range(min(count, 32)):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((500, 375), Image.BICUBIC).save(buffer, "JPEG", quality=92)
        held.append(buffer.getvalue())
    return Examples(
        np.zeros(count, np.int32),
        tuple(map(str, range(count))),
        (len(held[0]),) * count,
        lambda i: held[i % len(held)],
    )


def each(session, fetch, batches, feed=None):
    """Seconds and processor seconds an image."""
    began, worked = time.monotonic(), time.process_time()
    for _ in range(batches):
        session.run(fetch, feed)
    return (time.monotonic() - began) / batches / BATCH, (time.process_time() - worked) / batches / BATCH


def main():
    classifier = open_classifier(sys.argv[1], head=False)
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 512
    steps = count // BATCH
    with tf.Graph().as_default(), tf.Session() as session:
        examples = photos(BATCH * (steps * TURNS * 2 + 8 * TURNS))
        made = make_batches(examples, classifier.preprocessing, batch_size=BATCH, training=False)
        alone = tf.data.make_one_shot_iterator(made).get_next()["image"]
        following = tf.data.make_one_shot_iterator(made).get_next()["image"]
        side = classifier.preprocessing.image_size
        images = tf.placeholder_with_default(following, [None, side, side, 3])
        features = build_net(classifier.net, images, num_classes=None).features
        restore(session, classifier)
        memory = tf.Variable(np.random.default_rng(0).uniform(-1, 1, (BATCH, side, side, 3)).astype(np.float32))
        with tf.variable_scope("", reuse=True):
            bare = build_net(classifier.net, memory.read_value(), num_classes=None).features
        session.run(memory.initializer)
        taken = {"bare forward pass": [], "extraction": []}
        session.run([features.op, bare.op])
        for _ in range(TURNS):
            taken["bare forward pass"].append(each(session, bare, steps))
            taken["extraction"].append(each(session, features, steps))
        pipeline = each(session, alone, steps)
    for name, turns in {**taken, "input pipeline": [pipeline]}.items():
        seconds, worked = (min(part) for part in zip(*turns, strict=True))
        print(f"{name:<18} {1 / seconds:7.1f} images/s, {worked * 1e3:6.1f} ms of processor time an image")
    ratios = [min(t[i] for t in taken["extraction"]) / min(t[i] for t in taken["bare forward pass"]) for i in (0, 1)]
    print(f"extraction takes {ratios[0]:.3f} times the bare pass, {ratios[1]:.3f} times its processor time")


if __name__ == "__main__":
    main()
