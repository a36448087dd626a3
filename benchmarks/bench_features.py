"""Compares computing transfer values of photos with a bare forward pass, Keras and OpenVINO: images per second.

    python benchmarks/bench_features.py CHECKPOINT [--images 256] [--rounds 3] [--batch 32]
        [--contestants "bare float32,bare bfloat16,ours float32,ours auto,keras,openvino bfloat16,pipeline"]

The input are JPEG files of 500 x 375 pixels in memory, resized to the net's size. `ours` is the loop of ckpt-features,
from the bytes of a file to values in memory; `bare` is a forward pass of the same graph on one batch that is already
decoded and on the device; `keras` is `predict` of Keras' own InceptionV3, which has the same layers, on a tf.data
pipeline of the same files; `openvino` is the frozen graph compiled by OpenVINO for this CPU, on decoded images;
`pipeline` is only decoding and resizing. All are prepared first and then take turns in one process, so that other load
on the machine affects all of them; the best turn of each counts, and processor time shows the effect of other load.
"""

import argparse
import io
import os
import threading
import time
from unittest import mock

import numpy as np
from PIL import Image

from ckpt_tools.train.graph.quiet import hush_tensorflow

os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
hush_tensorflow()
import tensorflow.compat.v1 as tf  # noqa: E402

from ckpt_tools.nets.graph import build_net  # noqa: E402
from ckpt_tools.train.data.examples import Examples  # noqa: E402
from ckpt_tools.train.data.pipeline import make_batches  # noqa: E402
from ckpt_tools.train.graph import extraction  # noqa: E402
from ckpt_tools.train.graph.batches import ahead_of, until_the_end  # noqa: E402
from ckpt_tools.train.graph.devices import device_of_batches  # noqa: E402
from ckpt_tools.train.graph.native import native  # noqa: E402
from ckpt_tools.train.use.classifier import SourceOptions, load_classifier  # noqa: E402
from ckpt_tools.train.use.running import Wanted, restore_variables, run_on  # noqa: E402

CONTESTANTS = "bare float32,bare bfloat16,ours float32,ours auto,keras,openvino bfloat16,pipeline"
BATCH = 32
ENDLESS = 10**6  # images


def photos(count):
    """JPEG files of smooth noise, about as large as photos of this size (40 kB)."""
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


# Each contestant returns a function that processes a given number of batches.


def ours(classifier, precision, batch):
    """The loop of ckpt-features. It computes batches ahead, so each turn allows only its number of batches, and none
    are computed during the turns of others."""
    precision = native("auto") or "float32" if precision == "auto" else precision
    allowed = threading.Semaphore(0)

    def in_turns(run, at_once):
        def allowed_run():
            allowed.acquire()
            return run()

        return until_the_end(allowed_run, at_once)

    def work(number):
        allowed.release(number)
        return [next(following) for _ in range(number)]

    make = lambda images: Wanted({"values": build_net(classifier.net, images, num_classes=None).features})  # noqa: E731
    following = run_on(classifier, photos(ENDLESS), make, title="features", batch_size=batch, precision=precision)
    with mock.patch.object(extraction, "until_the_end", in_turns):
        work(1)
    return work


def bare(classifier, precision, batch):
    """A forward pass on the same batch on the device, repeatedly."""
    side = classifier.preprocessing.image_size
    with tf.Graph().as_default() as graph:
        memory = tf.Variable(np.random.default_rng(0).uniform(-1, 1, (batch, side, side, 3)).astype(np.float32))
        features = build_net(classifier.net, tf.cast(memory.read_value(), precision), num_classes=None).features
        session = tf.Session(graph=graph)
        restore_variables(session, classifier, [name for name in classifier.tensors if "/Aux" not in name])
        session.run(memory.initializer)
    return lambda batches: [session.run(features) for _ in range(batches)]


def pipeline(classifier, _, batch):
    """Decoding and resizing, without a net."""
    with tf.Graph().as_default() as graph:
        made = make_batches(photos(ENDLESS), classifier.preprocessing, batch_size=batch, training=False)
        place = device_of_batches("auto")
        with tf.device(place or "/cpu:0"):
            iterator = tf.data.make_initializable_iterator(ahead_of(made, place))
            index = iterator.get_next()["index"]
    session = tf.Session(graph=graph)

    def work(batches):
        session.run(iterator.initializer)  # batches made before its turn do not count
        return [session.run(index) for _ in range(batches)]

    return work


def keras(classifier, _, batch):
    """Keras' InceptionV3 with random weights, which do not affect the time."""
    import keras
    import tensorflow

    side = classifier.preprocessing.image_size
    model = keras.applications.InceptionV3(weights=None, include_top=False, pooling="avg", input_shape=(side, side, 3))
    held = photos(32)
    files = tensorflow.data.Dataset.from_tensor_slices([held.read(i) for i in range(32)]).repeat()

    def decoded(file):
        pixels = tensorflow.io.decode_jpeg(file, channels=3)
        return tensorflow.image.resize(pixels, (side, side)) / 127.5 - 1

    images = files.map(decoded, num_parallel_calls=tensorflow.data.AUTOTUNE).batch(batch)
    return lambda batches: model.predict(images.take(batches).prefetch(tensorflow.data.AUTOTUNE), verbose=0)


def openvino(classifier, precision, batch):
    """The graph with its weights as constants, compiled for throughput."""
    import openvino

    side = classifier.preprocessing.image_size
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, [batch, side, side, 3])
        features = build_net(classifier.net, images, num_classes=None).features
        session = tf.Session(graph=graph)
        restore_variables(session, classifier, [name for name in classifier.tensors if "/Aux" not in name])
        frozen = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), [features.op.name])
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
    hints = {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision]}
    hints["PERFORMANCE_HINT"] = "THROUGHPUT"
    compiled = openvino.compile_model(openvino.convert_model(graph), "CPU", hints)
    values = np.random.default_rng(0).uniform(-1, 1, (batch, side, side, 3)).astype(np.float32)
    queue = openvino.AsyncInferQueue(compiled)

    def work(batches):
        for _ in range(batches):
            queue.start_async([values])
        queue.wait_all()

    return work


KINDS = {"ours": ours, "bare": bare, "pipeline": pipeline, "keras": keras, "openvino": openvino}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--images", type=int, default=256, help="in each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--contestants", default=CONTESTANTS)
    arguments = parser.parse_args()
    classifier, ready = load_classifier(SourceOptions(checkpoint=arguments.checkpoint), head=False), {}
    for name in arguments.contestants.split(","):
        kind, _, precision = name.partition(" ")
        try:
            ready[name] = KINDS[kind](classifier, precision, arguments.batch)
            ready[name](2)
        except ModuleNotFoundError as error:
            print(f"{name:<20} left out: {error.name} is not installed", flush=True)
    batches = max(1, arguments.images // arguments.batch)
    means = dict.fromkeys(ready, 0.0)
    best = dict.fromkeys(ready, (0.0, 0.0))
    for _ in range(arguments.rounds):
        for name, turn in ready.items():
            began, worked = time.monotonic(), time.process_time()
            turn(batches)
            took, worked = time.monotonic() - began, time.process_time() - worked
            means[name] += batches * arguments.batch / took / arguments.rounds
            best[name] = tuple(
                map(max, best[name], (batches * arguments.batch / took, batches * arguments.batch / worked))
            )
    print(
        f"batches of {arguments.batch}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; native {native('auto')}"
    )
    ours_best = max((speed for name, (speed, _) in best.items() if name.startswith("ours")), default=0)
    for name, (speed, of_a_core) in best.items():
        ratio = f"; ours at best {ours_best / speed:5.2f} times" if not name.startswith("ours") else ""
        line = (
            f"{name:<20} {speed:8.1f} images/s (mean {means[name]:.1f}), {of_a_core:7.1f} in a second of processor time"
        )
        print(line + ratio, flush=True)
    os._exit(0)  # the threads of `ours` still wait for another turn


if __name__ == "__main__":
    main()
