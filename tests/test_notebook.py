"""The notebook in examples/ runs from start to end, and shows the expected results."""

import ast
import contextlib
import io
import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "transfer_learning.ipynb"
MOST = 400_000  # bytes of the file, its pictures included


def cells(kind="code"):
    """The cells of a kind, and their sources."""
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [(cell, "".join(cell["source"])) for cell in found if cell["cell_type"] == kind]


def shown_by(source, names):
    """Runs a cell; what it prints, and what a notebook shows of its last line: {"image/png": ...} or other forms."""
    *lines, last = ast.parse(source).body
    printed, shown = io.StringIO(), {}
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        exec(compile(ast.Module(lines, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            forms = {"image/png": "_repr_png_", "text/html": "_repr_html_"}
            shown = {kind: getattr(value, name)() for kind, name in forms.items() if hasattr(value, name)}
            shown["text/plain"] = repr(value)
        else:
            exec(compile(ast.Module([last], []), "cell", "exec"), names)
    return printed.getvalue(), shown


def test_the_notebook_runs_and_shows_its_pictures(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib.font_manager")  # now: it would look for all fonts anew in another cache
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names, printed, kinds = {}, "", []
    for cell, source in cells():
        text, shown = shown_by(source, names)
        printed += text
        kinds += [kind for kind in shown if kind != "text/plain"]
        stored = {kind for output in cell["outputs"] for kind in output.get("data", {})}
        assert stored == {kind for kind in shown if shown["text/plain"] != "None"}, source
    # images, values, PCA, t-SNE, confusion matrix, errors; a checkpoint, a plan, an evaluation
    assert (kinds.count("image/png"), kinds.count("text/html")) == (6, 3)
    found = {way.strip(): float(share) for way, share in re.findall(r"^(.+?)\s+([\d.]+)%$", printed, re.MULTILINE)}
    assert list(found) == ["new head", "small net on features", "head and last block"]
    assert min(found.values()) > 50  # of five classes; chance is 20
    assert "freeze audit   80 of 82 tensors are bit for bit as planned" in printed
    assert len(names["predictions"]) == 5


def test_what_is_kept_of_its_outputs_is_small_and_without_errors():
    assert NOTEBOOK.stat().st_size < MOST
    outputs = [output for cell, _ in cells() for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [cell["execution_count"] for cell, _ in cells()] == list(range(1, len(cells()) + 1))
    assert "/tmp/" not in NOTEBOOK.read_text(encoding="utf-8")  # no path of whoever ran it


def test_a_cell_that_fails_is_seen():
    with pytest.raises(ZeroDivisionError):
        shown_by("a = 1\na / 0", {})
    assert shown_by("print(2)\n3", {}) == ("2\n", {"text/plain": "3"})
