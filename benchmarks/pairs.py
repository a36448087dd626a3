"""Makes the table of docs/weights.md: compares every net with its twin in another library on equal random weights.

    python benchmarks/pairs.py                     all installed of keras, torchvision and timm: half an hour
    python benchmarks/pairs.py keras inception_v3  one library, one net
    python benchmarks/pairs.py --own resnet_v1_50  slim's own net, even if a variant of it matches the library's

Prints, for two images of noise, the largest difference of the logits of the library's net and ours, relative to the
largest logit. Each pair has its own process, which frees its memory. Exits with 1 if a pair could not be computed or
differs.
"""

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from ckpt_tools import from_arrays
from ckpt_tools.layouts import WORLDS, as_source, from_slim, layout_of, recognise
from ckpt_tools.nets.registry import NETS, get_net
from ckpt_tools.surgery import operate

CLASSES, SAME = 7, 1e-5
FAILED = "failed"


def values(name, shape, random):
    """Weights and statistics for which a layer keeps the magnitude of its input."""
    last = name.rpartition("/")[2]
    if last in ("moving_variance", "gamma"):
        return random.uniform(0.8, 1.2, shape).astype(np.float32)
    if len(shape) < 2:
        return random.normal(0, 0.1, shape).astype(np.float32)
    inputs = np.prod(shape[:2]) if last == "depthwise_weights" else np.prod(shape[:-1])
    return random.normal(0, np.sqrt(2 / inputs), shape).astype(np.float32)


def pair(world, net, own):
    """The table cell of a pair: the distance of our matching net, or slim's `own`, from the library's."""
    import_module(world)  # PyTorch before TensorFlow: see nets/peers.py
    from ckpt_tools.nets.comparing import compare

    random = np.random.default_rng(0)
    slims = from_arrays({v.name: values(v.name, v.spec.shape, random) for v in net.variables(CLASSES)})
    file = operate(slims, from_slim(world, net, slims).operations).tensors
    theirs = recognise(file.specs(), [net])
    ours, _ = as_source(theirs, file)
    side = net.image_size
    images = np.random.default_rng(1).uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
    taken = net if own else get_net(theirs.exact)
    found = compare(world, taken, ours, theirs, file, [images], side).last
    return f"{'the same' if found < SAME else 'near'}, {found:.0e}" + (f", {taken.name}" if taken.base else "")


def pair_in_a_process(world, name, own):
    command = [sys.executable, __file__, "--pair", world, name, *["--own"] * own]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{world} {name}: {done.stderr.strip()[-1000:]}", file=sys.stderr, flush=True)
        return FAILED
    return done.stdout.splitlines()[-1]


def main(words):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if words[:1] == ["--pair"]:
        print(pair(words[1], NETS[words[2]], "--own" in words))
        return 0
    worlds = [world for world in WORLDS if find_spec(world) and (world in words or not set(words) & set(WORLDS))]
    names = [name for name in NETS if name in words] or list(NETS)
    print(f"| net | {' | '.join(worlds)} |\n|---|{'---|' * len(worlds)}", flush=True)
    every = []
    for name in names:
        cells = [pair_in_a_process(world, name, "--own" in words) if layout_of(world, name) else "" for world in worlds]
        if any(cells):
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        every += filter(None, cells)
    return int(not all(cell.startswith("the same") for cell in every))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
