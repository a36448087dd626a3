"""Compares a training step of InceptionV3 with slim's script, Keras and PyTorch: images per second.

    python benchmarks/bench_step.py [--batch 32] [--size 299] [--steps 3] [--rounds 3] [--peers slim,keras,torch]
    python benchmarks/bench_step.py --scopes whole --peers "" --variants bfloat16,float16,xla,bfloat16+xla
    python benchmarks/bench_step.py --scopes head,whole --peers "" --variants graph,frozen

Each contestant has its own process, which holds its batch in memory, on the GPU if there is one; they take turns, and
the best turn of each counts. With --together all start at once, build their graphs, and then wait for their turns, on a
machine with spare cores and a GPU that each then has for itself. `slim` is the loop of slim's
train_image_classifier.py: is_training=True everywhere and create_train_op(variables_to_train=...). It needs tf-keras,
where slim looks for its batch norm; `torch` needs torch and torchvision. Peers that are not installed are left out.
Variants are our own step with another --precision or --xla; `graph` is the same net from the MetaGraph of a training
script, whose batch norms stay frozen, like those of `frozen`."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

SCOPES = {"head": "Logits", "upper": "Mixed_7c,Logits", "whole": "**"}

OURS = """
from ckpt_tools.train.graph.quiet import hush_tensorflow
hush_tensorflow()
import tensorflow.compat.v1 as tf
from ckpt_tools.nets.graph import build_net
from ckpt_tools.nets.layers import Mode
from ckpt_tools.nets.registry import get_net
from ckpt_tools.plan import PlanRules, make_plan
from ckpt_tools.train.graph.towers import session_config
from ckpt_tools.train.graph.objective import image_losses
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.graph.precision import compiled, make_loss_scale, unscaled
from ckpt_tools.train.graph.update import apply_gradients, weight_penalty
net = get_net("inception_v3")
if "graph" in VARIANT:
    import tempfile
    from ckpt_tools.nets.from_graph import net_from, open_graph
    with tf.Graph().as_default(), tempfile.TemporaryDirectory() as folder:
        logits = build_net(net, tf.placeholder(tf.float32, images.shape), num_classes=10,
                           mode=Mode(lambda layer: True)).logits
        loss = tf.losses.sparse_softmax_cross_entropy(tf.zeros(labels.shape, tf.int64), logits)
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
        tf.train.export_meta_graph(folder + "/model.meta")
        net = net_from(open_graph(folder + "/model.meta"))
plan = make_plan({}, net.variables(10), PlanRules(exclude=["**"], trainable=[SCOPE]))
kinds = [kind for kind in VARIANT.split("+") if kind not in ("", "xla", "graph", "frozen")]
options = Options(optimizer="momentum", precision=(kinds or ["float32"])[0], xla="xla" in VARIANT)
graph = tf.Graph()
with graph.as_default():
    step = tf.train.get_or_create_global_step()
    x, y = tf.constant(images), tf.constant(labels)
    trains = lambda layer: "frozen" not in VARIANT and plan.batch_norm.get(layer, "frozen") != "frozen"
    how = {"num_classes": 10, "mode": Mode(trains, 0.99)}
    with compiled(options.xla):
        built = build_net(net, tf.cast(x, options.precision), **how)
    wanted = {row.name for row in plan.rows if row.trainable}
    variables = [v for v in tf.trainable_variables() if v.op.name in wanted]
    loss = tf.reduce_mean(image_losses(built.logits, y)) + weight_penalty(options, variables)
    scale = make_loss_scale(options.precision)
    with compiled(options.xla):
        found = tf.gradients(loss if scale is None else loss * scale.value, variables)
    gradients = list(zip(unscaled(found, scale), variables))
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train = apply_gradients(gradients, options, {}, tf.constant(0.001), step, scale=scale).operation
    session = tf.Session(config=session_config("auto")[0])
    session.run(tf.global_variables_initializer())
run = lambda: session.run(train)
"""

SLIM = """
import importlib, sys
import tf_keras.src.legacy_tf_layers as legacy
sys.modules["tf_keras.legacy_tf_layers"] = legacy
for name in ("base", "convolutional", "core", "normalization", "pooling"):
    sys.modules[f"tf_keras.legacy_tf_layers.{name}"] = importlib.import_module(f"tf_keras.src.legacy_tf_layers.{name}")
import tensorflow.compat.v1 as tf
tf.disable_eager_execution()
tf.logging.set_verbosity(tf.logging.ERROR)
import tf_slim as slim
from tf_slim.nets import inception
scopes = [f"InceptionV3/{part}" for part in SCOPE.split(",") if part != "**"]
with slim.arg_scope(inception.inception_v3_arg_scope()):
    logits, _ = inception.inception_v3(tf.constant(images), 10, is_training=True, create_aux_logits=False)
tf.losses.sparse_softmax_cross_entropy(tf.constant(labels), logits)
variables = [v for v in tf.trainable_variables() if not scopes or v.op.name.startswith(tuple(scopes))]
optimizer = tf.train.MomentumOptimizer(0.001, 0.9)
train = slim.learning.create_train_op(tf.losses.get_total_loss(), optimizer, variables_to_train=variables)
session = tf.Session()
session.run(tf.global_variables_initializer())
run = lambda: session.run(train)
"""

KERAS = """
import keras, tensorflow as tf
model = keras.applications.InceptionV3(weights=None, classes=10, input_shape=images.shape[1:])
for layer in model.layers:
    layer.trainable = SCOPE == "**"
model.layers[-1].trainable = True
model.compile(keras.optimizers.SGD(0.001, 0.9), "sparse_categorical_crossentropy")
x, y = tf.constant(images), tf.constant(labels)
run = lambda: model.train_on_batch(x, y)
"""

TORCH = """
import torch, torchvision
model = torchvision.models.inception_v3(weights=None, num_classes=10, aux_logits=False, init_weights=False)
for parameter in model.parameters():
    parameter.requires_grad = SCOPE == "**"
model.fc.requires_grad_(True)
model.train() if SCOPE == "**" else model.eval()
device = "cuda" if torch.cuda.is_available() else "cpu"
model.to(device)
x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)
y = torch.from_numpy(labels).long().to(device)
optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.001, 0.9)
def run():
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    loss.item()  # waits for a GPU
"""

FRAME = """
import fcntl, time, numpy as np
random = np.random.default_rng(0)
images = random.random(({batch}, {size}, {size}, 3), dtype=np.float32) * 2 - 1
labels = random.integers(0, 10, {batch}).astype(np.int32)
SCOPE, VARIANT = {scope!r}, {variant!r}
{program}
turn = open({turn!r}, "a")
fcntl.flock(turn, fcntl.LOCK_EX)
run(); run(); run()
began = time.monotonic()
for _ in range({steps}):
    run()
print({batch} * {steps} / (time.monotonic() - began))
"""

PEERS = {"ours": OURS, "slim": SLIM, "keras": KERAS, "torch": TORCH}


def images_per_second(peer: str, scope: str, arguments: argparse.Namespace) -> float | None:
    """One turn of a contestant, or of a variant of it ("ours:xla"); None if its library is not installed."""
    return outcome(peer, begin(peer, scope, arguments))


def begin(peer: str, scope: str, arguments: argparse.Namespace) -> subprocess.Popen:
    """Starts a contestant, which waits for its turn if others started before it."""
    peer, _, variant = peer.partition(":")
    facts = {"batch": arguments.batch, "size": arguments.size, "steps": arguments.steps}
    code = FRAME.format(program=PEERS[peer], scope=scope, variant=variant, turn=f"/tmp/turn-{os.getpid()}", **facts)
    # Several processes share a GPU, so none may take all of its memory.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes)


def outcome(peer: str, process: subprocess.Popen) -> float | None:
    """Images per second; None if the library is not installed, or after a failure, which is printed."""
    out, errors = process.communicate()
    if "ModuleNotFoundError" in errors:
        return None
    if process.returncode:
        print(f"{peer} failed: {errors[-2000:]}", file=sys.stderr, flush=True)
        return None
    return float(out.split()[-1])


def speed_of_run(folder: Path, first: int, batch: int) -> float:
    """Images per second of the run in a train directory that logged every step. The `first` steps, which warm up, and
    the last one, which evaluates, are not counted."""
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    seconds = [float(row.rpartition(",")[2]) for row in rows][first - 1 : -1]
    return batch * (len(seconds) - 1) / (seconds[-1] - seconds[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scopes", default="head,upper,whole")
    parser.add_argument("--peers", default="slim,keras,torch")
    parser.add_argument("--variants", default="", help="of ours: float16, bfloat16, xla, or two with a plus")
    parser.add_argument("--together", action="store_true", help="all build their graphs at once")
    arguments = parser.parse_args()
    variants = [f"ours:{variant}" for variant in arguments.variants.split(",") if variant]
    peers = ["ours", *variants, *filter(None, arguments.peers.split(","))]
    print(f"InceptionV3, batch {arguments.batch}, {arguments.size} pixels, images/s")
    for name in arguments.scopes.split(","):
        scope = SCOPES[name]
        wanted = [peer for peer in peers if peer.startswith(("ours", "slim")) or scope != "Mixed_7c,Logits"]
        best: dict[str, float | None] = dict.fromkeys(wanted, 0.0)
        for _ in range(arguments.rounds):
            left = [peer for peer in wanted if best[peer] is not None]
            begun = {peer: begin(peer, scope, arguments) for peer in left} if arguments.together else {}
            for peer in left:
                found = outcome(peer, begun.get(peer) or begin(peer, scope, arguments))
                best[peer] = None if found is None else max(found, best[peer])
        shown = [f"{peer} {speed:.1f}" if speed is not None else f"{peer} none" for peer, speed in best.items()]
        ratios = [
            f"{best['ours'] / speed:.2f} x {peer}"
            for peer, speed in best.items()
            if speed and best["ours"] and peer != "ours"
        ]
        print(f"{name:<6} {', '.join(shown)}; ours is {', '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
