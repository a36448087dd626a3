"""Compares training with the cached frozen prefix, without it, and with Keras: whole runs, one after the other.

    python benchmarks/bench_cache.py CHECKPOINT PHOTOS [--per-class 100] [--epochs 10] [--rows head,again,...]

CHECKPOINT is a slim InceptionV3, PHOTOS a folder with train/ and test/. `--per-class` limits the training photos of
each class. `seconds` is from the first image or step to the last; `process` is the whole command."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SLIM = ["--exclude", "Logits", "--log-steps", "1000"]


def share_of(photos: Path, folder: Path, per_class: int) -> Path:
    """A folder of links to the first photos of each class: `per_class` for training, a tenth of that for validation."""
    for split, count in (("train", per_class), ("test", max(1, per_class // 10))):
        for label in sorted((photos / split).iterdir()):
            (folder / split / label.name).mkdir(parents=True)
            for photo in sorted(label.iterdir())[:count]:
                (folder / split / label.name / photo.name).symlink_to(photo)
    return folder


def ours(name: str, place: Path, arguments: argparse.Namespace, *options: str) -> dict:
    """Runs ckpt-finetune; returns seconds of its parts and of the whole process, and the accuracy."""
    run = place / name
    command = [sys.executable, "-m", "ckpt_tools", "finetune", "--checkpoint", arguments.checkpoint]
    command += ["--data", str(place / "photos"), "--train-dir", str(run), "--epochs", str(arguments.epochs)]
    began = time.monotonic()
    subprocess.run([*command, *SLIM, "--cache-dir", str(place / "cache"), *options], check=True, capture_output=True)
    process = time.monotonic() - began
    result = json.loads((run / "result.json").read_text())
    parts = result["seconds"]
    shutil.rmtree(run)
    seconds = sum(parts.get(part, 0.0) for part in ("features", "training", "evaluation"))
    accuracy = result["validation"]["validation_accuracy"]
    return {"seconds": seconds, "process": process, "accuracy": accuracy, "parts": parts}


def keras(place: Path, arguments: argparse.Namespace) -> dict:
    """Keras' InceptionV3 with `trainable=False` and a new last layer: `fit` on the same photos, batches and epochs.

    The architecture is the same; random weights do not affect the time.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras as k

    data = {
        split: k.utils.image_dataset_from_directory(
            place / "photos" / split, image_size=(299, 299), batch_size=32, verbose=False
        ).map(lambda x, y: (x / 127.5 - 1, y))
        for split in ("train", "test")
    }
    backbone = k.applications.InceptionV3(weights=None, include_top=False, pooling="avg", input_shape=(299, 299, 3))
    backbone.trainable = False
    model = k.Sequential([backbone, k.layers.Dense(10)])
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(k.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    began = time.monotonic()
    model.fit(data["train"], epochs=arguments.epochs, validation_data=data["test"], verbose=0)
    return {"seconds": time.monotonic() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rows", default="head,again,upper,keras", help="first: ours alone, cached")
    arguments = parser.parse_args()
    rows = arguments.rows.split(",")
    head, upper = ("--trainable", "Logits"), ("--trainable", "Mixed_7c,Logits")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        share_of(arguments.photos.resolve(), place / "photos", arguments.per_class)
        print(f"{10 * arguments.per_class} photos at 299 pixels, {arguments.epochs} epochs, batches of 32", flush=True)
        off = cached = None
        if {"first", "head", "again", "keras"} & set(rows):
            cached = ours("head", place, arguments, *head)
            show("head only, cached", cached)
        if {"head", "again"} & set(rows):
            off = ours("head_off", place, arguments, *head, "--cache", "off")
            show("head only, --cache off", off)
            print(f"  head only: {off['seconds'] / cached['seconds']:.1f} times faster (at least 8)", flush=True)
        if "again" in rows:
            again = ours("again", place, arguments, *head, "--learning-rate", "0.003")
            show("again, another learning rate", again)
            ratio = off["seconds"] / again["seconds"], off["process"] / again["process"]
            print(f"  again: {ratio[0]:.0f} times (at least 100), as processes {ratio[1]:.1f} times (at least 20)")
        if "upper" in rows:
            on = ours("upper", place, arguments, *upper)
            show("Mixed_7c,Logits, cached", on)
            without = ours("upper_off", place, arguments, *upper, "--cache", "off")
            show("Mixed_7c,Logits, --cache off", without)
            print(f"  Mixed_7c,Logits: {without['seconds'] / on['seconds']:.1f} times faster (at least 3)", flush=True)
        if "keras" in rows:
            peer = keras(place, arguments)
            print(f"Keras fit, trainable=False   {peer['seconds']:8.1f} s")
            print(f"  head only: {peer['seconds'] / cached['seconds']:.1f} times faster (at least 8)", flush=True)


def show(name: str, found: dict) -> None:
    parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in found["parts"].items())
    figures = f"{found['seconds']:8.1f} s, process {found['process']:.1f} s, accuracy {found['accuracy']:.3f}"
    print(f"{name:<28} {figures} ({parts})", flush=True)


if __name__ == "__main__":
    main()
