"""Which way up a camera held: the orientation in the EXIF data of a JPEG file, from the file's beginning.

Slim's preprocessing does not look at it, and neither does TensorFlow's decoder: a photo that was taken upright on a
phone is seen lying on its side. `--exif-orientation` turns such photos.
"""

from __future__ import annotations

import struct

HEAD = 4096  # bytes of a file in which its orientation stands
UPRIGHT = 1
_TAG = 0x0112  # Orientation (EXIF 2.32, 4.6.4)
_KINDS = {3: "H", 4: "I"}  # SHORT, as it should be, and LONG
_APP1, _SCAN = 0xE1, 0xDA


def orientation(head: bytes) -> int:
    """1 to 8 as EXIF numbers them, 1 for upright; so is a file that does not say, or is no JPEG file."""
    if not head.startswith(b"\xff\xd8"):
        return UPRIGHT
    place = 2
    while place + 4 <= len(head) and head[place] == 0xFF and head[place + 1] != _SCAN:
        length = int.from_bytes(head[place + 2 : place + 4], "big")
        if head[place + 1] == _APP1 and head[place + 4 : place + 10] == b"Exif\0\0":
            try:
                return _in_directory(head[place + 10 : place + 2 + length])
            except struct.error:
                return UPRIGHT
        place += 2 + length
    return UPRIGHT


def _in_directory(data: bytes) -> int:
    """The orientation in the first directory of TIFF data. Raises struct.error for data that are cut short."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return UPRIGHT
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, first)
    for number in range(count):
        entry = first + 2 + 12 * number
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag == _TAG:
            (value,) = struct.unpack_from(f"{order}{_KINDS.get(kind, 'H')}", data, entry + 8)
            return value if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT
