"""Reads CSV files with the labels of the images in a folder.

    file,label                 with or without a header; other columns are ignored
    id;breed;split             other delimiters; files without their ending; a column of splits
    image,tags                 several labels per image: in a cell (cat|hat, or "cat, hat", or cat hat), one row each,
    image,cat,dog,hat          or one column each, of 0 and 1

The column of the files is found by looking them up in the folder. If anything is ambiguous, the error says what to
give."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError, nearest
from ...labels import told_apart, writable
from .examples import DataSet, Examples, in_splits, named
from .exif import UPRIGHT, orientation
from .folders import TOO_MANY, files_below, image_head
from .labelling import ClassNames, agreed, numbered, only_labels, several
from .splits import said_by, split_of

SUFFIXES = (".csv", ".tsv")
LOOKED_AT = 500  # rows used to find the column of the files
OUTSIDE = 5  # most leading folders of a path that may be missing in the data's folder
LABELS = re.compile(r"(label|class|class_?name|category|target|tag|y)(s|es)?[_ ]?\d*", re.IGNORECASE)
SPLITS = ("split", "set", "subset", "partition", "usage", "fold")
FLAGS = {"is_valid": "validation", "is_validation": "validation", "is_test": "test"}  # fastai's
TRUE, FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no", "")
SEPARATORS = {"|": "|", ";": ";", ",": ",", "spaces": None}  # as str.split takes them


class CsvTable(NamedTuple):
    """A CSV: the names of its columns (none without a header), and its rows."""

    columns: list[str]
    rows: list[list[str]]

    def column(self, number: int) -> list[str]:
        """The cells of a column, stripped of spaces; "" for rows that are too short."""
        return [row[number].strip() if number < len(row) else "" for row in self.rows]

    @property
    def width(self) -> int:
        return max(map(len, self.rows), default=0)


# --- which files ---------------------------------------------------------------------------------------------------


def find_tables(root: Path) -> dict[str, Path]:
    """The CSV files in a folder by their split: "train", "validation", "test", or "" if no name tells.

    Raises DataError if it is unclear which one is meant.
    """
    files = [file for file in sorted(root.iterdir()) if file.suffix.lower() in SUFFIXES and file.is_file()]
    plain = [file for file in files if file.stem.casefold() in ("label", "labels")]
    if len(files) < 2 or plain:
        return {"": (plain or files)[0]} if files else {}
    splits = [said_by(file.stem).split for file in files]
    found = {split: file for split, file in zip(splits, files, strict=True) if split}
    if "train" in found and len(found) == sum(split is not None for split in splits):
        return found
    fact = f"{named('file', [writable(file.name) for file in files])} may hold the labels"
    raise DataError(fact, path=root, advice="Name one with --labels-csv.")


def read_tables(
    root: Path,
    tables: Mapping[str, Path],
    called: ClassNames | None = None,
    *,
    many: bool = False,
    columns: Sequence[str] = (),
) -> DataSet:
    """The images below `root` that the tables name, in the tables' splits.

    `columns` are the label columns, needed if several columns are possible. Raises DataError if the columns are
    unclear, for several labels of an image unless `many`, and if too many files are missing."""
    images, notes = Images(root), []
    marks: dict[int, tuple[str, list[Any]]] = {}  # image -> its split and its labels
    own: ClassNames | None = None
    for split, path in tables.items():
        try:
            read = _read(read_table(path), images, columns, many)
        except DataError as error:
            raise error.at(path=path) from None
        if read is None:
            notes.append(f"left out, it has no labels: file {writable(path.name)}")
            continue
        if own and read.own != own:
            raise DataError(f"has other columns than {names_of(tables)[0]}", path=path)
        own = read.own
        notes += read.notes
        for image, labels, said in zip(read.images, read.labels, read.splits, strict=True):
            before = marks.setdefault(image, (split or said, []))
            if before[0] != (split or said):
                raise DataError(f"{images.names[image]} is in {before[0]} and in {split or said}", path=path)
            before[1].extend(label for label in labels if label not in before[1])
    if not marks:
        raise DataError(f"no column with labels in {', '.join(names_of(tables))}", path=root)
    chosen = sorted(marks)
    shown = [images.names[i] for i in chosen]
    values = [marks[i][1] for i in chosen]
    try:
        called = agreed(own, called)
        classes, ids = several(values, called) if many else numbered(only_labels(values, shown), called)
    except DataError as error:
        raise error.at(path=next(iter(tables.values()))) from None
    splits = _splits(shown, [marks[i][0] for i in chosen])
    without = len(images.files) - len(chosen)
    notes += [f"left out, in no row: {without:,} of {len(images.files):,} images"] if without else []
    every = images.examples(chosen, ids)
    parts = {
        split: every.take([i for i, said in enumerate(splits) if said == split]) for split in dict.fromkeys(splits)
    }
    return in_splits(classes, parts, "csv", root, notes, turned=images.turned(chosen))


def names_of(tables: Mapping[str, Path]) -> list[str]:
    """The names of the files for messages."""
    return [writable(path.name) for path in tables.values()]


def _splits(names: Sequence[str], said: Sequence[str]) -> list[str]:
    """The split of each image: by the table, else by its folder if the folders are splits, else "train"."""
    if any(said):
        return [split or "train" for split in said]
    folders = [split for name in names if (split := split_of(name.split("/")[0]))]
    known = len(folders) == len(names) and len(set(folders)) > 1 and "train" in folders
    return folders if known else ["train"] * len(names)


# --- the images of the folder --------------------------------------------------------------------------------------


class Images:
    """The images below a folder, found by their path or the end of it, with or without the file name's ending."""

    def __init__(self, root: Path) -> None:
        heads = {file: orientation(head) for file in files_below(root) if (head := image_head(file))}
        self.files, self._orientations = list(heads), list(heads.values())
        self.names = [writable(file.relative_to(root)) for file in self.files]
        self._whole = {name: i for i, name in enumerate(self.names)}
        self._ends: dict[str, int | None] = {}  # None: ambiguous
        for i, name in enumerate(self.names):
            bare = name[: -len(self.files[i].suffix)] if self.files[i].suffix else name
            for text in {name, bare}:
                parts = text.split("/")
                for end in ("/".join(parts[start:]) for start in range(len(parts))):
                    self._ends[end] = None if end in self._ends else i

    def find(self, cell: str, outside: int = 0) -> int | None:
        """The number of the image that a cell means, ignoring its first `outside` folders; None if there is none.

        Raises DataError if several images could be meant.
        """
        parts = _parts(cell)[outside:]
        name = "/".join(parts)
        if name in self._whole:
            return self._whole[name]
        if name in self._ends and self._ends[name] is None:
            raise DataError(f"{cell} could be several images of the folder", advice="Write their folders as well.")
        return self._ends.get(name)

    def knows(self, cell: str, outside: int) -> bool:
        """Whether a cell means one or more images."""
        name = "/".join(_parts(cell)[outside:])
        return bool(name) and name in self._ends

    def turned(self, chosen: Iterable[int]) -> int:
        """How many of the images with these numbers are not upright by their EXIF data."""
        return sum(self._orientations[i] != UPRIGHT for i in chosen)

    def examples(self, chosen: Sequence[int], label_ids: np.ndarray) -> Examples:
        """The images with these numbers."""
        files = [self.files[i] for i in chosen]
        names, sizes = tuple(self.names[i] for i in chosen), tuple(file.stat().st_size for file in files)
        return Examples(label_ids, names, sizes, lambda i: files[i].read_bytes())


def _parts(cell: str) -> list[str]:
    return [part for part in cell.strip().replace("\\", "/").split("/") if part not in ("", ".")]


# --- what the columns are ------------------------------------------------------------------------------------------


class Read(NamedTuple):
    """The content of a table: for each of its images the number, the labels, and the split or "". `own` holds the names
    of columns of 0 and 1, if there are any; then the labels are numbers of these columns.
    """

    images: list[int]
    labels: list[list[Any]]
    splits: list[str]
    own: ClassNames | None
    notes: list[str]


def read_table(path: Path) -> CsvTable:
    """The cells of a CSV. Raises DataError if the file is not one."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("is not a text file in UTF-8", path=path, advice="Save it as CSV UTF-8.") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", path=path) from None
    text = re.sub(r"\Asep=.\s*\n", "", text)  # tells Excel the delimiter
    first = text.partition("\n")[0]
    delimiter = max((",", ";", "\t"), key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(map(str.strip, row))]
    if not rows:
        raise DataError("holds no rows", path=path)
    return CsvTable([], rows)


def _read(table: CsvTable, images: Images, wanted: Sequence[str], many: bool) -> Read | None:
    """The table's content on the images; None if it holds only their names."""
    column, outside = _file_column(table, images)
    first = table.column(column)[0]
    if not images.knows(first, outside) and not Path(first).suffix and not first.isdigit():
        table = CsvTable([cell.strip() for cell in table.rows[0]], table.rows[1:])
    splits, split_column = _split_column(table, column)
    others = [i for i in range(table.width) if i not in (column, split_column)]
    chosen = _label_columns(table, others, wanted, many)
    if not chosen:
        return None
    labels, own, notes = _labels(table, chosen, many)
    found, missing = [], []
    for cell in table.column(column):
        image = images.find(cell, outside)
        found.append(image)
        missing += [cell] if image is None else []
    if len(missing) > TOO_MANY * len(found):
        fact = f"{len(missing):,} of {len(found):,} files that it names are not there: {named('file', missing)}"
        raise DataError(fact, advice="--data names the folder that they lie in.")
    notes += [f"left out, not there: {named('file', missing)}"] if missing else []
    rows = [(i, said, split) for i, said, split in zip(found, labels, splits, strict=True) if i is not None]
    return Read([i for i, _, _ in rows], [said for _, said, _ in rows], [split for _, _, split in rows], own, notes)


def _file_column(table: CsvTable, images: Images) -> tuple[int, int]:
    """The column of the files, and how many leading folders of each path are not in the data's folder. Of several
    columns the one with the most different files is taken, since labels may be numbers like the names of files."""
    found: dict[tuple[int, int], int] = {}
    for column in range(table.width):
        cells = [cell for cell in table.column(column)[:LOOKED_AT] if cell]
        for outside in range(OUTSIDE):
            known = [cell for cell in cells if images.knows(cell, outside)]
            in_front = {tuple(_parts(cell)[:outside]) for cell in cells[1:]}
            if len(known) >= 0.5 * len(cells[1:]) > 0 and len(in_front) == 1:
                found[column, outside] = len(set(known))
    if not found:
        which, row = ("second", table.rows[1]) if len(table.rows) > 1 else ("only", table.rows[0])
        shown = ", ".join(row[:3])
        fact = f"no column names images of the folder, which has {len(images.files):,}; its {which} row is {shown}"
        raise DataError(fact, advice="--data names the folder that they lie in.")
    return max(found, key=found.__getitem__)


def _split_column(table: CsvTable, files: int) -> tuple[list[str], int | None]:
    """The split of each row, or "", and the number of the column that tells it."""
    for number, name in enumerate(table.columns):
        cells = table.column(number)
        plain = name.casefold().replace(" ", "_")
        if number == files or plain not in (*SPLITS, *FLAGS):
            continue
        if plain in FLAGS and {cell.casefold() for cell in cells} <= {*TRUE, *FALSE}:
            return [FLAGS[plain] if cell.casefold() in TRUE else "train" for cell in cells], number
        said = [split_of(cell) for cell in cells]
        splits = [split for split in said if split]
        if len(splits) == len(said):
            return splits, number
        if any(said):
            wrong = cells[said.index(None)]
            raise DataError(f"column {name} says {wrong!r}", advice="It can say train, validation or test.")
    return [""] * len(table.rows), None


def _label_columns(table: CsvTable, others: Sequence[int], wanted: Sequence[str], many: bool) -> list[int]:
    """The columns with labels. Raises DataError if it is unclear which these are."""
    names = dict(enumerate(table.columns))
    strange = [name for name in wanted if name not in table.columns]
    if strange:
        listed = ", ".join(table.columns) or "no names of columns"
        raise DataError(f"has no column {strange[0]}{nearest(strange[0], table.columns)}", advice=f"It has {listed}.")
    if wanted:
        return [table.columns.index(name) for name in wanted]
    by_name = [i for i in others if LABELS.fullmatch(names.get(i, ""))]
    if len(by_name) == 1 or (by_name and many):
        return by_name
    if len(others) < 2:
        return list(others)
    if not by_name and table.columns and all(is_hot(table.column(i)) for i in others):
        return list(others)
    listed = ", ".join(names.get(i, f"column {i + 1}") for i in by_name or others)
    advice = "--label-column names it" if table.columns else "Give the file a header, and --label-column names it"
    raise DataError(f"{listed}: any of them could be the label", advice=f"{advice}.")


def is_hot(cells: Sequence[str]) -> bool:
    """Whether all cells are 0 or 1, or spelled as such."""
    return {cell.casefold() for cell in cells} <= {"0", "1", "0.0", "1.0", "true", "false", ""}


def _labels(table: CsvTable, chosen: Sequence[int], many: bool) -> tuple[list[list[Any]], ClassNames | None, list[str]]:
    """The labels of each row, the names of the columns if they hold 0 and 1, and notes."""
    cells = [table.column(i) for i in chosen]
    if len(chosen) > 1 and all(map(is_hot, cells)):
        names = told_apart({number: table.columns[i] for number, i in enumerate(chosen)})
        rows = zip(*cells, strict=True)
        return (
            [[i for i, cell in enumerate(row) if cell.casefold() in TRUE] for row in rows],
            ClassNames("its header", names),
            [],
        )
    found: list[list[str]] = [[] for _ in table.rows]
    notes = []
    for column in cells:
        word = separator_of(column, many)
        for labels, cell in zip(found, column, strict=True):
            texts = cell.split(SEPARATORS[word]) if word else [cell]
            labels += [text.strip() for text in texts if text.strip()]
        notes += [f"several labels of an image are separated by {word}"] if word else []
    return found, None, notes


def separator_of(cells: Sequence[str], many: bool) -> str:
    """The separator of several labels in a cell, or "". Splitting must give fewer distinct labels than distinct cells.

    >>> separator_of(["cat|hat", "cat", "hat"], True), separator_of(["haze primary", "haze", "primary"], True)
    ('|', 'spaces')
    >>> separator_of(["golden retriever", "tabby cat"], True)
    ''
    """
    different = set(filter(None, cells))
    for word, sign in SEPARATORS.items():
        if word == "spaces" and not many:
            continue
        labels = {text.strip() for cell in different for text in cell.split(sign)} - {""}
        if any(len(cell.split(sign)) > 1 for cell in different) and (len(labels) < len(different) or (many and sign)):
            return word
    return ""
