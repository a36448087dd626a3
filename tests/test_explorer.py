"""The page of ckpt-inspect --html: its content, and that a browser shows its parts."""

import base64
import json
import re
import shutil
import subprocess

import ml_dtypes
import numpy as np
import pytest

from ckpt_tools import from_arrays, save_checkpoint
from ckpt_tools.cli.inspect import main
from ckpt_tools.errors import OutputError
from ckpt_tools.explorer import BINS, explore, histogram, picture, write_page
from ckpt_tools.overview import TensorRow, overview

GENERATOR = np.random.default_rng(0)
ARRAYS = {
    "net/conv1/weights": GENERATOR.normal(size=(7, 7, 3, 64)).astype("float32"),
    "net/conv1/weights/Momentum": np.zeros((7, 7, 3, 64), "float32"),
    "net/conv2/weights": GENERATOR.normal(size=(3, 3, 64, 100)).astype("float32"),
    "net/conv2/biases": np.float32([np.nan, np.inf] * 50),
    'net/<b>&"/w': np.float32([1.5, 2.5]),
    "global_step": np.int64(7),
    "labels": np.array([b"</script><script>document.title='broken'</script>", b"dog"], object),
}
TENSORS = from_arrays(ARRAYS)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def page():
    return explore(TENSORS, overview(TENSORS), "model <1>", "V2 checkpoint, 7 tensors").html


def data(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_what_the_page_holds():
    found = data(page())
    by_name = {tensor["name"]: tensor for tensor in found["tensors"]}
    assert list(by_name) == list(ARRAYS)
    assert found["facts"] == "V2 checkpoint, 7 tensors"
    assert found["totals"]["slot"]["tensors"] == 1
    assert by_name["net/conv1/weights/Momentum"]["of"] == "net/conv1/weights"
    assert "counts" not in by_name["net/conv1/weights/Momentum"]  # all values are equal
    assert sum(by_name["net/conv2/weights"]["counts"]) == 3 * 3 * 64 * 100
    assert by_name["net/conv2/biases"]["statistics"] == {
        "min": None, "max": None, "mean": None, "std": None, "zeros": 0, "nan": 50, "inf": 50,
    }  # fmt: skip
    assert by_name['net/<b>&"/w']["values"] == "[1.5, 2.5]"
    assert by_name["labels"]["values"].startswith('[b"</script>')


def test_numbers_are_in_their_order_where_names_are():
    def order(*names):
        tensors = from_arrays({name: np.zeros(2) for name in names})
        return [tensor["name"] for tensor in data(explore(tensors, overview(tensors), "", "").html)["tensors"]]

    assert order("b_1/w", "b_10/w", "b_2/w", "b²/w") == ["b_1/w", "b_2/w", "b_10/w", "b²/w"]
    assert order("b_10/w", "b_1/w", "b_2/w") == ["b_10/w", "b_1/w", "b_2/w"]  # as the file has them


def test_the_page_asks_for_nothing_from_outside():
    text = page()
    addresses = set(re.findall(r"https?://[^\"' ]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a namespace, which no browser fetches
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=|@import|url\(", text)


def test_names_cannot_break_out():
    text = page()
    assert "<title>model &lt;1&gt;</title>" in text
    assert text.count("</script>") == 2
    assert "{{" not in text


def test_progress_and_values_that_are_not_read(monkeypatch):
    monkeypatch.setattr("ckpt_tools.explorer.READ", 2)
    seen = []
    text, *_ = explore(TENSORS, overview(TENSORS), "m", "", lambda done, total: seen.append((done, total)))
    assert [tensor["name"] for tensor in data(text)["tensors"] if "statistics" in tensor] == [
        "net/conv1/weights",
        "net/conv2/weights",
    ]
    assert seen == [(done, 7) for done in range(1, 8)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bool", ml_dtypes.bfloat16])
def test_histogram(dtype):
    values = GENERATOR.normal(0, 3, 300_000).astype(dtype)
    plain = values.astype("float64")
    low, high = plain.min(), plain.max()
    assert histogram(values, low, high) == np.histogram(plain, BINS, (low, high))[0].tolist()
    assert histogram(values, low, high + 1) != np.histogram(plain, BINS, (low, high))[0].tolist()


def test_a_histogram_leaves_out_what_is_not_finite():
    counts = histogram(np.float32([np.nan, -1, 1, np.inf]), -1, 1)
    assert (counts[0], counts[-1], sum(counts)) == (1, 1, 2)


@pytest.mark.parametrize(
    "values",
    [[1e200, 0.0], [1.0, np.nextafter(1.0, 2)], [0.0, 5e-324], [-1.7e308, 1.7e308], np.int64([2**60, 2**60 + 1])],
    ids=str,
)
def test_extreme_numbers_leave_a_page_that_a_browser_can_parse(values):
    tensors = from_arrays({"w": np.repeat(values, BINS)})
    text = explore(tensors, overview(tensors), "", "").html
    (tensor,) = data(text)["tensors"]
    assert tensor["statistics"]["max"] == pytest.approx(max(values))
    assert "Infinity" not in json.dumps(tensor) and "NaN" not in json.dumps(tensor)


def row(shape, kind="weight"):
    return TensorRow("w", "float32", shape, int(np.prod(shape)), 4 * int(np.prod(shape)), kind)


def pixels(drawn):
    shape = (drawn["count"], drawn["height"], drawn["width"], drawn["channels"])
    return np.frombuffer(base64.b64decode(drawn["pixels"]), "uint8").reshape(shape)


def test_a_first_convolution_is_drawn_in_colour():
    values = np.zeros((3, 5, 3, 2), "float32")
    values[0, 4, :, 1] = 2, -2, 1
    drawn = picture(row(values.shape), values)
    assert drawn["first"] and drawn["note"] == "all 2 filters; grey is 0, black and white are ±2"
    assert pixels(drawn)[1, 0, 4].tolist() == [255, 1, 191]
    assert pixels(drawn)[0].tolist() == np.full((3, 5, 3), 128).tolist()


def test_a_later_convolution_shows_one_channel():
    values = ARRAYS["net/conv2/weights"]
    drawn = picture(row(values.shape), values)
    assert not drawn["first"]
    assert drawn["note"].startswith("the first 64 of 100 filters, input channel 0 of 64;")
    expected = 128 + 127 * values[:, :, 0, 5] / np.abs(values[:, :, 0, :64]).max()
    assert np.abs(pixels(drawn)[5, :, :, 0] - expected).max() <= 1


@pytest.mark.parametrize(
    "about",
    [row((1, 1, 64, 8)), row((8, 8)), row((32, 32, 3, 8)), row((3, 3, 3, 0)), row((3, 3, 3, 8), kind="slot")],
    ids=str,
)
def test_what_is_no_picture(about):
    assert picture(about, np.zeros(about.shape, "float32")) is None


def test_only_a_page_is_overwritten(tmp_path):
    target = tmp_path / "page.html"
    assert write_page("<!doctype html>old", target) == 18
    write_page("<!doctype html>new", target)
    assert target.read_text() == "<!doctype html>new"
    other = tmp_path / "model.ckpt"
    other.write_bytes(b"weights")
    with pytest.raises(OutputError, match="exists and is not a page"):
        write_page("<!doctype html>", other)
    assert other.read_bytes() == b"weights"
    with pytest.raises(OutputError, match="cannot be written"):
        write_page("<!doctype html>", tmp_path / "no" / "page.html")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.ckpt", "page.html"]


def test_the_page_says_what_it_leaves_out(tmp_path, monkeypatch):
    save_checkpoint(TENSORS, tmp_path / "model.ckpt")
    monkeypatch.chdir(tmp_path)
    assert main(["model.ckpt", "--html", "page.html", "--scope", "conv1"]) == 0
    facts = data((tmp_path / "page.html").read_text())["facts"]
    assert facts.startswith("V2 checkpoint, 7 tensors, ")
    assert facts.endswith("; selected by --scope conv1: 2 of 7 tensors")


def test_numbers_on_the_page_are_those_of_the_listing():
    tensors = from_arrays({"w": np.float64(0.16447852)})  # seven digits of it round to 0.164478
    (tensor,) = data(explore(tensors, overview(tensors), "", "").html)["tensors"]
    assert f"{tensor['statistics']['mean']:.6g}" == "0.164479"


def test_damaged_tensors_are_shown_without_values(tmp_path, monkeypatch, capsys):
    save_checkpoint(TENSORS, tmp_path / "model.ckpt")
    file = tmp_path / "model.ckpt.data-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[content.index(ARRAYS["net/conv2/weights"].tobytes()) + 77] ^= 16
    file.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert main(["model.ckpt", "--html", "page.html"]) == 1
    assert "1 tensor could not be read, the first: " in capsys.readouterr().err
    by_name = {tensor["name"]: tensor for tensor in data((tmp_path / "page.html").read_text())["tensors"]}
    assert "net/conv2/weights" in by_name["net/conv2/weights"]["problem"]
    assert [name for name in by_name if "statistics" not in by_name[name]] == ["net/conv2/weights"]


ACT = """
<script>
const shown = () => [...document.querySelectorAll("#tree .row")].map((each) => each.title);
const report = {};
const search = document.getElementById("search");
const type = (text) => { search.value = text; drawTree(); };
report.start = shown();
type("CONV2 we");
report.searched = shown();
report.found = document.getElementById("found").textContent;
type("");
document.querySelector("#kinds button[title$=slot]").click();
report.slots = shown();
document.querySelector("#kinds button[title$=slot]").click();
document.querySelector("[data-path='net/conv1']").click();
report.opened = shown();
report.crumbs = document.getElementById("crumbs").textContent;
document.querySelector("[data-path='net/conv1/weights']").click();
report.chosen = document.querySelector("#tensor h2").textContent;
report.bars = document.querySelectorAll(".histogram rect").length;
report.canvases = document.querySelectorAll("#tensor canvas, #gallery canvas").length;
report.tiles = tiles.length;
location.hash = "labels";
fromAddress();
report.linked = document.querySelector("#tensor pre").textContent;
report.title = document.title;
document.body.append(Object.assign(document.createElement("output"), { textContent: JSON.stringify(report) }));
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser(tmp_path, monkeypatch):
    save_checkpoint(TENSORS, tmp_path / "model.ckpt")
    monkeypatch.chdir(tmp_path)
    assert main(["model.ckpt", "--html", "page.html"]) == 0
    target = tmp_path / "page.html"
    target.write_text(target.read_text() + ACT)
    argv = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    argv += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    argv += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", target.as_uri()]
    dom = subprocess.run(argv, capture_output=True, text=True, timeout=120).stdout
    assert "data-ready=" in dom
    found = json.loads(
        re.search(r"<output>(.*?)</output>", dom, re.DOTALL)[1].replace("&lt;", "<").replace("&gt;", ">")
    )
    assert found["start"] == ["global_step", "labels", "net", 'net/<b>&amp;"', "net/conv1", "net/conv2"]
    assert found["searched"] == ["net/conv2/weights"]
    assert found["found"] == "1 tensor, 230.4 kB"
    assert found["slots"] == ["net/conv1/weights/Momentum"]
    assert found["opened"][5:7] == ["net/conv1/weights", "net/conv2"]
    assert found["crumbs"] == "allnetconv12 tensors, 75.3 kB"
    assert found["chosen"] == "net/conv1/weights"
    assert (found["bars"], found["canvases"]) == (BINS, 2)
    assert found["tiles"] >= 2
    assert found["linked"].startswith('[b"</script><script>')
    assert found["title"] == "model.ckpt"
