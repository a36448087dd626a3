"""Finds out what a file really is by looking at a few bytes; a name alone is never trusted."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from typing import NamedTuple

from ..errors import CheckpointError, DamagedError, NotACheckpointError
from .proto import LEN, VARINT, fields, varint
from .sstable import FOOTER, MAGIC, Table, first_record
from .storage import is_file, is_remote, mapped, open_file, openable

HEAD = 4096
CUT_GRAPH = "cut_graph"  # kind of a truncated graph
_GRAPH = {1: LEN, 2: LEN, 3: VARINT, 4: LEN, 5: LEN}  # fields of a GraphDef, and of a NodeDef
_NODE = {1: LEN, 2: LEN, 3: LEN, 4: LEN, 5: LEN, 6: LEN, 7: LEN}
_NODE_NAME = re.compile(rb"[\w.][\w.\-/>]*")  # names of nodes, operations and functions
_LOOKED_AT = 100  # nodes
_LARGEST_GRAPH = 1 << 31  # bytes that Protocol Buffers allow


class FileKind(NamedTuple):
    """The kind of a file: the name of a readable format or of something else, a description, and advice."""

    name: str
    text: str
    advice: str = ""


_MAGIC = [
    (b"\x89HDF\r\n\x1a\n", FileKind("keras_h5", "an HDF5 file")),
    (b"\x1f\x8b", FileKind("gzip", "a gzip-compressed file", "Unpack it first (gunzip), then open what comes out.")),
    (b"BZh", FileKind("bzip2", "a bzip2-compressed file", "Unpack it first (bunzip2), then open what comes out.")),
    (b"\xfd7zXZ\0", FileKind("xz", "an xz-compressed file", "Unpack it first (unxz), then open what comes out.")),
    (
        b"\x28\xb5\x2f\xfd",
        FileKind("zstd", "a zstd-compressed file", "Unpack it first (unzstd), then open what comes out."),
    ),
    (b"Rar!", FileKind("rar", "a RAR archive", "Unpack it first.")),
    (b"7z\xbc\xaf\x27\x1c", FileKind("7z", "a 7z archive", "Unpack it first.")),
    (
        b"\x93NUMPY",
        FileKind("npy", "a single numpy array (.npy)", "It has no names; save named arrays with numpy.savez."),
    ),
    (b"%PDF", FileKind("pdf", "a PDF document")),
    (b"\x89PNG", FileKind("png", "a PNG picture")),
    (b"\xff\xd8\xff", FileKind("jpeg", "a JPEG picture")),
]
_DOWNLOAD = "The download gave a web page in place of the file (a login, an error or a redirect); download it again."


def identify(path: str) -> FileKind:
    """The kind of a regular file, judged by its first and last bytes."""
    with open_file(path) as file:
        head = file.read(HEAD)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - FOOTER))
        tail = file.read(FOOTER)
    if size == 0:
        return FileKind("empty", "an empty file", "It was created but never written, or its download failed.")
    if size >= FOOTER and tail.endswith(MAGIC):
        return _table(path, head)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return _packed(path, kind)
    if head[257:262] == b"ustar":
        return FileKind("tar", "a tar archive")
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    return (
        _text(head, size)
        or _pickle(head)
        or _safetensors(head, size)
        or _cut_table(path, head, size)
        or _proto(path, head, size)
    )


def refusal(path: str, kind: FileKind) -> CheckpointError:
    """The error for a file that holds no readable tensors, or is truncated."""
    if kind.name.startswith("cut"):
        return DamagedError(kind.text, path=path, advice=kind.advice)
    return NotACheckpointError(f"is {kind.text}, not a checkpoint", path=path, advice=kind.advice)


def advice_for(path: str) -> str:
    """Advice for a data file that turns out to be something else; empty if its bytes look like data."""
    try:
        if not is_file(path):
            return ""
        kind = identify(path)
    except OSError:
        return ""
    if kind.name in ("lfs", "html", "empty", "gzip", "xml"):
        return f"{os.path.basename(path)} is {kind.text}. {kind.advice}"
    return ""


def _table(path: str, head: bytes) -> FileKind:
    """Tells a V1 file from the index of a V2 checkpoint by the first field of the value under ''."""
    try:
        key, value, _ = first_record(head)
    except DamagedError:  # a compressed block does not begin with a key
        try:
            key, value, _ = first_record(Table(path).first_block())
        except CheckpointError:
            return FileKind("v1", "a checkpoint table")
    if key == b"" and value[:1] in (b"\x08", b"\x1a", b"\x10"):
        return FileKind("v2_index", "the index of a V2 checkpoint")
    return FileKind("v1", "a V1 checkpoint")


def _packed(path: str, kind: FileKind) -> FileKind:
    """The kind of a compressed file, which can be opened only if it holds a tar archive."""
    if kind.name not in ("gzip", "bzip2", "xz"):
        return kind
    import bz2
    import gzip
    import lzma
    import zlib

    openers: dict[str, Callable[..., BufferedIOBase]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    try:
        with openers[kind.name](openable(path)) as file:
            is_tar = file.read(512)[257:262] == b"ustar"
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return kind
    return FileKind("tar", "a compressed tar archive") if is_tar else kind


def _zip(path: str) -> FileKind:
    import zipfile

    try:
        with zipfile.ZipFile(openable(path)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return FileKind("cut_zip", "is a zip archive that is cut off or damaged", "Copy it again.")
    if any(name.split("/")[-1] == "data.pkl" for name in names):
        return FileKind("torch", "a PyTorch file (zip)")
    if "model.weights.h5" in names:
        return FileKind("keras", "a Keras 3 model")
    if names and all(name.endswith(".npy") for name in names):
        return FileKind("npz", "a numpy archive")
    return FileKind("zip", "a zip archive", "Unpack it first.")


def _text(head: bytes, size: int) -> FileKind | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"version https://git-lfs"):
        real = re.search(rb"^size (\d{1,18})\s*$", head, re.MULTILINE)
        what = f"; the real file has {int(real[1]):,} bytes" if real else ""
        return FileKind("lfs", f"a Git LFS pointer{what}", "Fetch the file itself with: git lfs pull")
    low = start[:512].lower()
    if low.startswith((b"<!doctype html", b"<html", b"<head")) or b"<html" in low:
        return FileKind("html", "an HTML page", _DOWNLOAD)
    if low.startswith(b"<?xml"):
        return FileKind("xml", "an XML document", _DOWNLOAD)
    if re.match(rb"\s*(#[^\n]*\n\s*)*(model_checkpoint_path|all_model_checkpoint_paths)\s*:", head):
        return FileKind("state", "a checkpoint state file")
    if re.match(rb"\s*(node|graph_def|meta_info_def|library|versions)\s*\{", head):
        return FileKind(
            "pbtxt", "a graph in text form (.pbtxt)", "It names the operations; values are in checkpoint files."
        )
    return None


def _pickle(head: bytes) -> FileKind | None:
    if head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5" and len(head) > 2:
        if b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19" in head[:64]:
            return FileKind("torch", "a PyTorch file (pickle)")
        return FileKind("pickle", "a Python pickle", "It is not opened, because unpickling a file can run code in it.")
    return None


def _safetensors(head: bytes, size: int) -> FileKind | None:
    length = int.from_bytes(head[:8], "little")
    if size >= 10 and head[8:9] == b"{" and 2 <= length <= size - 8:
        return FileKind("safetensors", "a safetensors file")
    if head[8:10] == b'{"' and size - 8 < length <= 100_000_000:  # no library reads a longer header
        fact = f"is a safetensors file that was cut off: it has {size:,} bytes, its list alone {length + 8:,}"
        return FileKind("cut_safetensors", fact, "Copy it again.")
    return None


def _cut_table(path: str, head: bytes, size: int) -> FileKind | None:
    """The kind of a V1 file or an index that lost its end, with the footer; else None."""
    if head[:2] != b"\0\0" or size < 4:
        return None
    from .v1 import least_size

    advice = "The footer is missing, so the file was cut off while it was written or copied; copy it again."
    if path.endswith(".index"):
        return FileKind("cut_index", f"is the index of a V2 checkpoint, cut off after {size:,} bytes", advice)
    least = least_size(path)
    if least is None:
        return None
    needs = f"and should have {least:,} at least" if least > size else "and no footer"
    return FileKind("cut_v1", f"is a V1 checkpoint that was cut off: it has {size:,} bytes {needs}", advice)


def _proto(path: str, head: bytes, size: int) -> FileKind:
    """The kind of a GraphDef, MetaGraphDef, SavedModel or event file, told by its fields for lack of a magic number."""
    if b"brain.Event:" in head[:64]:
        return FileKind("events", "a TensorBoard event file", "It holds summaries; values are in checkpoint files.")
    view = mapped(path).view() if not is_remote(path) or _may_be_graph(head, size) else memoryview(b"")
    outline = _outline(view)
    if outline.get(1) == VARINT and outline.get(2) == LEN and any(map(_is_meta_graph, _each(view, 2))):
        return FileKind("saved_model_pb", "the graph of a SavedModel", "Give its folder.")
    if outline and _is_graph(view):
        return FileKind("graphdef", "a GraphDef")
    if outline and _is_meta_graph(view):
        return FileKind(
            "metagraph",
            "a MetaGraph (the graph of a model)",
            "It holds no values; a checkpoint has those in .index and .data files.",
        )
    if re.fullmatch(rb"[\t\n\r -~]+", head):
        return FileKind("text", "a text file")
    if outline:
        return FileKind("protobuf", "a protobuf, but no graph, SavedModel or checkpoint")
    if path.endswith((".meta", ".pb")) and _ends_inside(view):
        fact = f"is a graph that was cut off: it has {size:,} bytes, and its last part goes on behind them"
        return FileKind(CUT_GRAPH, fact, "Copy it again.")
    return FileKind(
        "unknown",
        f"none of the kinds of file that are known (it starts with {head[:8].hex(' ')})",
        "A renamed data file of a V2 checkpoint looks like this: it needs its own name, and its .index next to it.",
    )


def _ends_inside(view: memoryview) -> bool:
    """Whether a message has only fields of a graph and breaks off inside the last one."""
    pos, end = 0, len(view)
    try:
        while pos < end:
            tag, pos = varint(view, pos, end)
            size, pos = varint(view, pos, end)  # for a varint field, its value
            if not 1 <= tag >> 3 <= 7 or tag & 7 not in (LEN, VARINT):
                return False
            pos += size if tag & 7 == LEN else 0
    except DamagedError:
        return True
    return pos > end


def _may_be_graph(head: bytes, size: int) -> bool:
    """Whether a remote file is worth downloading as a whole to make sure that it is a graph: it begins like one, and is
    not too large for one."""
    return size < _LARGEST_GRAPH and head[:1] in (b"\x08", b"\x0a", b"\x12", b"\x22")


def _outline(view: memoryview) -> dict[int, int]:
    """Field number -> wire type of a message; {} if the bytes are not a plausible message."""
    found: dict[int, int] = {}
    try:
        for field, wire, _value in fields(view):
            if field > 100 or found.setdefault(field, wire) != wire:
                return {}
    except DamagedError:
        return {}
    return found


def _each(view: memoryview, number: int) -> Iterator[memoryview]:
    """The values of all length-delimited fields with this number."""
    return (value for field, wire, value in fields(view) if field == number and wire == LEN)


def _is_meta_graph(view: memoryview) -> bool:
    """MetaGraphDef { 1 meta_info_def, 2 graph_def, 3 saver_def, 4 collection_def*, 5 signature_def*, ... }"""
    outline = _outline(view)
    if not outline.keys() <= set(range(1, 8)) or set(outline.values()) != {LEN}:
        return False
    return any(map(_is_graph, _each(view, 2)))


def _is_graph(view: memoryview) -> bool:
    """GraphDef { 1 node*, 2 library, 3 version, 4 versions, 5 debug_info }: must have versions, or nodes with
    attributes.

    The two strings that a node begins with are not enough, since many messages begin that way.
    """
    outline = _outline(view)
    if any(outline.get(field, wire) != wire for field, wire in _GRAPH.items()) or not outline.keys() <= _GRAPH.keys():
        return False
    attributes = False
    for node in itertools.islice(_each(view, 1), _LOOKED_AT) if 1 in outline else ():
        inside = _outline(node)
        if not {1, 2} <= inside.keys() <= _NODE.keys() or any(_NODE[field] != inside[field] for field in inside):
            return False
        if not all(_NODE_NAME.fullmatch(bytes(text)) for number in (1, 2) for text in _each(node, number)):
            return False
        attributes = attributes or 5 in inside
    versions = 4 in outline and all(_outline(each).get(1) == VARINT for each in _each(view, 4))
    return versions or (1 in outline and (attributes or 3 in outline))
