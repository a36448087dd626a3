"""One self-contained page to explore a checkpoint in the browser: tree, treemap, statistics, histograms, filters.

Everything on the page is computed when it is written, and its size is bounded: a histogram has 40 bins, a picture shows
64 filters, and if a checkpoint has more than 20,000 tensors, only the values of the largest are read.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import CheckpointError, OutputError
from .formats.placing import write_text
from .names import reading_order
from .overview import Statistics, TensorRow, finite, pieces, plain, statistics_of, totals
from .tensors import Tensor

if TYPE_CHECKING:
    import numpy as np

BINS = 40
FILTERS = 64  # pictures of one tensor
SPELT_OUT = 64  # a tensor with at most this many values is printed instead
READ = 20_000  # tensors whose values are read
_TEMPLATES = Path(__file__).with_name("templates")
_SCRIPTS = ("tree.js", "treemap.js", "tensor.js", "explorer.js")
_MARK = b"<!doctype html>"


class Page(NamedTuple):
    """The page, the problems of tensors that could not be read, and the statistics of those that were read, by name."""

    html: str
    problems: dict[str, str]
    statistics: dict[str, Statistics]


def explore(
    tensors: Mapping[str, Tensor],
    rows: Sequence[TensorRow],
    title: str,
    facts: str,
    progress: Callable[[int, int], None] | None = None,
) -> Page:
    """The page as HTML. `title` is its heading, `facts` the line below. Reads the values, one tensor at a time.

    `progress` is called with the number of finished tensors and their total. Tensors that cannot be read, such as
    damaged ones, are shown without values.
    """
    rows = in_reading_order(rows)
    largest = sorted(rows, key=lambda row: -(row.bytes or 0))[:READ]
    read = {row.name for row in largest}
    described, problems, measured = [], {}, {}
    for done, row in enumerate(rows):
        about = {key: value for key, value in row._asdict().items() if value is not None or key == "bytes"}
        if row.name in read:
            try:
                values = tensors[row.name].load()
                measured[row.name] = statistics_of(values)
                about |= _values(row, values, measured[row.name])
            except CheckpointError as error:
                about["problem"] = problems[row.name] = str(error.at(tensor=row.name))
        described.append(about)
        if progress:
            progress(done + 1, len(rows))
    document = {
        "facts": facts,
        "totals": {total.kind: total._asdict() for total in totals(rows)},
        "unread": f"Its values were not read: only those of the {READ:,} largest tensors were.",
        "tensors": described,
    }
    return Page(_filled(title, document), problems, measured)


def in_reading_order(rows: Sequence[TensorRow]) -> Sequence[TensorRow]:
    """The rows with block_2 before block_10 if they came in alphabetical order; else unchanged."""
    if any(a.name > b.name for a, b in zip(rows, rows[1:], strict=False)):
        return rows
    return sorted(rows, key=lambda row: reading_order(row.name))


def write_page(page: str, path: str) -> int:
    """Writes the page, moving it into place when it is complete. Returns its size in bytes.

    Raises OutputError if `path` exists and is not a page.
    """
    target = Path(path)
    if target.exists():
        with target.open("rb") as file:
            if file.read(len(_MARK)).lower() != _MARK:
                raise OutputError("exists and is not a page", path=path, advice="Choose another name for --html.")
    try:
        write_text(target, page)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=path) from None
    return len(page.encode(errors="backslashreplace"))


def histogram(values: np.ndarray, low: float, high: float) -> list[int]:
    """Counts of the finite values in BINS bins of equal width from `low`, their minimum, to `high`."""
    import numpy as np

    counts = np.zeros(BINS, "int64")
    low, high = float(low), float(high)
    scale = 1.0 if math.isfinite(high - low) else 0.25
    for piece in pieces(values.reshape(-1)):
        kept = finite(plain(piece)).astype("float64", copy=False)
        if low == high:  # NumPy adds half a unit on both sides, which is lost in large numbers
            counts[BINS // 2] += kept.size
        else:
            counts += np.histogram(kept if scale == 1 else kept * scale, BINS, (low * scale, high * scale))[0]
    return counts.tolist()


def picture(row: TensorRow, values: np.ndarray) -> dict[str, Any] | None:
    """The filters of a convolution as bytes of grey or RGB pixels; None for any other tensor.

    A kernel `[height, width, in, out]` with up to 4 input channels is a first convolution, and is shown in colour if it
    has 3. For other kernels, the first input channel is shown. Grey 128 stands for the weight 0, and the whole picture
    has one scale, so that weak filters look weak.
    """
    import numpy as np

    if row.kind != "weight" or len(row.shape) != 4 or not 3 <= max(row.shape[:2]) <= 16 or not row.parameters:
        return None
    if values.dtype.kind in "OcV" and values.dtype.name != "bfloat16":
        return None
    height, width, channels, count = row.shape
    first = channels <= 4
    shown = 3 if channels == 3 else 1
    kernel = np.nan_to_num(values[:, :, :shown, :FILTERS].astype("float64"), posinf=0, neginf=0)
    scale = np.abs(kernel).max() or 1.0
    pixels = np.clip(128 + 127 * kernel / scale, 0, 255).astype("uint8").transpose(3, 0, 1, 2)
    of_all = f"the first {FILTERS} of {count}" if count > FILTERS else f"all {count}"
    of_input = "" if channels == shown else f", input channel 0 of {channels}"
    return {
        "height": height,
        "width": width,
        "channels": shown,
        "count": len(pixels),
        "first": first,
        "pixels": base64.b64encode(pixels.tobytes()).decode(),
        "note": f"{of_all} filters{of_input}; grey is 0, black and white are ±{scale:.3g}",
    }


def _values(row: TensorRow, values: np.ndarray, found: Statistics) -> dict[str, object]:
    """The page's data on one tensor's values; `found` are their statistics."""
    import numpy as np

    about: dict[str, object] = {"statistics": {key: _short(value) for key, value in found._asdict().items()}}
    if row.parameters <= SPELT_OUT:
        about["values"] = np.array2string(values, max_line_width=100, separator=", ", threshold=SPELT_OUT)
    elif found.min is not None and found.max is not None and found.min < found.max:
        with suppress(ValueError), np.errstate(all="ignore"):  # some extreme numbers cannot be binned
            about["counts"] = histogram(values, found.min, found.max)
    drawn = picture(row, values)
    return about | ({"picture": drawn} if drawn else {})


def _short(value: float | int | None) -> float | int | None:
    return float(f"{value:.9g}") if isinstance(value, float) else value


def _filled(title: str, document: dict[str, Any]) -> str:
    """Fills in the template. "<" is escaped in the JSON, so that no name can end the script."""
    parts = {
        "title": html.escape(title),
        "style": _template("explorer.css"),
        "script": "\n".join(map(_template, _SCRIPTS)),
        "data": json.dumps(document, separators=(",", ":")).replace("<", "\\u003c"),
    }
    pieces_of_page = _template("explorer.html").split("{{")
    filled = [pieces_of_page[0]]
    for piece in pieces_of_page[1:]:
        word, _, rest = piece.partition("}}")
        filled += [parts[word], rest]
    return "".join(filled)


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
