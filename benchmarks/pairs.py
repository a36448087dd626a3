"""The table of docs/weights.md: every net that another library has, with the same random weights here and there.

    python benchmarks/pairs.py                     all that is installed of keras, torchvision and timm: an hour or less
    python benchmarks/pairs.py keras inception_v3  one library, one net

Prints, for two images of noise, the largest difference of the logits in parts of the largest one.
"""

import sys
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from ckpt_tools import from_arrays
from ckpt_tools.layouts import WORLDS, as_source, from_slim, layout_of, recognise
from ckpt_tools.nets.registry import NETS
from ckpt_tools.surgery import operate

CLASSES, SAME = 7, 1e-4


def values(name, shape, random):
    """Weights and statistics such that what goes through a layer keeps its size."""
    last = name.rpartition("/")[2]
    if last in ("moving_variance", "gamma"):
        return random.uniform(0.8, 1.2, shape).astype(np.float32)
    if len(shape) < 2:
        return random.normal(0, 0.1, shape).astype(np.float32)
    inputs = np.prod(shape[:2]) if last == "depthwise_weights" else np.prod(shape[:-1])
    return random.normal(0, np.sqrt(2 / inputs), shape).astype(np.float32)


def difference(world, net):
    from ckpt_tools.nets.comparing import compare  # with TensorFlow

    random = np.random.default_rng(0)
    slims = from_arrays({v.name: values(v.name, v.spec.shape, random) for v in net.variables(CLASSES)})
    file = operate(slims, from_slim(world, net, slims).operations).tensors
    theirs = recognise(file.specs(), [net])
    ours, _ = as_source(theirs, file)
    side = net.image_size
    images = np.random.default_rng(1).uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
    return compare(world, net, ours, theirs, file, [images], side).last


def main(words):
    worlds = [world for world in WORLDS if find_spec(world) and (world in words or not set(words) & set(WORLDS))]
    for world in sorted(worlds, key=lambda world: world == "keras"):  # PyTorch before TensorFlow: see nets/peers.py
        import_module(world)
    names = [name for name in NETS if name in words] or list(NETS)
    print(f"{'net':<22}{''.join(f'{world:<18}' for world in worlds)}", flush=True)
    for name in names:
        if not any(layout_of(world, name) for world in worlds):
            continue
        cells = []
        for world in worlds:
            found = difference(world, NETS[name]) if layout_of(world, name) else None
            cells.append("" if found is None else f"{'the same' if found < SAME else 'near'}, {found:.0e}")
        print(f"{name:<22}{''.join(f'{cell:<18}' for cell in cells)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
