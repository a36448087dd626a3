"""Runs one of our nets on given values, for comparisons with other libraries."""

import numpy as np

from ckpt_tools import from_arrays
from ckpt_tools.layouts import recognise, to_slim
from ckpt_tools.nets.registry import NETS, get_net
from ckpt_tools.surgery import operate

CLASSES = 7
NEW_HEAD = ("--exclude", "Logits", "--trainable", "Logits", "--steps", "20", "--image-size", "96")


def images(side, count=2):
    return np.random.default_rng(1).uniform(-1, 1, (count, side, side, 3)).astype(np.float32)


def values(name, shape, random):
    """Weights and statistics of a layer such that what goes through it keeps its size; `name` is any library's."""
    last = name.replace("/", ".").rpartition(".")[2]
    if last == "num_batches_tracked":
        return np.int64(0)
    if last in ("moving_variance", "running_var", "gamma") or (last == "weight" and len(shape) == 1):
        # What ends a unit of a ResNet, which grows from unit to unit else.
        ends_unit = ("block" in name and "_3_bn/gamma" in name) or name.endswith("bn3.weight")
        return (random.uniform(0.8, 1.2, shape) * (0.2 if ends_unit else 1)).astype(np.float32)
    if len(shape) < 2:
        return random.normal(0, 0.1, shape).astype(np.float32)
    if last == "weight":  # torch: [out, in, height, width]
        inputs = np.prod(shape[1:])
    else:
        inputs = np.prod(shape[:2]) if shape[-1] == 1 else np.prod(shape[:-1])  # of a depthwise convolution, or not
    return random.normal(0, np.sqrt(2 / inputs), shape).astype(np.float32)


def as_slims(arrays):
    """Our net with what is known of it, and its values, from those of another library."""
    tensors = from_arrays(arrays)
    found = recognise(tensors.specs(), NETS.values())
    assert not found.others
    return found, operate(tensors, to_slim(found)).tensors


def logits(name, tensors, fed):
    import tensorflow.compat.v1 as tf

    from ckpt_tools.nets.graph import build_net

    with tf.Graph().as_default():
        pixels = tf.placeholder(tf.float32, fed.shape)
        built = build_net(get_net(name), pixels, num_classes=CLASSES)
        given = [variable for variable in built.variables if variable.op.name in tensors]
        feed = {variable.initializer.inputs[1]: tensors[variable.op.name].load() for variable in given}
        with tf.Session() as session:
            session.run([variable.initializer for variable in given], feed)
            return session.run(built.logits, {pixels: fed})


def distance(a, b):
    """The largest difference, in parts of the largest value; the two images must not give the same."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert np.abs(b).max() > 0.1 and np.abs(b[0] - b[1]).max() > 1e-3 * np.abs(b).max()
    return np.abs(a - b).max() / np.abs(b).max()


def write_photos(folder, labels, count=6):
    from PIL import Image

    random = np.random.default_rng(2)
    for number, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(80 * number, 80 * number + 60, (96, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")


def pixels_of(files, run):
    """The photos as a run's net sees them, [n, side, side, 3]."""
    import tensorflow as tf

    from ckpt_tools.train.data.preprocess import prepare
    from ckpt_tools.train.use.classifier import SourceOptions, load_classifier

    how = load_classifier(SourceOptions(train_dir=run)).preprocessing
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        return session.run(tf.stack([prepare(tf.io.decode_png(tf.io.read_file(file), 3), how) for file in files]))
