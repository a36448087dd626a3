"""Compares training steps on one and two CPU devices, and in one and two processes of a cluster on this machine.

    python benchmarks/bench_scaling.py [NET] [STEPS]

The net (inception_v3 by default) is trained from scratch on pictures of noise, once as a whole and once only its head
with the cache off, in batches of 16. The four take turns; the best turn of each counts. All share the cores of this
machine, so that two cannot be faster than one unless one leaves cores idle: the benchmark measures the cost of dividing
a batch. On real devices that cost is the same, while the computation is halved.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_step import speed_of_run

NET = sys.argv[1] if len(sys.argv) > 1 else "inception_v3"
STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else 4
BATCH, TURNS = 16, 2
TRAINED = {"whole net": (), "head": ("Logits",)}
DIVIDED = {
    "one device": ["--devices", "1"],
    "two devices": ["--devices", "2"],
    "two parts, one device": ["--accumulate", "2"],
    "two processes": [],
}


def write_photos(folder, count=BATCH * 4):
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (299, 299, 3), dtype=np.uint8)).save(place / f"{number}.jpg")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def images_a_second(name, trained, photos, folder):
    """Images per second in STEPS steps of one run."""
    argv = ["--net", NET, "--data", str(photos), "--train-dir", str(folder), "--batch-size", str(BATCH)]
    argv += ["--steps", str(STEPS + 2), "--log-steps", "1", "--eval-steps", str(1 << 30), "--device", "cpu"]
    argv += ["--cache", "off", "--validation-fraction", "0.01", "--json", *DIVIDED[name]]
    argv += [f for pattern in trained for f in ("--trainable", pattern)]
    command = [sys.executable, "-m", "ckpt_tools", "finetune", *argv]
    environment = [{**os.environ, "TF_CONFIG": ""}]
    if name == "two processes":
        workers = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}} for i in range(2)]
        environment = [{**os.environ, "TF_CONFIG": json.dumps(task)} for task in tasks]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, env=each, **quiet) for each in environment]
    said = [process.communicate()[1] for process in running]
    if any(process.returncode for process in running):
        sys.exit(said[0] or said[-1])
    return speed_of_run(folder, 1, BATCH)


def main():
    began = time.monotonic()
    print(f"{NET}, batches of {BATCH}, {STEPS} steps, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(folder / "photos")
        for title, trained in TRAINED.items():
            found = {way: [] for way in DIVIDED}
            for turn in range(TURNS):
                for way, speeds in found.items():
                    place = folder / f"{title}-{way}-{turn}".replace(" ", "-")
                    speeds.append(images_a_second(way, trained, folder / "photos", place))
            for way, speeds in found.items():
                print(
                    f"{title:<10} {way:<22} {max(speeds):7.1f} images/s  {max(speeds) / max(found['one device']):5.2f}"
                )
    print(f"load {os.getloadavg()[0]:.1f} at the end, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
