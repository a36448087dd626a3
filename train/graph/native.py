"""--precision auto: which number format a device computes natively, and whether a net gives the same values in it.

The values of a few of the user's own images are computed in float32 and in the other format. The other format is chosen
only if they agree within COSINE and DIFFERENCE. If there are only few images, float32 is faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..options.training import AUTO, FLOAT32, Choice
from .devices import visible_gpus

CHECKED = 8  # images computed both ways
WORTH = 256  # fewest images for which the comparison pays
COSINE = 0.999  # least cosine between an image's values in both formats
DIFFERENCE = 0.02  # largest difference of a value, relative to the largest value


def native(device: str) -> str | None:
    """The format below float32 that a run with this `--device` computes natively: "bfloat16", "float16" or None.

    GPUs: NVIDIA's compute capability 7.0 has float16 (CUDA C++ Programming Guide, "Compute Capabilities"). 8.0 also has
    bfloat16, but on an H100 it was slower and twenty times as far from float32 (benchmarks/README.md); the comparison
    detects values beyond float16's range. CPUs: AMX or AVX-512 with bfloat16, which oneDNN uses; float16 is not faster
    than float32 on any of them in TensorFlow 2.21.
    """
    if visible_gpus(device):
        import tensorflow

        gpu = tensorflow.config.list_physical_devices("GPU")[0]
        capability = tensorflow.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        return "float16" if capability >= (7, 0) else None
    return "bfloat16" if {"amx_bf16", "avx512_bf16"} & processor_flags() else None


def processor_flags() -> frozenset[str]:
    """This processor's feature flags by their Linux names; empty if unknown."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def candidate(precision: str, device: str, images: int) -> Choice:
    """The choice by --precision for so many images, before any comparison."""
    if precision != AUTO:
        return Choice(precision, "as asked for")
    if images < WORTH:
        return Choice(FLOAT32, f"fewer than {WORTH} images")
    found = native(device)
    if found is None:
        return Choice(FLOAT32, "no format below float32 is native on this device")
    return Choice(found, "native here", open=True)


def compared(choice: Choice, float32: Sequence[np.ndarray], lower: Sequence[np.ndarray]) -> Choice:
    """The choice, or float32 if the values of the same images, arrays [images, ...] in both formats, differ too
    much."""
    cosines, differences = [], []
    for a, b in zip(float32, lower, strict=True):
        a, b = (np.asarray(values, np.float64).reshape(len(values), -1) for values in (a, b))
        sizes = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines.append(np.divide((a * b).sum(axis=1), sizes, out=np.ones(len(a)), where=sizes != 0).min())
        differences.append(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))
    cosine, difference = float(np.min(cosines)), float(np.max(differences))  # NaN if any value is
    if not np.isfinite([cosine, difference]).all():
        return Choice(FLOAT32, f"{choice.precision} gives values that are not finite for the images that were tried")
    found = {"cosine": cosine, "largest_difference": difference}
    figures = f"within {difference:.2%} of float32 on {len(float32[0])} of the images, cosine {cosine:.6f}"
    if cosine >= COSINE and difference <= DIFFERENCE:
        return Choice(choice.precision, f"{choice.why}, {figures}", found)
    return Choice(FLOAT32, f"{choice.precision} is {figures} (allowed are {DIFFERENCE:.0%} and {COSINE})", found)
