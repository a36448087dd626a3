"""The orientation of a photo by the EXIF data of a JPEG file, read from the file's beginning.

Slim's preprocessing and TensorFlow's decoder ignore it, so that a photo taken in portrait format on a phone lies on its
side. `--exif-orientation` rotates such photos.
"""

from __future__ import annotations

import struct

HEAD = 4096  # bytes of a file in which to look for the orientation
UPRIGHT = 1
_TAG = 0x0112  # Orientation (EXIF 2.32, 4.6.4)
_KINDS = {3: "H", 4: "I"}  # SHORT, as specified, and LONG
_APP1, _SCAN = 0xE1, 0xDA


def orientation(head: bytes) -> int:
    """EXIF's orientation, 1 to 8. It is 1, upright, also for files without it and files that are not JPEG."""
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
