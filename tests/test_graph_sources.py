"""Sources of graphs: text, URLs, truncated files, SavedModels of TensorFlow 2; and the messages about them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_net
from range_server import RangeServer, serving

tensorflow = pytest.importorskip("tensorflow")
tf = tensorflow.compat.v1
from graph_styles import SIDE, STYLES, save_training  # noqa: E402
from tensorflow.python.framework import tensor_shape  # noqa: E402

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint  # noqa: E402
from ckpt_tools.cli import export as export_command  # noqa: E402
from ckpt_tools.cli import features as features_command  # noqa: E402
from ckpt_tools.cli import finetune, inspect, plan  # noqa: E402
from ckpt_tools.errors import DamagedError, SelectionError  # noqa: E402
from ckpt_tools.graphs.files import checkpoint_of, graph_of  # noqa: E402
from ckpt_tools.nets.text_graph import read_text_graph  # noqa: E402
from ckpt_tools.train.cache import checked as checking  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402
from ckpt_tools.train.plan.job import make_job  # noqa: E402

PLANNED = ["--exclude", "classes", "--trainable", "classes", "--num-classes", "3"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its .meta, the graph as text in both forms, and photos."""
    folder = tmp_path_factory.mktemp("sources")
    save_training(STYLES["slim fused, fed"], "", str(folder / "model.ckpt"))
    with tf.Graph().as_default():
        meta = tf.train.import_meta_graph(str(folder / "model.ckpt.meta"))
        tf.train.export_meta_graph(str(folder / "meta.pbtxt"), as_text=True, saver_def=meta.saver_def)
        tf.io.write_graph(tf.get_default_graph(), str(folder), "graph.pbtxt", as_text=True)
    tiny_net.write_photos(folder / "photos", train=6, validation=2)
    return folder


def planned(capsys: pytest.CaptureFixture, *argv: str) -> str:
    assert plan.main([*argv, *PLANNED]) == 0
    return capsys.readouterr().out.partition("\n")[2]  # without the name of the graph


@pytest.mark.parametrize("name", ["graph.pbtxt", "meta.pbtxt"])
def test_a_graph_in_text_form_is_a_graph(files: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    expected = planned(capsys, str(files / "model.ckpt"))
    text = str(files / name)
    assert planned(capsys, str(files / "model.ckpt"), "--graph", text) == expected
    assert plan.main([str(files / "model.ckpt"), "--graph", text, *PLANNED]) == 0
    assert "graph in text form, which takes TensorFlow" in capsys.readouterr().err
    assert inspect.main([text]) == 2
    assert "is a graph in text form" in capsys.readouterr().err
    assert inspect.main([text, "--graph"]) == 2
    said = capsys.readouterr().err
    assert "is a graph in text form, which only TensorFlow reads" in said and "ckpt-plan --graph" in said


def test_text_that_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "g.pbtxt").write_text('node {\n  name: "a"\n  op: 3\n}\n')
    with pytest.raises(DamagedError, match=r"is not a valid graph in text form \(3:7 : .*"):
        read_text_graph(str(tmp_path / "g.pbtxt"))


def test_which_graph_and_which_checkpoint_go_together(files: Path, tmp_path: Path) -> None:
    prefix = str(files / "model.ckpt")
    for source in (prefix, f"{prefix}.index", f"{prefix}.meta"):
        assert graph_of(source) == f"{prefix}.meta"
        assert checkpoint_of(f"{prefix}.meta") == prefix
    assert graph_of(str(files / "photos")) == ""
    variables = tmp_path / "saved/variables"
    variables.mkdir(parents=True)
    (tmp_path / "saved/saved_model.pb").touch()
    assert graph_of(f"{variables}/variables") == graph_of(f"{variables}/variables.index") == str(tmp_path / "saved")
    assert checkpoint_of(str(tmp_path / "none.meta")) == ""


@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
def test_a_graph_that_is_cut_off(files: Path, tmp_path: Path, part: float, capsys: pytest.CaptureFixture) -> None:
    content = (files / "model.ckpt.meta").read_bytes()
    (tmp_path / "model.ckpt.meta").write_bytes(content[: int(len(content) * part)])
    for path in files.glob("model.ckpt.[id]*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for argv in ([str(tmp_path / "model.ckpt.meta")], [str(tmp_path / "model.ckpt"), "--graph"]):
        assert inspect.main(argv) == 2
        said = capsys.readouterr().err
        assert "model.ckpt.meta" in said and "cut off" in said
    assert plan.main([str(tmp_path / "model.ckpt"), *PLANNED]) == 2
    assert "cut off" in capsys.readouterr().err


# --- behind URLs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(files: Path) -> Iterator[RangeServer]:
    pytest.importorskip("fsspec.implementations.http")
    with serving(files) as server:
        yield server


def test_a_graph_behind_a_url(files: Path, server: RangeServer, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    expected = planned(capsys, str(files / "model.ckpt"))
    assert planned(capsys, str(files / "model.ckpt"), "--graph", f"{server.url}/model.ckpt.meta") == expected
    assert planned(capsys, "--graph", f"{server.url}/model.ckpt.meta") == expected
    assert planned(capsys, f"{server.url}/model.ckpt") == expected
    assert inspect.main([str(files / "model.ckpt.meta")]) == 0
    shown = capsys.readouterr().out
    assert inspect.main([f"{server.url}/model.ckpt.meta"]) == 0
    assert capsys.readouterr().out == shown
    argv = ["--graph", f"{server.url}/model.ckpt.meta", "--data", str(files / "photos"), "--preprocessing", "unit"]
    how = ["--exclude", "classes", "--steps", "2", "--train-dir", str(tmp_path / "run"), "--device", "cpu"]
    assert finetune.main([*argv, *how, "--cache-dir", str(tmp_path / "cache")]) == 0


# --- SavedModels of TensorFlow 2 --------------------------------------------------------------------------------------


class Module(tensorflow.Module):
    def __init__(self) -> None:
        random = tensorflow.random_normal_initializer(seed=1)
        self.kernel = tensorflow.Variable(random([SIDE * SIDE * 3, 8]), name="hidden/kernel")
        self.last = tensorflow.Variable(random([8, 4]), name="classes/kernel")

    @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, SIDE, SIDE, 3], name="images")])
    def __call__(self, images: object) -> object:
        flat = tensorflow.reshape(images, [-1, SIDE * SIDE * 3])
        return tensorflow.nn.softmax(tensorflow.matmul(tensorflow.nn.relu(flat @ self.kernel), self.last))


def test_a_saved_model_of_tensorflow_2_says_what_to_do_and_that_works(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frozen graph is made as docs/graph_net.md has it."""
    module = Module()
    tensorflow.saved_model.save(module, str(tmp_path / "saved"), signatures=module.__call__.get_concrete_function())
    assert plan.main(["--graph", str(tmp_path / "saved"), "--num-classes", "3"]) in (1, 2)
    said = capsys.readouterr().err
    assert "written by TensorFlow 2" in said
    assert "convert_variables_to_constants_v2 as docs/graph_net.md shows" in said
    assert plan.main([str(tmp_path / "saved"), "--num-classes", "3"]) == 2
    assert "written by TensorFlow 2" in capsys.readouterr().err
    page = (Path(__file__).parent.parent / "docs/graph_net.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import tensorflow as tf\n.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("saved_model_folder", "saved"), "docs/graph_net.md", "exec"), {})
    argv = ["--graph", str(tmp_path / "frozen.pb"), "--checkpoint", str(tmp_path / "frozen.pb"), "--output"]
    how = ["--data", str(files / "photos"), "--preprocessing", "unit", "--split", "validation"]
    assert features_command.main([*argv, str(tmp_path / "f"), *how]) == 0
    assert np.load(tmp_path / "f.npz")["features"].shape == (6, 8)


# --- what else is said ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("conv2", "; in this scope are conv2/Relu"),
        ("hiden/Relu", "; did you mean hidden/Relu or conv2/Relu or conv1/Relu?"),
        ("xyz", "; the last ones are conv1/Relu, conv2/Relu, pool, global_pool, hidden/Relu"),
    ],
)
def test_an_end_point_that_is_not_there(files: Path, name: str, said: str) -> None:
    how = {"exclude": ("classes",), "preprocessing": "unit", "freeze_until": name, "train_dir": "run"}
    wanted = f"--freeze-until {name}: no end point of model.ckpt.meta{said}"
    with pytest.raises(SelectionError, match=re.escape(wanted)):
        make_job(Options(checkpoint=str(files / "model.ckpt"), data=str(files / "photos"), **how))


@pytest.fixture(scope="module")
def run(files: Path) -> Path:
    argv = ["--checkpoint", str(files / "model.ckpt"), "--data", str(files / "photos"), "--preprocessing", "unit"]
    how = ["--exclude", "classes", "--trainable", "classes", "--steps", "2", "--cache-dir", str(files / "cache")]
    assert finetune.main([*argv, *how, "--train-dir", str(files / "run"), "--device", "cpu"]) == 0
    return files / "run"


def test_a_net_is_checked_once_for_the_same_values(
    files: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    monkeypatch.setattr(checking, "check_graph", lambda *what: checked.append(what))
    how = ["--data", str(files / "photos"), "--exclude", "classes", "--steps", "2", "--device", "cpu"]
    how += ["--cache-dir", str(files / "cache")]
    other = tmp_path / "other.ckpt"
    tensors = open_checkpoint(files / "model.ckpt").tensors
    moved = {name: tensor.load() + (name == "hidden/biases") for name, tensor in tensors.items()}
    save_checkpoint(from_arrays(moved), other)
    how += ["--graph", str(files / "model.ckpt.meta"), "--trainable", "classes", "--preprocessing", "unit"]
    for source, count in ((files / "model.ckpt", 0), (other, 1), (other, 1)):
        where = ["--checkpoint", str(source), "--train-dir", str(tmp_path / "run"), "--fresh"]
        assert finetune.main([*how, *where]) == 0
        assert len(checked) == count


def test_a_process_in_which_tensorflow_2s_behaviour_is_off(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As scripts have it that begin with `tf.disable_v2_behavior()`: sides of shapes are Dimensions."""
    monkeypatch.setattr(tensor_shape, "_TENSORSHAPE_V2_OVERRIDE", False)
    argv = ["--checkpoint", str(files / "model.ckpt"), "--data", str(files / "photos"), "--preprocessing", "unit"]
    how = ["--exclude", "classes", "--trainable", "classes", "--steps", "2", "--cache-dir", str(tmp_path / "cache")]
    assert finetune.main([*argv, *how, "--train-dir", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert "cache          0 of 24 images cached; each step runs" in capsys.readouterr().err
    argv = ["--train-dir", str(tmp_path / "run"), "--output", str(tmp_path / "out"), "--format", "graphdef"]
    assert export_command.main(argv) == 0


def test_whole_numbers_are_made_by_what_tflite_has(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.uint8, [None, SIDE, SIDE, 3], "images")
        x = tf.reduce_mean(tf.cast(images, tf.float32) / 255.0, [1, 2])
        tf.nn.softmax(tf.matmul(x, tf.get_variable("classes/weights", [3, 4])))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    argv = ["--checkpoint", str(tmp_path / "model.ckpt"), "--output", str(tmp_path / "out"), "--format", "tflite"]
    assert export_command.main(argv) == 0  # compared with the net on made-up photos


def test_what_tflite_lacks_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        means = tf.reduce_mean(images, [1, 2])
        x = tf.raw_ops.Betainc(a=1.0 + means, b=1.0 + means, x=means)
        tf.nn.softmax(tf.matmul(x, tf.get_variable("classes/weights", [3, 4])))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    argv = ["--checkpoint", str(tmp_path / "model.ckpt"), "--preprocessing", "unit", "--output", str(tmp_path / "out")]
    assert export_command.main([*argv, "--format", "graphdef,tflite"]) == 2
    said = capsys.readouterr().err
    assert "TFLite cannot convert the net: it has no Betainc" in said
    assert "Leave tflite out of --format" in said
    assert not (tmp_path / "out").exists()
    assert export_command.main([*argv, "--format", "graphdef"]) == 0
