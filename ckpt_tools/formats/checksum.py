"""Masked CRC-32C (Castagnoli). The mask keeps checksums of data that itself holds checksums reliable."""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec, PathFinder
from os.path import exists, join

from .proto import Bytes

_DELTA = 0xA282EAD8


def _load_crc32c() -> Callable[..., int]:
    """The function of the crc32c package, loaded without importing the package.

    `import crc32c` looks up its own version by importlib.metadata, which takes 60 ms, longer than everything else in
    listing a checkpoint. So its extension module is loaded directly if it is found at the expected place.
    """
    package = PathFinder.find_spec("crc32c")
    for folder in package.submodule_search_locations or () if package else ():
        for suffix in EXTENSION_SUFFIXES:
            file = join(folder, "_crc32c" + suffix)
            if exists(file):
                loader = ExtensionFileLoader("crc32c._crc32c", file)
                module = loader.create_module(ModuleSpec("crc32c._crc32c", loader, origin=file))
                loader.exec_module(module)
                return module.crc32c
    from crc32c import crc32c

    return crc32c


crc32c = _load_crc32c()


def mask(crc: int) -> int:
    """
    >>> hex(mask(0xE3069283))
    '0xc78ab0e5'
    """
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + _DELTA) & 0xFFFFFFFF


def masked_crc(data: Bytes) -> int:
    """Masked CRC-32C of any buffer.

    >>> hex(masked_crc(b"123456789"))
    '0xc78ab0e5'
    """
    return mask(crc32c(data))
