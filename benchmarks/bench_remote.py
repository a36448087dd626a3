"""Compares listing a large checkpoint over HTTP with downloading it: bytes and seconds, with a local server.

    python benchmarks/bench_remote.py [--gigabytes 10] [--tensors 2000] [--folder /tmp]

The data file is sparse and takes no space; only the index is written. The download is read and discarded. Exits with 1
if listing reads 1 MB or more."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from range_server import RangeServer, serving

from ckpt_tools.formats.bundle_index import Entry, Header, encode_entry, encode_header
from ckpt_tools.formats.sstable import TableWriter
from ckpt_tools.tensors import Spec

MB, CHUNK = 1_000_000, 1 << 20


def write_sparse(prefix: Path, size: int, tensors: int) -> None:
    """Writes a V2 checkpoint of `size` bytes of float32 whose data file is one hole."""
    columns = size // tensors // 4 // 1024
    nbytes = 1024 * columns * 4
    with prefix.with_name(f"{prefix.name}.index").open("wb") as file:
        table = TableWriter(file)
        table.add(b"", encode_header(Header(1)))
        for number in range(tensors):
            spec = Spec("float32", (1024, columns))
            table.add(b"net/block_%05d/weights" % number, encode_entry(Entry(spec, 0, number * nbytes, nbytes, 1)))
        table.finish()
    with prefix.with_name(f"{prefix.name}.data-00000-of-00001").open("wb") as file:
        file.truncate(tensors * nbytes)


def listed(server: RangeServer, url: str) -> tuple[float, int]:
    """Seconds and bytes of `ckpt-inspect`, a whole process."""
    server.forget()
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ckpt_tools", "inspect", url], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, server.sent


def downloaded(url: str) -> tuple[float, int]:
    """Seconds and bytes of downloading both files."""
    start, size = time.perf_counter(), 0
    for ending in (".index", ".data-00000-of-00001"):
        with urllib.request.urlopen(url + ending) as answer:
            while data := answer.read(CHUNK):
                size += len(data)
    return time.perf_counter() - start, size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--tensors", type=int, default=2000)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_sparse(Path(folder) / "m.ckpt", int(args.gigabytes * 1e9), args.tensors)
        with serving(Path(folder)) as server:
            url = f"{server.url}/m.ckpt"
            listed(server, url)  # warms up: modules get compiled
            ours, peer = listed(server, url), downloaded(url)
    for name, (seconds, size) in {"ckpt-inspect URL": ours, "download": peer}.items():
        print(f"{name:<17} {seconds:8.2f} s  {size / MB:12,.3f} MB")
    return int(ours[1] >= MB)


if __name__ == "__main__":
    sys.exit(main())
