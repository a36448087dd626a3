"""Checks on a GPU with a real checkpoint and real photos; a part of gpu.sh.

python benchmarks/gpu_checks.py command CHECKPOINT PHOTOS OUT    ckpt-finetune as in the README, twice
python benchmarks/gpu_checks.py equal CHECKPOINT PHOTOS OUT      transfer values compared with those of the CPU
python benchmarks/gpu_checks.py resume CHECKPOINT PHOTOS OUT     a killed and continued run, and uninterrupted ones
python benchmarks/gpu_checks.py busy OUT                         how busy the GPU was in each part of gpu.sh
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ckpt_tools import open_checkpoint

SLIM = ("--exclude", "Logits", "--trainable")


def ckpt(command: str, *options: str, **environment: str) -> subprocess.Popen:
    """Starts a command; its messages go to a pipe."""
    argv = [sys.executable, "-m", "ckpt_tools", command, *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(argv, env={**os.environ, **environment}, **pipes)


def ended(process: subprocess.Popen) -> str:
    """The output of a command; exits if it failed."""
    said, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(process.args[2:])}: exit {process.returncode}\n{said}")
    return said


def command(checkpoint: str, photos: str, out: Path) -> None:
    """Trains a new head by the README's command, then again with another learning rate."""
    for name, more in (("run", ()), ("again", ("--learning-rate", "0.003"))):
        began = time.monotonic()
        options = ("--checkpoint", checkpoint, "--data", photos, "--train-dir", str(out / name))
        said = ended(ckpt("finetune", *options, *SLIM, "Logits", "--cache-dir", str(out / "cache"), *more))
        took = time.monotonic() - began
        print(said if name == "run" else said.splitlines()[-1])
        parts = json.loads((out / name / "result.json").read_text())["seconds"]
        print(f"{name}: {took:.1f} s as a process; {', '.join(f'{part} {s:.2f} s' for part, s in parts.items())}\n")


def equal(checkpoint: str, photos: str, out: Path) -> None:
    """Compares transfer values of the test photos, computed in each way, with float32 on the CPU."""
    ways = {
        "processor, float32": (("--device", "cpu", "--precision", "float32"), {}),
        "GPU, float32": (("--precision", "float32"), {}),
        "GPU, float32, no TF32": (("--precision", "float32"), {"NVIDIA_TF32_OVERRIDE": "0"}),
        "GPU, float16": (("--precision", "float16"), {}),
        "GPU, bfloat16": (("--precision", "bfloat16"), {}),
        "GPU, auto": (("--precision", "auto"), {}),
    }
    common = ("--checkpoint", checkpoint, "--data", photos, "--split", "validation", "--output")
    begun = {
        name: ckpt("features", *common, str(out / f"values_{number}"), *options, **environment)
        for number, (name, (options, environment)) in enumerate(ways.items())
    }
    expected = None
    for number, (name, process) in enumerate(begun.items()):
        said = ended(process)
        values = np.load(out / f"values_{number}.npy")
        expected = values if expected is None else expected
        cosine = (values * expected).sum(1) / np.linalg.norm(values, axis=1) / np.linalg.norm(expected, axis=1)
        difference = np.abs(values - expected).max() / np.abs(expected).max()
        line = next(line for line in said.splitlines() if line.startswith("precision"))
        print(f"{name:<24} largest difference {difference:.2e} of the largest value, least cosine {cosine.min():.7f}")
        if "auto" in name:
            print(f"  {line}")


def resume(checkpoint: str, photos: str, out: Path) -> None:
    """Upper blocks, no cache: compares a run killed after its sixth step and continued with two uninterrupted ones."""
    steps = 12
    common = ("--checkpoint", checkpoint, "--data", photos, *SLIM, "Mixed_7c,Logits", "--cache", "off")
    common += ("--steps", str(steps), "--save-steps", "4", "--log-steps", "1", "--eval-steps", "1000", "--train-dir")
    for kind, environment in (("as it is", {}), ("TF_DETERMINISTIC_OPS=1", {"TF_DETERMINISTIC_OPS": "1"})):
        folders = {name: out / f"{name}_{len(environment)}" for name in ("whole", "twin", "killed")}
        begun = {name: ckpt("finetune", *common, str(folder), **environment) for name, folder in folders.items()}
        metrics = folders["killed"] / "metrics.csv"
        while begun["killed"].poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < 7):
            time.sleep(0.01)
        begun["killed"].send_signal(signal.SIGKILL)
        begun["killed"].communicate()
        begun["killed"] = ckpt("finetune", *common, str(folders["killed"]), **environment)
        said = {name: ended(process) for name, process in begun.items()}
        goes_on = next(line for line in said["killed"].splitlines() if line.startswith("continuing"))
        tensors = {name: open_checkpoint(folder / f"model.ckpt-{steps}").tensors for name, folder in folders.items()}
        for other in ("twin", "killed"):
            print(f"{kind}, {other} and whole: {differing(tensors['whole'], tensors[other])}")
        print(f"  {goes_on}")
        print(f"  {next(line for line in said['killed'].splitlines() if line.startswith('freeze audit'))}")


def differing(a: object, b: object) -> str:
    """How many tensors differ, and the largest difference relative to the tensor's largest value."""
    found = [name for name in a if (a[name].load() != b[name].load()).any()]
    most = max((float(np.abs(a[n].load() - b[n].load()).max() / np.abs(a[n].load()).max()) for n in found), default=0)
    return f"{len(found)} of {len(a)} tensors differ, by {most:.1e} at most"


def busy(out: Path) -> None:
    """The GPU's load by nvidia-smi dmon (one line per second: time, GPU, busy %, memory busy %) in each part."""
    rows = [line.split() for line in (out / "dmon.txt").read_text().splitlines() if not line.startswith("#")]
    for line in (out / "times.txt").read_text().splitlines():
        name, first, last = line.split()
        sm = np.array([float(row[2]) for row in rows if first <= row[0] <= last and row[2] != "-"])
        if len(sm):
            at_work = sm[sm > 0]
            share = f"{len(at_work)} of {len(sm)} s" + (f", {at_work.mean():.0f} % in these" if len(at_work) else "")
            print(f"{name:<12} GPU at work in {share}; busiest second {sm.max():.0f} %")


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    *sources, folder = given
    {"command": command, "equal": equal, "resume": resume, "busy": busy}[what](*sources, Path(folder))
