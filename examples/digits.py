"""A checkpoint moves to new classes, from nothing to a result in about a minute: `make demo`.

scikit-learn's digits (1,797 scans of 8 x 8 pixels, installed with the package) become two data sets. A small slim
ResNet learns the digits 0 to 4 and is written as a legacy V1 file: the kind of file that this tool is for. Then only
the commands that a user would type: look at the file, plan, give it a head for the digits 5 to 9, evaluate. The same
head on a backbone that was never trained shows what the checkpoint was worth.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

OUT = Path("demo-output")
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LEGACY = f"{OUT}/digits_0_to_4.ckpt"
HEAD_ONLY = f"--data {OUT}/digits_5_to_9 --trainable Logits --epochs 2 --learning-rate 0.01"


def write_photos() -> None:
    """Writes the digits as PNG files in class folders: OUT/digits_0_to_4/train/zero/0000.png and so on."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        name = "digits_0_to_4" if digit < 5 else "digits_5_to_9"
        split = "validation" if number % 4 == 0 else "train"
        folder = OUT / name / split / WORDS[digit]
        folder.mkdir(parents=True, exist_ok=True)
        scan = Image.fromarray((255 - pixels * 255 / 16).astype("uint8"))  # 0 is paper, 16 is ink
        page = Image.new("RGB", (64, 64), "white")
        page.paste(scan.resize((48, 48), Image.Resampling.BICUBIC), (8, 8))
        page.save(folder / f"{number:04d}.png")


def show(command: str, *, why: str, quiet: bool = False) -> str:
    """Runs one of our commands as a user would and returns what it printed on stdout."""
    print(f"\n# {why}\n$ {command}", flush=True)
    module, *options = shlex.split(command)
    words = [sys.executable, "-m", "ckpt_tools", module.removeprefix("ckpt-"), *options]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if quiet else None, text=True)
    if done.returncode:
        sys.exit(f"the demo stops here: {command} ended with exit code {done.returncode}")
    if not quiet:
        print(done.stdout, end="", flush=True)
    return done.stdout


def accuracy(run: str) -> float:
    """Accuracy of a run's best checkpoint on the validation images of the digits 5 to 9."""
    command = f"ckpt-evaluate --train-dir {OUT}/{run} --json"
    return json.loads(show(command, why=f"How good is {run}?", quiet=True))["summary"]["accuracy"]


def main() -> None:
    began = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    write_photos()
    show(
        f"ckpt-finetune --net resnet_v1_14 --data {OUT}/digits_0_to_4 --train-dir {OUT}/pretraining --epochs 4",
        why="A small slim ResNet learns the digits 0 to 4 from scratch ...",
    )
    show(
        f"ckpt-edit {OUT}/pretraining/best.ckpt -o {LEGACY} --strip optimizer,step --format v1",
        why="... and is written as people wrote checkpoints in 2016: one file in the V1 format",
    )
    show(f"ckpt-inspect {LEGACY} --tree 2", why="What is in this file?")
    show(
        f"ckpt-plan {LEGACY} --num-classes 5 --exclude Logits --trainable Logits",
        why="What will be restored, and why? Nothing is trained yet; TensorFlow is not even loaded",
    )
    show(
        f"ckpt-finetune --checkpoint {LEGACY} --train-dir {OUT}/migrated --exclude Logits {HEAD_ONLY}",
        why="A new head for the digits 5 to 9 on the frozen backbone",
    )
    show(
        f"ckpt-finetune --net resnet_v1_14 --train-dir {OUT}/untrained {HEAD_ONLY}",
        why="The same head, on an untrained backbone",
        quiet=True,
    )
    migrated, untrained = accuracy("migrated"), accuracy("untrained")
    print(f"""
A small ResNet learnt the digits 0 to 4 and was saved as {LEGACY}, a legacy V1 file.
It got a new head for the digits 5 to 9, which it had never seen. Only the head was trained, for two epochs.

  accuracy on the digits 5 to 9, with the checkpoint's backbone:  {migrated:.1%}
  accuracy with the same head on an untrained backbone:           {untrained:.1%}

Everything is in {OUT}/, and took {time.monotonic() - began:.0f} seconds. Look at {OUT}/migrated/report.html.""")


if __name__ == "__main__":
    main()
