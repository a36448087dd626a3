"""report.html of a train directory: one self-contained file.

It is made from the files of the run (plan.json, config.yaml, metrics.csv, result.json) and, if available, an evaluation
of its validation images.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from ...errors import TrainingError
from ...formats.placing import write_text
from ...labels import writable
from ...nets.from_graph import net_of_record
from ..data.examples import one_colour
from ..graph.tensorflow_paths import is_utf8
from ..options.configuration import flag, read_config
from ..options.training import Options
from ..use.evaluation import Evaluation
from ..use.metrics import confused_pairs
from ..use.recorded import MEAN_AVERAGE_PRECISION, metrics_of
from . import report_many
from .charts import colour, line_chart, point_chart
from .evaluation_files import worst_pictures
from .tables import class_table, table

PHOTO = 160  # most pixels per side of an error's picture
CELLS = 30  # most classes for drawing the confusion matrix
POINTS = 1500  # most points in a picture, so that browsers draw it quickly
NOTHING = '<p class="soft">Not measured. <code>ckpt-evaluate --train-dir RUN --report</code> adds it.</p>'


def write_report(train_dir: str | Path, evaluation: Evaluation | None = None, *, tsne: bool = False) -> str:
    """Writes report.html into the train directory and returns its path; `tsne` adds a picture, which takes seconds.

    Raises TrainingError if the folder holds no run.
    """
    root = Path(train_dir)
    try:
        plan = json.loads((root / "plan.json").read_text(encoding="utf-8"))
        options = read_config(root / "config.yaml", Options)
    except FileNotFoundError as error:
        raise TrainingError(f"no run of ckpt-finetune: {Path(error.filename).name} is missing", path=root) from None
    result = json.loads((root / "result.json").read_text(encoding="utf-8")) if (root / "result.json").is_file() else {}
    net, many = net_of_record(plan, root).title, evaluation is not None and evaluation.many
    pixels = plan["preprocessing"] and "{image_size} x {image_size} pixels, ".format(**plan["preprocessing"])
    origin = "" if plan["source"] == "none" else f"from {plan['source']}, "
    parts = {
        "title": escape(f"{net} on {writable(Path(str(options.get('data', 'data'))).name)}: {plan['classes']} classes"),
        "subtitle": escape(writable(f"{root.resolve()}, {origin}{pixels or ''}run {plan.get('run', '')}")),
        "cards": cards(plan, result, evaluation),
        "curves": curves(metrics_of(root)),
        "restored": restored(plan),
        "classes": (report_many.classes if many else classes)(evaluation) if evaluation else NOTHING,
        "matrix": "Confusion by class" if many else "Confusion matrix",
        "confusion": (report_many.confusion if many else confusion)(evaluation) if evaluation else NOTHING,
        "errors": errors(evaluation) if evaluation else NOTHING,
        "values": transfer_values(evaluation, tsne=tsne) if evaluation else NOTHING,
        "audit": audit(result),
        "time": times(result),
        "command": command(options),
    }
    template = Template((Path(__file__).parent / "templates" / "report.html").read_text(encoding="utf-8"))
    write_text(root / "report.html", template.substitute(parts))
    return str(root / "report.html")


def cards(plan: Mapping[str, Any], result: Mapping[str, Any], evaluation: Evaluation | None) -> str:
    """The most important figures."""
    found = []
    if evaluation is not None and evaluation.many:
        found += report_many.cards(evaluation)
    elif evaluation is not None:
        found.append((f"{evaluation.summary['accuracy']:.1%}", f"accuracy on {evaluation.summary['images']:,} images"))
        found += [(f"{v:.1%}", k.replace("_", " ")) for k, v in evaluation.summary.items() if k.startswith("top_")]
        found.append((f"{evaluation.summary['macro_f1']:.3f}", "macro F1"))
    best = result.get("best") or {}
    if MEAN_AVERAGE_PRECISION in best:
        text = f"best validation mean average precision, at step {best['step']:,}"
        found.append((f"{best[MEAN_AVERAGE_PRECISION]:.3f}", text))
    elif "validation_accuracy" in best:
        found.append((f"{best['validation_accuracy']:.1%}", f"best validation accuracy, at step {best['step']:,}"))
    if result:
        found.append(
            (f"{result['step']:,}", "steps" if result["step"] >= result["total"] else f"of {result['total']:,} steps")
        )
    summary = plan["summary"]
    share = summary["trainable_parameters"] / max(1, summary["parameters"])
    found.append(("all" if share == 1 else f"{share:.2%}", f"of {summary['parameters']:,} parameters were trained"))
    return "".join(f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in found)


def curves(rows: Sequence[Mapping[str, str]]) -> str:
    """Loss and accuracy over the epochs, from the rows of metrics.csv."""

    def points(column: str) -> list[tuple[float, float]]:
        return [(float(row["epoch"]), float(row[column])) for row in rows if row.get(column)]

    rows = list({int(row["step"]): row for row in rows}.values())  # if a step was repeated, the later row
    charts = [
        line_chart(what, {"training": points(what), "validation": points(f"validation_{what}")}, "epoch")
        for what in ("loss", "accuracy")
    ]
    charts.append(line_chart("mean average precision", {"": [], "validation": points(MEAN_AVERAGE_PRECISION)}, "epoch"))
    drawn = "".join(f"<div>{chart}</div>" for chart in charts if chart)
    return f'<div class="columns">{drawn}</div>' if drawn else '<p class="soft">metrics.csv has no rows yet.</p>'


def restored(plan: Mapping[str, Any]) -> str:
    """The number of variables by rule of the plan, and the names of those that were not simply restored."""
    groups: dict[tuple[str, str, bool], list[str]] = {}
    for row in plan["rows"]:
        groups.setdefault((row["action"], row["rule"], bool(row["trainable"])), []).append(row["reason"])
    rows = [
        (action, f"{len(reasons):,}", "yes" if trained else "no", rule, reasons[0] + " …" * (len(set(reasons)) > 1))
        for (action, rule, trained), reasons in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]
    found = table(("action", "tensors", "trained", "rule", "reason"), rows, ("tensors",))
    others = [f"{row['action']:<8} {row['name']}" for row in plan["rows"] if row["action"] != "restore"]
    text = escape("\n".join(others))
    more = f"<details><summary>{len(others):,} that were not simply restored</summary><pre>{text}</pre></details>"
    notes = "".join(f"<p>{escape(note)}</p>" for note in plan.get("notes", ()))
    return f"{found}{more if others else ''}{notes}"


def classes(evaluation: Evaluation) -> str:
    """The per-class table."""
    return class_table(evaluation, ("images", "correct"), ("precision", "recall", "f1"))


def confusion(evaluation: Evaluation) -> str:
    """The matrix with shaded cells, or the most confused pairs if there are many classes."""
    labels, matrix = evaluation.labels, evaluation.confusion
    if len(labels) > CELLS:
        pairs = confused_pairs(matrix, labels)
        rows = [(pair["true"], pair["predicted"], f"{pair['times']:,} of {pair['of']:,}") for pair in pairs]
        return table(("true", "predicted", "images"), rows, ("images",))
    head = "".join(f"<th><span>{escape(label)}</span></th>" for label in labels)
    lines = []
    for i, (label, row) in enumerate(zip(labels, matrix.tolist(), strict=True)):
        cells = []
        for j, count in enumerate(row):
            shade = count / max(1, sum(row))
            tone = f' style="background:rgba(var(--{"hit" if i == j else "miss"}),{shade * 0.75:.2f})"' if count else ""
            cells.append(f"<td{tone}>{count or ''}</td>")
        lines.append(f"<tr><th>{escape(label)}</th>{''.join(cells)}</tr>")
    drawn = f'<table class="confusion"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'<p class="soft">True classes down, predicted classes across.</p><div class="wide">{drawn}</div>'


def errors(evaluation: Evaluation) -> str:
    """The photos with the most confident errors."""
    worst, photos = evaluation.summary["worst"], worst_pictures(evaluation)
    if worst and not photos:
        return report_many.error_table(worst) if evaluation.many else error_table(worst)
    figures = []
    for error, photo in zip(worst, photos, strict=True):
        address, small = picture(photo)
        caption = (
            f"<b>{escape(error['true'])}</b>, taken for <b>{escape(error['predicted'])}</b> "
            f"({error['probability']:.0%})<br>{escape(error['file'])}"
        )
        caption = report_many.caption(error) if evaluation.many else caption
        image = f'<img{" class=small" if small else ""} src="{address}" alt="{escape(error["file"])}">'
        figures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    drawn = f'<div class="photos">{"".join(figures)}</div>'
    return drawn if figures else "<p>None: every image was classified correctly.</p>"


def error_table(worst: Sequence[Mapping[str, Any]]) -> str:
    """The same as a table, for a run on vectors without photos."""
    columns = ("file", "true", "predicted")
    rows = [(*(error[column] for column in columns), f"{error['probability']:.0%}") for error in worst]
    return table((*columns, "probability"), rows, ("probability",))


def picture(pixels: np.ndarray) -> tuple[str, bool]:
    """A photo uint8 [h, w, 3] as a data URL, and whether it is so small that its pixels are visible."""
    from PIL import Image

    image = Image.fromarray(pixels)
    small = max(image.size) < PHOTO
    image.thumbnail((PHOTO * 2, PHOTO * 2))
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if small else "JPEG")
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", small


def transfer_values(evaluation: Evaluation, *, tsne: bool) -> str:
    """PCA of the head's input, and t-SNE if requested and scikit-learn is installed."""
    if evaluation.features is None or len(evaluation.features) < 3:
        return NOTHING
    rows = np.sort(np.random.default_rng(0).permutation(len(evaluation.features))[:POINTS])
    values = evaluation.features[rows].astype(np.float64)
    label_ids, labels = one_colour(evaluation.true[rows].astype(np.int64), evaluation.labels)
    centred = values - values.mean(axis=0)
    charts = [point_chart("PCA", principal_plane(centred), label_ids, labels)]
    note = '<p class="soft"><code>ckpt-evaluate --train-dir RUN --report</code> adds t-SNE.</p>'
    if tsne:
        try:
            from .projection import plane

            points = plane(values.astype(np.float32), "tsne")
            charts.append(point_chart("t-SNE", points, label_ids, labels))
            note = ""
        except ImportError:
            note = '<p class="soft">t-SNE needs scikit-learn: pip install "ckpt-tools[plots]".</p>'
    used = sorted(set(label_ids.tolist()))
    legend = "".join(
        f'<span><i style="background:{colour(i, len(labels))}"></i>{escape(labels[i])}</span>' for i in used
    )
    width = evaluation.features.shape[1]
    text = f"Features of {len(rows):,} images, {width:,} values each, in two dimensions; coloured by true class."
    return (
        f'<p class="soft">{text}</p><div class="columns">{"".join(f"<div>{chart}</div>" for chart in charts)}</div>'
        f'<div class="legend">{legend}</div>{note}'
    )


def principal_plane(centred: np.ndarray) -> np.ndarray:
    """Projects centred rows float64 [n, values] onto their two principal axes: [n, 2]. The eigenvectors of the n x n
    Gram matrix give it in a fraction of the time that a singular value decomposition takes.

    >>> principal_plane(np.array([[3.0, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]])).round(6).T.__abs__().tolist()
    [[3.0, 3.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
    """
    sizes, axes = np.linalg.eigh(centred @ centred.T)  # smallest first
    return axes[:, :-3:-1] * np.sqrt(np.maximum(sizes[:-3:-1], 0))


def audit(result: Mapping[str, Any]) -> str:
    """The result of comparing the saved checkpoint with the source."""
    found = result.get("freeze_audit")
    if not found:
        return '<p class="soft">The run has not ended yet.</p>'
    changed = found["changed"]
    text = (
        f"{found['identical']:,} of {found['identical'] + len(changed):,} tensors are bit for bit what the plan said."
    )
    listed = f"<details><summary>{len(changed):,} changed</summary><pre>{escape(chr(10).join(changed))}</pre></details>"
    return f"<p>{text}</p>{listed if changed else ''}"


def times(result: Mapping[str, Any]) -> str:
    """Seconds spent in each part by the process that ended the run, with bars."""
    seconds = result.get("seconds") or {}
    if not seconds:
        return '<p class="soft">The run has not ended yet.</p>'
    most = max(seconds.values()) or 1
    lines = [
        f'<tr><td>{escape(part)}</td><td class="n">{spent:,.1f} s</td>'
        f'<td style="width:50%"><div class="bar" style="width:{100 * spent / most:.1f}%"></div></td></tr>'
        for part, spent in seconds.items()
    ]
    note = '<p class="soft">Of the process that ended the run; what a resumed run took before that is not counted.</p>'
    return f"{note}<table>{''.join(lines)}</table>"


def command(options: Mapping[str, object]) -> str:
    """The command line for these options."""
    words = ["ckpt-finetune"]
    for name, value in options.items():
        if isinstance(value, bool):
            words.append(flag(name) if value else flag(name).replace("--", "--no-", 1))
        elif isinstance(value, tuple):
            words += [word for item in value for word in (flag(name), quoted(item))]
        else:
            words += [flag(name), quoted(str(value))]
    lines, line = [], ""
    for word in words:
        if word.startswith("--") and len(line) + len(word) > 90:
            lines.append(line)
            line = "   "
        line += f"{' ' if line else ''}{word}"
    text = " \\\n".join([*lines, line])
    return f"<pre>{escape(text)}</pre>"


def quoted(word: str) -> str:
    r"""A word quoted for a shell; bytes that are not UTF-8 are escaped for Bash and Zsh.

    >>> print(quoted("my photos"), quoted("caf\udce9"))
    'my photos' $'caf\xe9'
    """
    import shlex

    if is_utf8(word):
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{os.fsencode(escaped).decode('utf-8', 'backslashreplace')}'"
