"""--precision auto: which number format a device computes natively, and whether a net gives the same values in it.

What float32 gives for a few of the user's own images is compared with what the other format gives. Only where nothing
is further away than COSINE and DIFFERENCE allow is the other one taken. For few images float32 is done sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..options.training import AUTO, FLOAT32, Choice
from .devices import visible_gpus

CHECKED = 8  # images that are computed both ways
WORTH = 256  # images for which finding out does not take longer than is saved
COSINE = 0.999  # least cosine of the values of one image with those in float32
DIFFERENCE = 0.02  # largest difference of a value, by the largest value


def native(device: str) -> str | None:
    """The format below float32 that a run with `--device` computes in natively: "bfloat16", "float16" or None.

    GPUs: NVIDIA's compute capability 7.0 has float16 (CUDA C++ Programming Guide, "Compute Capabilities"). 8.0 has
    bfloat16 as well, which on an H100 was slower and twenty times as far from float32 (benchmarks/README.md); values
    beyond float16's range are found when it is compared. Processors: AMX or AVX-512 with bfloat16, which oneDNN uses;
    float16 is not, on any of them, faster in TensorFlow 2.21 than float32.
    """
    if visible_gpus(device):
        import tensorflow

        gpu = tensorflow.config.list_physical_devices("GPU")[0]
        capability = tensorflow.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        return "float16" if capability >= (7, 0) else None
    return "bfloat16" if {"amx_bf16", "avx512_bf16"} & processor_flags() else None


def processor_flags() -> frozenset[str]:
    """What this processor can do, by Linux' names; empty where that is not known."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def candidate(precision: str, device: str, images: int) -> Choice:
    """What --precision means for so many images, before anything was compared."""
    if precision != AUTO:
        return Choice(precision, "as asked for")
    if images < WORTH:
        return Choice(FLOAT32, f"fewer than {WORTH} images")
    found = native(device)
    if found is None:
        return Choice(FLOAT32, "no format below float32 is native on this device")
    return Choice(found, "native here", open=True)


def compared(choice: Choice, float32: Sequence[np.ndarray], lower: Sequence[np.ndarray]) -> Choice:
    """The choice, or float32, after a look at both ways' values of the same images: arrays [images, ...] of each."""
    cosines, differences = [], []
    for a, b in zip(float32, lower, strict=True):
        a, b = (np.asarray(values, np.float64).reshape(len(values), -1) for values in (a, b))
        sizes = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines.append(np.divide((a * b).sum(axis=1), sizes, out=np.ones(len(a)), where=sizes != 0).min())
        differences.append(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))
    cosine, difference = float(np.min(cosines)), float(np.max(differences))  # NaN where there is one
    if not np.isfinite([cosine, difference]).all():
        return Choice(FLOAT32, f"{choice.precision} gives values that are not finite for the images that were tried")
    found = {"cosine": cosine, "largest_difference": difference}
    figures = f"within {difference:.2%} of float32 on {len(float32[0])} of the images, cosine {cosine:.6f}"
    if cosine >= COSINE and difference <= DIFFERENCE:
        return Choice(choice.precision, f"{choice.why}, {figures}", found)
    return Choice(FLOAT32, f"{choice.precision} is {figures} (allowed are {DIFFERENCE:.0%} and {COSINE})", found)
