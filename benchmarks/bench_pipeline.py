"""Compares the input pipeline, with each augmentation, with the training steps that it has to feed.

    python benchmarks/bench_pipeline.py [--images 512] [--rounds 3] [--steps 3] [--scopes head,upper,whole]

The pipeline of ckpt-finetune reads JPEG files of 500 x 375 pixels from disk, decodes them, resizes them to 299 pixels
and applies `--augment`, in batches of 32. The pipelines take turns, so that other load on the machine affects all of
them; the best turn of each counts. `a core` is the number of images per second of one core's time. The steps are those
of bench_step.py: InceptionV3 on a batch in memory. The last line tells if an augmentation is slower than the fastest
step that it may have to feed."""

import argparse
import os
import tempfile
import time
from pathlib import Path

from bench_features import BATCH, photos  # imports TensorFlow silently
from bench_step import SCOPES, images_per_second

import tensorflow.compat.v1 as tf  # isort: skip

from ckpt_tools.train.data.augment import AUGMENTATIONS
from ckpt_tools.train.data.loading import load_data_set
from ckpt_tools.train.data.pipeline import make_batches
from ckpt_tools.train.data.preprocess import Preprocessing

SIZE = 299
TOGETHER = ("crop", "flip", "shift", "rotation", "shear", "zoom", "colour")
CASES = {"none": (), **{name: (name,) for name in AUGMENTATIONS}, "all but slim": TOGETHER}


def write_photos(folder, count):
    """Writes `count` JPEG files in two class folders."""
    examples = photos(count)
    for number in range(count):
        place = folder / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(examples.read(number))
    return folder


def start(examples, augment):
    """A function that makes a number of batches, and returns images per second and per core-second."""
    with tf.Graph().as_default() as graph:
        how = Preprocessing("inception", SIZE, augment=augment)
        made = make_batches(examples, how, batch_size=BATCH, training=True)
        index = tf.data.make_one_shot_iterator(made).get_next()["index"]
    session = tf.Session(graph=graph)

    def turn(batches):
        session.run(index)  # fills the prefetch buffers
        began, worked = time.monotonic(), time.process_time()
        count = sum(len(session.run(index)) for _ in range(batches))
        return count / (time.monotonic() - began), count / (time.process_time() - worked)

    return session, turn


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512, help="in each turn of each augmentation")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="training steps in each turn of bench_step.py")
    parser.add_argument("--scopes", default="head,upper,whole")
    arguments = parser.parse_args()
    best = dict.fromkeys(CASES, (0.0, 0.0))
    print(f"JPEG of 500 x 375 to {SIZE} pixels, batch {BATCH}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        data = load_data_set(str(write_photos(Path(name) / "photos", 320)), validation_fraction=0.2, seed=0)
        for _ in range(arguments.rounds):
            for augmentation, steps in CASES.items():
                session, turn = start(data.train, steps)
                with session:
                    found = turn(arguments.images // BATCH)
                best[augmentation] = tuple(map(max, best[augmentation], found))
    for augmentation, (speed, of_a_core) in best.items():
        print(f"{augmentation:<13} {speed:7.1f} images/s, {of_a_core:6.1f} a core", flush=True)
    slowest = min(best, key=lambda name: best[name][0])
    facts = argparse.Namespace(batch=BATCH, size=SIZE, steps=arguments.steps)
    trained = {}
    for scope in arguments.scopes.split(","):
        trained[scope] = max(images_per_second("ours", SCOPES[scope], facts) for _ in range(arguments.rounds))
        least, most = (trained[scope] / best[name][1] for name in ("none", slowest))
        print(f"step, {scope:<7} {trained[scope]:7.1f} images/s; {least:.2f} to {most:.2f} cores feed it", flush=True)
    fastest = max(trained, key=trained.get)
    ratio = best[slowest][0] / trained[fastest]
    verdict = "the pipeline is never the bottleneck" if ratio >= 1 else "HERE THE PIPELINE IS THE BOTTLENECK"
    print(f"slowest pipeline ({slowest}) : fastest step ({fastest}) = {ratio:.1f}: {verdict}")


if __name__ == "__main__":
    main()
