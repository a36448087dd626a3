"""--check of ckpt-convert: runs both nets on the same images, and refuses bad conversions before writing anything."""

import json

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("keras")

from computing import values  # noqa: E402

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint  # noqa: E402
from ckpt_tools.cli import checking  # noqa: E402
from ckpt_tools.cli.convert import main as convert  # noqa: E402
from ckpt_tools.layouts import from_slim, recognise  # noqa: E402
from ckpt_tools.nets.comparing import compare  # noqa: E402
from ckpt_tools.nets.registry import get_net  # noqa: E402
from ckpt_tools.surgery import operate  # noqa: E402
from ckpt_tools.tensors import Tensors  # noqa: E402

NET = get_net("mobilenet_v1_025")


def slims(classes=7):
    random = np.random.default_rng(0)
    return from_arrays({v.name: values(v.name, v.spec.shape, random) for v in NET.variables(classes)})


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checking, "COUNT", 2)
    save_checkpoint(slims(), "slim.ckpt")
    return tmp_path


def test_a_file_that_was_written_is_run_in_keras_and_here(here, capsys):
    assert convert(["slim.ckpt", "k.h5", "--layout", "keras", "--check"]) == 0
    out = capsys.readouterr().out
    assert out.index("function  the same") < out.index("checked   k.h5 in Keras and the net here, on 2 images of noise")
    rows = [line.split() for line in out.splitlines() if line.startswith(("Conv2d_", "Logits"))]
    assert [row[0] for row in rows][:3] == ["Conv2d_0", "Conv2d_1_depthwise", "Conv2d_1_pointwise"]
    assert len(rows) == 28 and all(float(row[2]) > 0.1 and float(row[4]) < 1e-5 for row in rows)
    assert "within the tolerance of 0.0001, the same first class for 2 of 2" in out


def test_images_of_the_user_json_and_a_tolerance_that_nothing_meets(here, capsys):
    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 255, (50, 60, 3), np.uint8)).save(here / name)
    words = ["slim.ckpt", "k.weights.h5", "--layout", "keras", "--json", "--tolerance", "0"]
    assert convert([*words, "--check", "a.png", "b.png"]) == 1
    (check,) = json.loads(capsys.readouterr().out)["check"]
    assert (check["library"], check["images"], check["same_first_class"]) == ("Keras", "2 images", 2)
    assert 0 < check["difference"] < 1e-5 and check["rows"][-1]["end point"] == "Logits"


def test_other_weights_are_seen_where_they_are():
    """What is compared is layer by layer: a batch norm that was changed shows there, and behind it."""
    ours = slims()
    file = operate(ours, from_slim("keras", NET, ours).operations).tensors
    wrong = "MobilenetV1/Conv2d_7_pointwise/BatchNorm/beta"
    spoilt = Tensors({**ours, wrong: ours[wrong]._replace(load=lambda: ours[wrong].load() + 1)})
    batch = np.random.default_rng(1).uniform(-1, 1, (2, 96, 96, 3)).astype(np.float32)
    found = compare("keras", NET._replace(image_size=96), spoilt, recognise(file.specs(), [NET]), file, [batch])
    far = {row.end_point: row.relative > 1e-3 for row in found.rows}
    assert [name for name, is_far in far.items() if not is_far][-1] == "Conv2d_7_depthwise"
    assert all(is_far for name, is_far in list(far.items())[list(far).index("Conv2d_7_pointwise") :])
    assert found.last > 1e-3 and found.rows[-1].cosine < 0.9999


def test_a_net_without_its_classes_and_one_with_a_background(here, capsys):
    ours = slims(1001)
    save_checkpoint(ours, "background.ckpt")
    assert convert(["background.ckpt", "k.h5", "--layout", "keras", "--check"]) == 0
    assert "class 0, the background, is left out" in capsys.readouterr().out
    body = Tensors({name: tensor for name, tensor in ours.items() if "Logits" not in name})
    save_checkpoint(body, "body.ckpt")
    assert convert(["body.ckpt", "body.h5", "--layout", "keras", "--check"]) == 0
    out = capsys.readouterr().out
    assert "Conv2d_13_pointwise" in out and "first class" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["out.ckpt", "--check"], "--check goes with --layout"),
        (
            ["out.h5", "--layout", "keras", "--check", "--dry-run"],
            "--check runs what was written, and --dry-run writes",
        ),
        (["out.ckpt", "--layout", "slim", "--check"], "--check runs a net here and in another library"),
    ],
)
def test_what_is_refused_before_anything_is_written(here, capsys, words, said):
    assert convert(["slim.ckpt", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(here.glob("out*"))


def test_a_library_that_is_not_there_is_named_before_anything_is_written(here, capsys, monkeypatch):
    import importlib

    def missing(name, *rest):
        if name == "keras":
            raise ImportError(name)
        return original(name, *rest)

    original = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", missing)
    assert convert(["slim.ckpt", "out.h5", "--layout", "keras", "--check"]) == 2
    assert "runs the net of keras, which is not installed. pip install tensorflow" in capsys.readouterr().err
    assert not (here / "out.h5").exists() and open_checkpoint("slim.ckpt")
