"""Recognises the words for splits of a data set in the names of folders, files, arrays and columns.

>>> [split_of(name) for name in ("Training", "test_set", "VAL", "train2017", "hold-out", "bullet_train", "cat")]
['train', 'test', 'validation', 'train', 'test', None, None]
"""

from __future__ import annotations

import re
from typing import NamedTuple

WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "eval", "evaluation", "dev", "development"),
    "test": ("test", "testing", "tst", "holdout"),
}
FILLERS = (
    "set",
    "data",
    "dataset",
    "images",
    "image",
    "imgs",
    "img",
    "photos",
    "pictures",
    "samples",
    "split",
    "folder",
)
_SPLITS = {word: split for split, words in WORDS.items() for word in words}


class Said(NamedTuple):
    """The split that a name means, if any, and its remaining words without fillers."""

    split: str | None
    rest: tuple[str, ...]


def said_by(name: str) -> Said:
    """The split that a name means, and its other words. A name with two different splits means none.

    >>> said_by("seg_train"), said_by("flowers_train_00000-of-00005.tfrecord").split, said_by("train_val").split
    (Said(split='train', rest=('seg',)), 'train', None)
    """
    text = re.sub(r"hold[\W_]out", "holdout", name.casefold())
    words = [_without_filler(word) for word in re.findall(r"[^\W\d_]+", text)]
    words = [word for word in words if word not in FILLERS]
    splits = {_SPLITS[word] for word in words if word in _SPLITS}
    rest = tuple(word for word in words if word not in _SPLITS)
    return Said(splits.pop() if len(splits) == 1 else None, rest)


def split_of(name: str) -> str | None:
    """ "train", "validation" or "test" for a name that means this and nothing else."""
    said = said_by(name)
    return said.split if not said.rest else None


def _without_filler(word: str) -> str:
    """ "train" for "trainset"; a word without a split is returned unchanged."""
    stems = (word.removesuffix(filler) for filler in FILLERS if word.endswith(filler))
    return next((stem for stem in stems if stem in _SPLITS), word)
