"""Compares a net of Keras or PyTorch used here with its own library, and with the same net in slim's file.

    python benchmarks/bench_converted.py --folder /tmp/bench [--images 64] [--rounds 5]
        [--contestants ours,keras,torch] [--first k.h5,s.ckpt]

Makes a Keras InceptionV3 with random weights, saves it with Keras, and converts it to slim's and torchvision's form by
`ckpt-convert`. First part, images/s: `predict` of Keras, a forward pass of torchvision's net, and our
`ck.open_classifier` on Keras' file, each in float32 from the same uint8 images of 299 pixels to probabilities. They
take turns in one process, and the best of --rounds counts. Second part, seconds: a whole `ckpt-finetune` of one step
from Keras' file and from slim's, in turns, and the time to read all values of each file."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sized
from pathlib import Path

import numpy as np

SIDE, BATCH = 299, 32
Work = Callable[[np.ndarray], Sized]  # uint8 [n, 299, 299, 3] -> n results


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def make(folder: Path) -> None:
    """Writes k.h5 with Keras, s.ckpt and t.safetensors from it with `ckpt-convert`, and a few photos."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    from PIL import Image

    keras.utils.set_random_seed(0)
    keras.applications.InceptionV3(weights=None).save(folder / "k.h5")
    for target, layout in (("s.ckpt", "slim"), ("t.safetensors", "torchvision")):
        words = [str(folder / "k.h5"), str(folder / target), "--layout", layout, "--force"]
        subprocess.run([sys.executable, "-m", "ckpt_tools", "convert", *words], check=True, capture_output=True)
    for split, kind, number in (("train", "a", 8), ("train", "b", 8), ("validation", "a", 2), ("validation", "b", 2)):
        place = folder / "photos" / split / kind
        place.mkdir(parents=True, exist_ok=True)
        for i, pixels in enumerate(images(number)):
            Image.fromarray(pixels).save(place / f"{i}.jpg")


def keras(folder: Path) -> Work:
    import keras

    model = keras.applications.InceptionV3(weights=str(folder / "k.h5"))
    return lambda given: model.predict(given.astype(np.float32) / 127.5 - 1, batch_size=BATCH, verbose=0)


def torch(folder: Path) -> Work:
    import torch
    import torchvision
    from safetensors.torch import load_file

    model = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=False, aux_logits=False)
    weights = {name: value for name, value in load_file(folder / "t.safetensors").items() if "AuxLogits" not in name}
    model.load_state_dict(weights)
    model.eval()

    def work(given: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = torch.from_numpy(given.transpose(0, 3, 1, 2)).float() / 127.5 - 1
            return torch.cat([model(part).softmax(1) for part in pixels.split(BATCH)]).numpy()

    return work


def ours(folder: Path) -> Work:
    import ckpt_tools as ck

    classify = ck.open_classifier(folder / "k.h5", batch_size=BATCH)
    return lambda given: list(classify(given))


CONTESTANTS = {"torch": torch, "ours": ours, "keras": keras}  # PyTorch is imported before TensorFlow: see nets/peers.py


def first_run(source: Path, folder: Path) -> float:
    """Seconds of a whole ckpt-finetune of one step without any cache."""
    words = ["--checkpoint", source, "--data", folder / "photos", "--train-dir", folder / "run", "--fresh"]
    words += ["--exclude", "Logits", "--trainable", "Logits", "--steps", 1, "--cache", "off"]
    began = time.perf_counter()
    command = [sys.executable, "-m", "ckpt_tools", "finetune", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def reading(source: Path) -> float:
    """Seconds to read all values of a file."""
    from ckpt_tools import open_checkpoint

    began = time.perf_counter()
    for tensor in open_checkpoint(source).tensors.values():
        tensor.load()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int, default=64, help="in each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contestants", default="ours,keras,torch")
    parser.add_argument("--first", default="k.h5,s.ckpt", help="files that a run starts from")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "t.safetensors").exists():
        make(folder)
    asked, given = set(arguments.contestants.split(",")), images(arguments.images)
    ready = {}
    for name in filter(asked.__contains__, CONTESTANTS):
        try:
            ready[name] = CONTESTANTS[name](folder)
        except ModuleNotFoundError as error:
            print(f"{name:<14} left out: {error.name} is not installed", flush=True)
    best = dict.fromkeys(ready, 0.0)
    for work in ready.values():
        work(given[: 2 * BATCH])
    for _ in range(arguments.rounds):
        for name, work in ready.items():
            began = time.perf_counter()
            assert len(work(given)) == len(given)
            best[name] = max(best[name], len(given) / (time.perf_counter() - began))
    for name, speed in best.items():
        print(f"{name:<14} {speed:7.1f} images/s", flush=True)
    files = [folder / name for name in filter(None, arguments.first.split(","))]
    taken: dict[Path, list[float]] = {file: [] for file in files}
    for _ in range(arguments.rounds):
        for file in files:
            taken[file].append(first_run(file, folder))
    for file in files:
        read = min(reading(file) for _ in range(arguments.rounds))
        print(f"from {file.name:<9} {min(taken[file]):7.2f} s (median {statistics.median(taken[file]):.2f}), "
              f"of which reading all of its values takes {read:.2f} s")  # fmt: skip


if __name__ == "__main__":
    main()
