"""Exports a trained net including its preprocessing, and verifies that the written files compute the same.

exported = export(ExportOptions(train_dir="run", output="exported"))
exported.rows[0]    {"format": "saved_model", "file": "exported/saved_model", "bytes": ..., "largest_difference": ...}
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError, OutputError, TrainingError, nearest
from ...events import Finished, Noted, OnEvent, Opened, ignore
from ...formats.placing import write_text
from ..data.examples import Examples, named
from ..options.configuration import option
from ..options.training import FLOAT32, PRECISIONS
from .classifier import Classifier, SourceOptions, threshold_option
from .data_options import data_of
from .predict import find_images
from .running import logits_of, run_on

if TYPE_CHECKING:
    from PIL.Image import Image as Photo

FORMATS = ("saved_model", "graphdef", "tflite")
_CHECKED = 8  # images compared if none are named
_BATCH = 16  # images run at a time
TURNED = "turned upright: TensorFlow's decoder does not read EXIF data"
ROUNDED = 0.02  # largest allowed difference of a probability if the net computes below float32


@dataclass(frozen=True)
class ExportOptions(SourceOptions):
    """The options of `ckpt-export`."""

    labels: str | None = option(None, "file with the net's class names, in order", group="source", metavar="FILE")

    output: str = option("", "folder to create for the exported model", group="output", metavar="DIR")
    format: tuple[str, ...] = option(
        ("saved_model",), f"{', '.join(FORMATS)}, or several with commas", group="output",
        metavar="FORMAT",
    )  # fmt: skip
    top: int = option(
        5, "labels per image, most likely first; all of them for multi-label nets", group="output", least=1
    )
    threshold: tuple[str, ...] = threshold_option()
    check: tuple[str, ...] = option(
        (), "images to compare on; by default some of the run's own, or synthetic ones", group="output", metavar="IMAGE"
    )
    precision: str = option("float32", "precision of the exported net", group="output", choices=PRECISIONS[1:])
    force: bool = option(False, "replace the folder if it exists", group="output")

    def problems(self) -> list[str]:
        problems = super().problems()
        if not self.output:
            problems.append("--output must be given")
        if not self.formats:
            problems.append("--format names no format")
        for name in self.formats:
            if name not in FORMATS:
                problems.append(f"no format {name!r}{nearest(name, FORMATS)}; there are {', '.join(FORMATS)}")
        if "tflite" in self.formats and self.precision == "bfloat16":
            problems.append("--format tflite with --precision bfloat16: TFLite has none; float16 halves its weights")
        return problems

    @property
    def formats(self) -> tuple[str, ...]:
        """The requested formats, each once."""
        named = (part.strip() for text in self.format for part in text.split(","))
        return tuple(dict.fromkeys(part for part in named if part))


@dataclass(frozen=True)
class Exported:
    """The result of an export. `rows` has one entry per format, with the largest difference of a probability; `images`
    is the number of images compared."""

    rows: list[dict[str, Any]]
    source: str
    net: str
    labels: tuple[str, ...]
    images: int


def export(options: ExportOptions, on_event: OnEvent = ignore) -> Exported:
    """Writes the folder, which appears only when every format has been read back and has agreed.

    Raises OutputError if the folder exists (without `force`) or cannot be written, and TrainingError for a format whose
    probabilities differ from the net's by more than rounding.
    """
    # --- net and images to compare on ---
    classifier = options.open(labels=options.labels, threshold=options.threshold)
    classifier.must_take_images()
    target = Path(options.output)
    _check_target(target, options.force)
    images = _images(options, classifier)
    on_event(Opened(classifier.net.title, classifier.path, classifier.classes))
    for note in (*classifier.notes, *([f"the model needs images {TURNED}"] if classifier.upright else [])):
        on_event(Noted(note))

    # --- write, read back, compare ---
    expected = _expected(classifier, images, on_event)
    with _made_beside(target) as folder:
        rows = _written(classifier, options, folder, images, expected)
        exported = Exported(
            [{**row, "file": str(target / row["file"])} for row in rows],
            classifier.path, classifier.net.name, classifier.labels, len(images),
        )  # fmt: skip
        _describe(folder, classifier, rows, len(images), options.precision)
    on_event(Finished(exported))
    return exported


def _written(
    classifier: Classifier, options: ExportOptions, folder: Path, images: Sequence[bytes], expected: np.ndarray
) -> list[dict[str, Any]]:
    """Writes and compares each format's file in `folder`; returns the rows of the report with relative paths."""
    from .exported import FORMS, PIXELS, serving_session

    rows = []
    with serving_session(classifier, options.top, options.precision) as session:
        pixels = session.run(f"{PIXELS}:0", {"images:0": list(images)})
        # A SavedModel is written last: its signatures need the graph's collections cleared.
        for name in sorted(options.formats, key=lambda name: name == "saved_model"):
            FORMS[name].write(session, classifier, folder / FORMS[name].file, options.precision)
    for name in options.formats:
        form, path = FORMS[name], folder / FORMS[name].file
        parts = [slice(start, start + _BATCH) for start in range(0, len(images), _BATCH)]
        found = np.concatenate([form.run(path, images[part], pixels[part]) for part in parts])
        difference = float(np.abs(found - expected).max())
        allowed = form.tolerance if options.precision == FLOAT32 else ROUNDED
        if not difference <= allowed:  # NaN counts as a difference, too
            fact = f"the {name} gives probabilities that differ by {difference:.3g} from those of the net"
            raise TrainingError(fact, path=classifier.path)
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        rows.append({"format": name, "file": form.file, "bytes": size, "largest_difference": difference})
    return rows


def _expected(classifier: Classifier, images: Sequence[bytes], on_event: OnEvent) -> np.ndarray:
    """All probabilities of the images, float64 [images, classes], computed like in ckpt-predict."""
    sizes = tuple(len(image) for image in images)
    names = tuple(f"image {i}" for i in range(len(images)))
    examples = Examples(np.zeros(len(images), np.int32), names, sizes, lambda i: images[i])
    parts = run_on(
        classifier, examples, lambda batch: logits_of(classifier, batch), title="comparing",
        batch_size=_BATCH, device="cpu", on_event=on_event,
    )  # fmt: skip
    return classifier.probabilities(np.concatenate([part["logits"] for part in parts]))


def _images(options: ExportOptions, classifier: Classifier) -> list[bytes]:
    """Image files for the comparison: the named ones, some of the run's validation images, or generated ones."""
    if options.check:
        return [_as_file(file, Path(file).read_bytes(), classifier.upright) for file in find_images(options.check)]
    if classifier.options.data and Path(classifier.options.data).exists():
        examples = data_of(classifier).validation
        spread = np.linspace(0, len(examples) - 1, min(_CHECKED, len(examples))).astype(int)
        files = []
        for i in spread:
            with suppress(DataError):
                files.append(_as_file(examples.names[i], examples.read(int(i)), classifier.upright))
        if files:
            return files
    return [_made_up(seed) for seed in range(_CHECKED)]


def _made_up(seed: int) -> bytes:
    """A JPEG file of coloured blots, with size and colours drawn from the seed."""
    from PIL import Image

    random = np.random.default_rng(seed)
    blots = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return _encoded(
        blots.resize((int(random.integers(60, 400)), int(random.integers(60, 400))), Image.Resampling.BICUBIC), "JPEG"
    )


def _as_file(name: str, example: bytes | np.ndarray, upright: bool) -> bytes:
    """An image as JPEG or PNG, which an export can decode, rotated if the net expects upright photos. Raises DataError
    if it cannot be decoded."""
    from PIL import Image

    from ..data.pipeline import decode

    try:
        pixels = decode(example, upright=upright)
    except (ValueError, OSError) as error:
        raise DataError(f"cannot be decoded: {error}", path=name) from None
    if isinstance(example, bytes) and not upright and example.startswith((b"\xff\xd8\xff", b"\x89PNG")):
        return example
    return _encoded(Image.fromarray(pixels), "PNG")


def _encoded(image: Photo, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def _describe(folder: Path, classifier: Classifier, rows: list[dict[str, Any]], images: int, precision: str) -> None:
    """Writes labels.txt, and export.json with the sources of the export and the format of the inputs."""
    import tensorflow

    write_text(folder / "labels.txt", "".join(f"{label}\n" for label in classifier.labels))
    record = {
        "source": classifier.path,
        "net": classifier.net.name,
        "classes": classifier.classes,
        "preprocessing": classifier.pixels.as_dict(),
        "precision": precision,
        **({"labels_per_image": "many", "thresholds": list(classifier.thresholds or ())} if classifier.many else {}),
        "inputs": {
            "images": "string [batch]: JPEG or PNG files" + (f", {TURNED}" if classifier.upright else ""),
            "pixels": "float32 [batch, side, side, 3]: red, green, blue from 0 to 255, cropped and resized",
        },
        "formats": rows,
        "compared_images": images,
        "tensorflow": tensorflow.__version__,
    }
    write_text(folder / "export.json", json.dumps(record, indent=1) + "\n")


def _check_target(target: Path, force: bool) -> None:
    """Raises OutputError if the target exists; with `force`, only if it holds anything that is not an export's."""
    if not target.exists():
        return
    if not force:
        raise OutputError("exists", path=target, advice="Give --force to replace it.")
    advice = "Choose another name for --output."
    if not target.is_dir():
        raise OutputError("is not a folder, and --force replaces exports only", path=target, advice=advice)
    names = {path.name for path in target.iterdir()}
    try:
        formats = json.loads((target / "export.json").read_text(encoding="utf-8"))["formats"] if names else []
        others = names - {"export.json", "labels.txt", *(row["file"] for row in formats)}
    except (OSError, ValueError, KeyError, TypeError):
        others = names
    if others:
        fact = (
            f"holds {named('file', sorted(others))}; ckpt-export did not write that, and --force replaces exports only"
        )
        raise OutputError(fact, path=target, advice=advice)


@contextmanager
def _made_beside(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that replaces it at the end, and is removed after an error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(f"cannot write here ({error.strerror})", path=target) from error
    try:
        (made / "new").mkdir()
        yield made / "new"
        if target.exists():
            target.rename(made / "old")
        try:
            (made / "new").rename(target)
        except OSError:
            with suppress(OSError):
                (made / "old").rename(target)
            raise
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", path=target) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
