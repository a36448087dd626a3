"""Compares ckpt-finetune on photos from disk with the bare training step of the same graph on a batch in memory.

    python benchmarks/bench_trainer.py [--scopes head,whole] [--variants float32,bfloat16,xla] [--steps 20] [--rounds 2]

InceptionV3 is trained from scratch, with the cache off, on JPEG files of 500 x 375 pixels, on a GPU if there is one.
The two take turns, and the best turn of each counts. The bare step is that of bench_step.py."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_pipeline import write_photos
from bench_step import SCOPES, images_per_second, speed_of_run

VARIANTS = {
    "float32": [],
    "bfloat16": ["--precision", "bfloat16"],
    "float16": ["--precision", "float16"],
    "xla": ["--xla"],
    "bfloat16+xla": ["--precision", "bfloat16", "--xla"],
}
AT_LEAST = 0.9  # share of the bare step's speed


def trainer(photos: Path, folder: Path, scope: str, variant: str, arguments: argparse.Namespace) -> float:
    """Images per second of one run of ckpt-finetune."""
    command = [sys.executable, "-m", "ckpt_tools", "finetune", "--net", "inception_v3", "--optimizer", "momentum"]
    command += ["--data", str(photos), "--train-dir", str(folder), "--trainable", scope, "--cache", "off"]
    command += ["--steps", str(arguments.steps + 3), "--log-steps", "1", "--eval-steps", str(1 << 30)]
    command += ["--batch-size", str(arguments.batch), "--image-size", str(arguments.size), *VARIANTS[variant]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return speed_of_run(folder, 2, arguments.batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scopes", default="head,whole", help=", ".join(SCOPES))
    parser.add_argument("--variants", default="float32", help=", ".join(VARIANTS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        photos = write_photos(Path(name) / "photos", 10 * arguments.batch)
        for part in arguments.scopes.split(","):
            for variant in arguments.variants.split(","):
                bare, ours = [], []
                for turn in range(arguments.rounds):
                    kind = "ours" if variant == "float32" else f"ours:{variant}"
                    bare.append(images_per_second(kind, SCOPES[part], arguments))
                    folder = Path(name) / f"{part}-{variant}-{turn}"
                    ours.append(trainer(photos, folder, SCOPES[part], variant, arguments))
                ratio = max(ours) / max(bare)
                print(
                    f"{part:<6} {variant:<13} bare step {max(bare):8.1f} images/s, ckpt-finetune {max(ours):8.1f}: "
                    f"{ratio:.2f} of it (at least {AT_LEAST})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
