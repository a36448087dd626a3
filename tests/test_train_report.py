"""report.html: its content, and that a browser shows it at both widths."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import tiny_net  # noqa: E402

from ckpt_tools.cli import evaluate as command  # noqa: E402
from ckpt_tools.errors import RecipeError, TrainingError  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402
from ckpt_tools.train.pages import charts, report  # noqa: E402
from ckpt_tools.train.pages.report import write_report  # noqa: E402
from ckpt_tools.train.run.finetune import finetune  # noqa: E402
from ckpt_tools.train.use.evaluate import EvaluateOptions, evaluate  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PARTS = ("figures", "curves", "restored", "classes", "confusion", "errors", "values", "audit", "time", "command")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--virtual-time-budget=5000",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A train directory of the tiny net, with a report that has everything, for classes with awkward names."""
    root = tmp_path_factory.mktemp("report")
    data = tiny_net.write_photos(root / "photos", classes=("cat", "<b>dog & co", "frog"))
    source = tiny_net.write_source(root / "tiny.ckpt")
    options = Options(
        checkpoint=source, data=data, train_dir=str(root / "run"), exclude=("Logits",), trainable=("Logits",), epochs=3
    )
    finetune(options)
    assert command.main(["--train-dir", str(root / "run"), "--report", "--worst", "5"]) == 0
    return root / "run"


class Page(HTMLParser):
    """Text by the id of the section that it stands in, and the pictures."""

    def __init__(self, text):
        super().__init__()
        self.text, self.images, self.inside = {}, [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.inside = found.get("id", self.inside)
        if tag == "img":
            self.images.append(found)

    def handle_data(self, data):
        self.text[self.inside] = self.text.get(self.inside, "") + data


def test_the_report_says_what_the_run_did(run):
    page = Page((run / "report.html").read_text())
    summary = evaluate(EvaluateOptions(train_dir=str(run), worst=5)).summary
    result = json.loads((run / "result.json").read_text())
    assert set(PARTS) <= set(page.text)
    assert f"{summary['accuracy']:.1%}" in page.text["figures"]
    assert "<b>dog & co" in page.text["classes"]
    assert len(page.images) == len(summary["worst"]) > 0
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.images)
    assert summary["worst"][0]["file"] in page.text["errors"]
    assert "--exclude Logits" in page.text["restored"]
    identical = result["freeze_audit"]["identical"]
    assert f"{identical} of {identical + 2} tensors are bit for bit" in page.text["audit"]
    assert "Tiny/Logits/Conv2d_1c_1x1/weights" in page.text["audit"]
    assert "training" in page.text["time"]
    assert "t-SNE" in page.text["values"]
    numbers = [int(n) for n in re.findall(r"<td[^>]*>(\d+)</td>", (run / "report.html").read_text())]
    assert all(count in numbers for row in summary["confusion"] for count in row if count)


def test_of_many_classes_the_pairs_that_are_confused(run):
    labels = tuple(f"class {i} & co" for i in range(report.CELLS + 1))
    confusion = np.diag(np.full(len(labels), 5))
    confusion[2, 7] = 3
    made = report.confusion(replace(evaluate(EvaluateOptions(train_dir=str(run))), labels=labels, confusion=confusion))
    assert re.findall(r"<td[^>]*>(.*?)</td>", made) == ["class 2 &amp; co", "class 7 &amp; co", "3 of 8"]


@pytest.mark.parametrize("cache", ["off", "require"])
def test_the_trainer_writes_it(run, tmp_path, cache):
    """With the cache and without it: the same figures as `ckpt-evaluate` finds for the last checkpoint."""
    from ckpt_tools.train.options.configuration import read_config

    options = Options(**read_config(run / "config.yaml", Options))
    options = replace(options, train_dir=str(tmp_path / "run"), cache=cache, cache_dir=str(tmp_path / "cache"))
    result = finetune(options)
    page = Page((tmp_path / "run" / "report.html").read_text())
    summary = evaluate(EvaluateOptions(train_dir=result.train_dir, use="last")).summary
    assert summary["accuracy"] == pytest.approx(result.validation["validation_accuracy"])
    assert f"{summary['accuracy']:.1%}accuracy on 18 images" in page.text["figures"]
    assert all(error["file"] in page.text["errors"] for error in summary["worst"])
    assert "adds t-SNE" in page.text["values"]
    assert ("features" in page.text["time"]) == (cache == "require")


def test_the_command_in_it_is_the_run(run):
    from ckpt_tools.cli.finetune import make_parser
    from ckpt_tools.train.options.configuration import from_arguments, read_config

    text = Page((run / "report.html").read_text()).text["command"].replace("\\\n", " ")
    made = from_arguments(Options, make_parser().parse_args(text.split("ckpt-finetune", 1)[1].split()))
    assert made == Options(**read_config(run / "config.yaml", Options))


def test_it_asks_for_nothing_from_outside(run):
    assert not re.findall(r"(?:src|href)=\"?(?!data:)[^\"> ]+", (run / "report.html").read_text())
    assert "http" not in (run / "report.html").read_text()


def test_without_an_evaluation_it_says_how_to_get_one(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    assert write_report(tmp_path / "run") == str(tmp_path / "run" / "report.html")
    page = Page((tmp_path / "run" / "report.html").read_text())
    assert "ckpt-evaluate --train-dir RUN --report" in page.text["classes"]
    assert "has not ended yet" in page.text["audit"]
    assert page.images == []
    with pytest.raises(TrainingError, match="plan.json is missing"):
        write_report(tmp_path)
    with pytest.raises(RecipeError, match="--report needs --train-dir"):
        EvaluateOptions(checkpoint="x", data="y", report=True)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_shows_every_part(run, tmp_path, width):
    """Parts with their place on the page, as the browser lays them out in a frame of this width."""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"""<iframe id="f" src="file://{run}/report.html" style="width:{width}px;height:800px;border:0"></iframe>
        <pre id="found"></pre><script>
        f.onload = () => {{
          const page = f.contentDocument, found = {{ wide: page.documentElement.scrollWidth, parts: {{}}, broken: 0 }};
          for (const part of page.querySelectorAll("[id]")) {{
            const box = part.getBoundingClientRect();
            found.parts[part.id] = [box.left, box.right, box.height];
          }}
          for (const image of page.images) found.broken += image.naturalWidth === 0;
          found.lines = page.querySelectorAll("#curves polyline").length;
          found.points = page.querySelectorAll("#values circle").length;
          document.getElementById("found").textContent = JSON.stringify(found);
        }};
        </script>"""
    )
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}/profile", "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = json.loads(re.search(r'<pre id="found">(.+?)</pre>', done.stdout)[1])
    assert set(PARTS) <= set(found["parts"])
    assert found["wide"] <= width
    assert all(0 <= left < right <= width and height > 40 for left, right, height in found["parts"].values())
    assert (found["broken"], found["lines"], found["points"]) == (0, 4, 36)


def test_charts():
    chart = charts.line_chart("loss", {"training": [(0, 1.0), (1, 0.5), (2, float("nan"))]}, "epoch")
    assert len(re.search(r'points="(.*?)"', chart)[1].split()) == 2
    assert charts.line_chart("loss", {"training": []}, "epoch") == ""
    points = np.array([[0, 0], [1, 1], [0.5, 1000.0]])
    drawn = re.findall(r'cy="([\d.]+)"', charts.point_chart("PCA", points, np.array([0, 1, 1]), ("a", "b")))
    assert all(0 <= float(y) <= 480 for y in drawn)
