"""Compares reading a graph file and finding the net in it with TensorFlow's import of the same file.

    python benchmarks/bench_graph.py [FILE.meta ...] [--rounds 5]

Without files, training graphs of three nets are written first: 2,400, 7,700 and 11,100 operations, with Adam, updates
of batch norm and a Saver. Prints the median seconds of `read_graph` and `analyse`, of `tf.train.import_meta_graph` in a
process that has TensorFlow loaded, and ours for 1,000 operations.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ckpt_tools.formats.graph_file import read_graph
from ckpt_tools.graphs.analysis import analyse

NETS = ("resnet_v1_14", "resnet_v1_50", "inception_v3")


def write(name: str, path: str) -> None:
    """Writes the MetaGraph of a net in training."""
    import tensorflow.compat.v1 as tf

    from ckpt_tools.nets.graph import build_net
    from ckpt_tools.nets.layers import Mode
    from ckpt_tools.nets.registry import get_net

    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [32, 224, 224, 3], "images")
        labels = tf.placeholder(tf.int64, [32], "labels")
        built = build_net(get_net(name), images, num_classes=10, mode=Mode(lambda scope: True))
        loss = tf.losses.sparse_softmax_cross_entropy(labels, built.logits)
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            tf.train.AdamOptimizer().minimize(loss)
        tf.train.Saver().export_meta_graph(path)


def median(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def import_with_tensorflow(path: str) -> None:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        tf.train.import_meta_graph(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryDirectory() as folder:
        files = args.files or [str(Path(folder) / f"{name}.meta") for name in NETS]
        for name, path in zip(NETS, () if args.files else files, strict=False):
            write(name, path)
        print(f"{'file':<24}{'operations':>11}{'read':>9}{'analyse':>9}{'TensorFlow':>12}{'ours for 1,000':>16}")
        for path in files:
            file = read_graph(path)
            read = median(lambda path=path: read_graph(path), args.rounds)
            found = median(lambda file=file: analyse(file), args.rounds)
            peer = median(lambda path=path: import_with_tensorflow(path), args.rounds)
            each = (read + found) / len(file.nodes) * 1000
            name = Path(path).stem
            print(f"{name:<24}{len(file.nodes):>11,}{read:>7.3f} s{found:>7.3f} s{peer:>10.2f} s{each:>14.3f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
