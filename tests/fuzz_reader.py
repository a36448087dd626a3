"""A coverage-guided fuzz target for the readers, for atheris (`pip install atheris`); pytest does not collect it.

    python tests/fuzz_reader.py CORPUS_DIR -max_total_time=300

The first byte of an input selects the kind of the rest: a V1 file, the index of a V2 checkpoint (followed by data), or
the same with corrected block checksums, so that the fuzzer gets past them. Only a CheckpointError may be raised.
With an empty corpus folder, run `python tests/fuzz_reader.py --seed CORPUS_DIR` first: it writes the golden files.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from struct import pack

import atheris

with atheris.instrument_imports(include=["ckpt_tools"]):
    from ckpt_tools.errors import CheckpointError, DamagedError
    from ckpt_tools.formats import bundle, elements, slices, sstable, typed_values, v1, v2  # noqa: F401
    from ckpt_tools.formats.checksum import masked_crc
    from ckpt_tools.formats.proto import varint

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
DATA = bytes(range(256)) * 4


def resealed(table: bytes) -> bytes:
    """The table with every block's checksum made right, as far as its handles can be followed."""
    out = bytearray(table)
    try:
        pos = len(table) - 48
        handles = []
        for _ in range(2):
            offset, pos = varint(table, pos, len(table) - 8)
            size, pos = varint(table, pos, len(table) - 8)
            handles.append((offset, size))
        start, length = handles[1]
        _seal(out, start, length)
        for _, value in zip(*sstable.entries(bytes(out[start : start + length])), strict=True):
            offset, at = varint(value, 0, len(value))
            size, _ = varint(value, at, len(value))
            _seal(out, offset, size)
        _seal(out, start, length)
    except DamagedError:
        pass
    return bytes(out)


def _seal(out: bytearray, offset: int, size: int) -> None:
    if offset + size + 5 <= len(out):
        out[offset + size + 1 : offset + size + 5] = pack("<I", masked_crc(bytes(out[offset : offset + size + 1])))


def read_all(data: bytes) -> None:
    """One input: opens it and loads every tensor."""
    kind, content = data[:1] or b"\0", data[1:]
    if kind[0] & 1:
        content = content[:-8] + sstable.MAGIC if len(content) >= 48 else content.ljust(48, b"\0")
        content = resealed(content)
    if kind[0] & 2:
        (FOLDER / "m.index").write_bytes(content)
        tensors = v2.read(str(FOLDER / "m")).tensors
    else:
        (FOLDER / "m").write_bytes(content)
        tensors = v1.read(str(FOLDER / "m")).tensors
    for name in tensors:
        try:
            tensors[name].load()
        except CheckpointError as error:
            str(error)


def one_input(data: bytes) -> None:
    try:
        read_all(data)
    except CheckpointError as error:
        str(error)


def write_seeds(folder: Path) -> None:
    """The tables of the golden checkpoints, once as they are and once to be resealed."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted((Path(__file__).parent / "golden").glob("*/*")):
        content = file.read_bytes() if file.is_file() else b""
        if content.endswith(sstable.MAGIC) and len(content) < 4000:
            for reseal in (0, 1):
                kind = reseal | (2 if file.suffix == ".index" else 0)
                (folder / f"{file.parent.name}-{file.name}-{kind}").write_bytes(bytes((kind,)) + content)


def main() -> None:
    if sys.argv[1:2] == ["--seed"]:
        write_seeds(Path(sys.argv[2]))
        return
    (FOLDER / "m.data-00000-of-00001").write_bytes(DATA)
    (FOLDER / "m.data-00000-of-00002").write_bytes(DATA)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
