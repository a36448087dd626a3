"""Nets from graph files, from the plan to checkpoints that the old code loads: .meta, frozen graph, SavedModel."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tiny_net
from PIL import Image

tf = pytest.importorskip("tensorflow").compat.v1
from graph_styles import SIDE, STYLES, Style, building, net  # noqa: E402

from ckpt_tools import open_checkpoint  # noqa: E402
from ckpt_tools.cli import evaluate as evaluate_command  # noqa: E402
from ckpt_tools.cli import export as export_command  # noqa: E402
from ckpt_tools.cli import features as features_command  # noqa: E402
from ckpt_tools.cli import finetune as finetune_command  # noqa: E402
from ckpt_tools.cli import plan as plan_command  # noqa: E402
from ckpt_tools.errors import PlanError, RecipeError, UnsupportedError  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402
from ckpt_tools.train.plan.job import make_job  # noqa: E402
from ckpt_tools.train.run.finetune import finetune  # noqa: E402
from ckpt_tools.train.use.classifier import SourceOptions, load_classifier  # noqa: E402

NEW = {"exclude": ("classes",), "trainable": ("classes",)}
BESIDE = {"head_scope": "Logits", "trainable": ("Logits",)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, GOLDEN: Path) -> Path:
    """A classifier as it was trained, of five classes, and photos of three."""
    folder = tmp_path_factory.mktemp("graph")
    for path in (GOLDEN / "tf221_graph").iterdir():
        shutil.copy(path, folder)
    tiny_net.write_photos(folder / "photos", train=12, validation=4)
    return folder


def options(files: Path, **how: object) -> dict[str, object]:
    return {
        "checkpoint": str(files / "model.ckpt"),
        "data": str(files / "photos"),
        "preprocessing": "unit",
        "cache_dir": str(files / "cache"),
        "batch_size": 8,
        "steps": 9,
        "learning_rate": 0.05,
        "device": "cpu",
        **how,
    }


@pytest.fixture(scope="module")
def runs(files: Path) -> dict[str, Path]:
    """Runs with a new head in the old one's place, and with one beside it."""
    for name, how in (("new", NEW), ("beside", BESIDE)):
        finetune(Options(**options(files, **how, train_dir=str(files / name))))
    return {name: files / name for name in ("new", "beside")}


def tensors(prefix: object) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def fetched(prefix: object, meta: object, tensor: str, images: np.ndarray) -> np.ndarray:
    """What TensorFlow's own import and Saver make of a checkpoint and a graph."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.train.import_meta_graph(str(meta)).restore(session, str(prefix))
        fed = {"images:0": images, **({"is_training:0": False} if "is_training" in str(graph.get_operations()) else {})}
        return session.run(tensor, fed)


def resized(paths: Iterable[Path]) -> np.ndarray:
    """Photos as the style unit has them, by TensorFlow 1's own resize."""
    photos = np.stack([np.asarray(Image.open(path)) for path in paths]).astype("float32") / 255
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(tf.raw_ops.ResizeBilinear(images=photos, size=[SIDE, SIDE]))


@pytest.mark.parametrize(
    "how", [NEW, BESIDE, {"class_map": "4,_,0"}, {"exclude": ("classes",), "freeze_until": "pool"}]
)
def test_ckpt_plan_prints_the_plan_of_the_run(files: Path, how: dict, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_job(Options(**options(files, **how, train_dir="run"))).plan
    argv = [
        f"--{key.replace('_', '-')}={value if isinstance(value, str) else ','.join(value)}"
        for key, value in how.items()
    ]
    assert plan_command.main([str(files / "model.ckpt"), "--num-classes", "3", *argv]) == 0
    said = capsys.readouterr().out
    assert f"plan         {plan.digest}" in said.splitlines()
    assert re.search(r"^conv1/weights +1  restore +\d  same name$", said, re.MULTILINE)


def test_what_suggest_proposes_has_the_plan_of_the_run(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--graph", str(files / "model.ckpt.meta"), "--num-classes", "3"]
    assert plan_command.main([*words, "--suggest"]) == 0
    proposed, _, shown = capsys.readouterr().out.partition("\n\n")
    typed = [word for line in proposed.splitlines()[1:] for word in line.split()]
    assert "--exclude" in typed
    assert plan_command.main([*words, *typed]) == 0
    assert capsys.readouterr().out == shown


def test_only_the_head_changes_and_all_else_goes_along(files: Path, runs: dict[str, Path]) -> None:
    before, after = tensors(files / "model.ckpt"), tensors(runs["new"] / "model.ckpt-9")
    head = {"classes/weights", "classes/biases"}
    changed = {name for name in before if name not in after or before[name].tobytes() != after[name].tobytes()}
    own = {f"{name}/{slot}" for name in head for slot in ("Adam", "Adam_1")} | {"beta1_power", "beta2_power"}
    assert changed == head | own  # the old head's slots are those of five classes
    assert after["classes/weights"].shape == (16, 3)
    assert "conv1/weights/Adam" in after


def test_the_old_graph_loads_what_comes_out(files: Path, runs: dict[str, Path]) -> None:
    """Strictly, by its own Saver; and its own classes are the same to the last bit."""
    images = np.random.default_rng(0).uniform(size=(4, SIDE, SIDE, 3)).astype("float32")
    how = (files / "model.ckpt.meta", "classes/xw_plus_b:0", images)
    assert fetched(runs["beside"] / "best.ckpt", *how).tobytes() == fetched(files / "model.ckpt", *how).tobytes()
    assert "Logits/fc/weights" in tensors(runs["beside"] / "best.ckpt")


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_the_old_graph_loads_its_step_in_its_own_type(files: Path, tmp_path: Path, dtype: str) -> None:
    """A script's own `global_step` is int32 as often as not; a run goes on from it all the same."""
    with building(Style()), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        tf.nn.softmax(net(Style(), images, False))
        tf.Variable(7, name="global_step", dtype=dtype, trainable=False)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "m.ckpt"))
    how = options(files, **BESIDE, checkpoint=str(tmp_path / "m.ckpt"), train_dir=str(tmp_path / "run"), steps=2)
    finetune(Options(**how))
    assert finetune(Options(**{**how, "steps": 4})).step == 4
    assert tensors(tmp_path / "run/model.ckpt-4")["global_step"].dtype == dtype
    given = np.zeros((1, SIDE, SIDE, 3), "float32")
    assert fetched(tmp_path / "run/best.ckpt", tmp_path / "m.ckpt.meta", "global_step:0", given) in range(1, 5)


@pytest.mark.parametrize("name", ["new", "beside"])
def test_the_new_graph_gives_the_probabilities_of_ckpt_evaluate(
    files: Path, runs: dict[str, Path], name: str, tmp_path: Path
) -> None:
    how = ["--train-dir", str(runs[name]), "--data", str(files / "photos"), "--use", "last", "--all-probabilities"]
    assert evaluate_command.main([*how, "--output", str(tmp_path)]) == 0
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    images = resized(files / "photos" / row[next(iter(row))] for row in rows)
    found = fetched(runs[name] / "model.ckpt-9", runs[name] / "model.ckpt-9.meta", "probabilities:0", images)
    wanted = np.array([[float(row[label]) for label in ("cat", "dog", "frog")] for row in rows])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_run_goes_on_without_graph_and_with_the_same_bits(files: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """From the cache, the head alone: as from the images; and killed in the middle as without a stop."""
    whole = tensors(runs["new"] / "model.ckpt-9")
    for name, how in (("cached", {}), ("uncached", {"cache": "off"})):
        folder = str(tmp_path / name)
        finetune(Options(**options(files, **NEW, **how, train_dir=folder, save_steps=3) | {"steps": 4}))
        finetune(Options(**options(files, **NEW, **how, train_dir=folder, save_steps=3)))
        found = tensors(tmp_path / name / "model.ckpt-9")
        assert set(found) == set(whole)
        for key, value in found.items():
            np.testing.assert_allclose(value, whole[key], rtol=2e-5, atol=1e-6)


def test_scopes_of_the_graph_train(files: Path, tmp_path: Path) -> None:
    how = options(files, exclude=("classes",), train_dir=str(tmp_path / "run"), head="dense(8)|dropout(0.3)")
    how |= {"unfreeze": "0:classes; 1:hidden,conv2", "layer_decay": 0.5, "weight_decay": 0.01}
    finetune(Options(**how))
    before, after = tensors(files / "model.ckpt"), tensors(tmp_path / "run/model.ckpt-9")
    moved = {name for name, value in before.items() if not np.array_equal(value, after.get(name))}
    weights = {name for name in moved if not re.search("Adam|power|step", name)}
    own = {
        "hidden/weights",
        "hidden/biases",
        "conv2/weights",
        "conv2/BatchNorm/beta",
        "classes/weights",
        "classes/biases",
    }
    assert weights == own
    assert after["classes/weights"].shape == (8, 3)
    assert after["classes/dense_1/weights"].shape == (16, 8)
    record = json.loads((tmp_path / "run/plan.json").read_text())
    assert set(record["batch_norm"].values()) == {"frozen"}


def test_features_are_those_of_the_original_graph(files: Path, tmp_path: Path) -> None:
    argv = ["--checkpoint", str(files / "model.ckpt"), "--data", str(files / "photos"), "--output", str(tmp_path / "f")]
    assert features_command.main([*argv, "--preprocessing", "unit", "--split", "validation"]) == 0
    made = np.load(tmp_path / "f.npz")
    images = resized(sorted((files / "photos/validation").rglob("*.png")))
    wanted = fetched(files / "model.ckpt", files / "model.ckpt.meta", "hidden/Relu:0", images)
    np.testing.assert_allclose(np.sort(made["features"], axis=0), np.sort(wanted, axis=0), rtol=1e-5, atol=1e-6)


def test_an_export_computes_the_same(files: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """It compares itself; the graph file is not needed any more."""
    shutil.copytree(runs["beside"], tmp_path / "run")
    argv = ["--train-dir", str(tmp_path / "run"), "--output", str(tmp_path / "e"), "--format", "saved_model"]
    assert export_command.main(argv) == 0
    assert (tmp_path / "e/saved_model/saved_model.pb").is_file()


def frozen(path: Path, style: Style) -> None:
    with building(Style()) as graph, tf.Session() as session:
        fed = tf.placeholder(tf.float32, [1, SIDE, SIDE, 3], "input")
        tf.nn.softmax(net(style, fed, False), name="predictions")
        session.run(tf.global_variables_initializer())
        made = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["predictions"])
    path.write_bytes(made.SerializeToString())


@pytest.mark.parametrize("named", [True, False])
def test_constants_of_a_frozen_graph_train(files: Path, tmp_path: Path, named: bool) -> None:
    frozen(tmp_path / "net.pb", STYLES["slim fused, scale"])
    where = {"graph" if named else "checkpoint": str(tmp_path / "net.pb")}
    how = {**options(files, exclude=("classes",), trainable=("classes", "hidden"), train_dir=str(tmp_path / "run"))}
    finetune(Options(**{**how, "checkpoint": "", **where}))
    before, after = open_checkpoint(tmp_path / "net.pb").tensors, open_checkpoint(tmp_path / "run/best.ckpt").tensors
    moved = {name for name in before if not np.array_equal(before[name].load(), after[name].load())}
    assert moved == {"classes/weights", "classes/biases", "hidden/weights", "hidden/biases"}
    assert evaluate_command.main(["--train-dir", str(tmp_path / "run"), "--data", str(files / "photos")]) == 0
    assert plan_command.main(["--graph", str(tmp_path / "net.pb"), "--num-classes", "3", "--exclude", "classes"]) == 0


def test_a_frozen_graph_is_named_once(files: Path, tmp_path: Path) -> None:
    """It is its own checkpoint: for features as for training."""
    frozen(tmp_path / "net.pb", STYLES["slim fused, scale"])
    argv = ["--graph", str(tmp_path / "net.pb"), "--data", str(files / "photos"), "--preprocessing", "unit"]
    assert features_command.main([*argv, "--output", str(tmp_path / "f")]) == 0
    assert np.load(tmp_path / "f.npz")["features"].shape == (48, 16)


def test_a_graph_without_a_checkpoint_asks_for_one(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(files / "model.ckpt.meta", tmp_path / "alone.meta")
    argv = ["--graph", str(tmp_path / "alone.meta"), "--data", str(files / "photos"), "--preprocessing", "unit"]
    assert features_command.main([*argv, "--output", str(tmp_path / "f")]) == 2
    assert "has no checkpoint beside it" in capsys.readouterr().err


def test_features_of_a_net_whose_last_layer_is_no_variable(files: Path, tmp_path: Path) -> None:
    """Its weights are whole numbers, which quantize_graph.py made of them; its biases are as they were."""
    with building(Style()) as graph:
        fed = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "input")
        kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 3, 6)).astype("float32"))
        x = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(fed, tf.identity(kernel), 1, "SAME")), [1, 2])
        rounded = tf.constant(np.arange(30).reshape(6, 5), tf.quint8, name="fc/rounded")
        weights = tf.dequantize(rounded, tf.constant(-1.0), tf.constant(1.0), mode="MIN_FIRST")
        biases = tf.identity(tf.constant(np.zeros(5, "float32"), name="fc/biases"))
        tf.nn.softmax(tf.nn.bias_add(tf.matmul(x, weights), biases))
        (tmp_path / "net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    argv = ["--graph", str(tmp_path / "net.pb"), "--data", str(files / "photos"), "--preprocessing", "unit"]
    assert features_command.main([*argv, "--image-size", str(SIDE), "--output", str(tmp_path / "f")]) == 0
    assert np.load(tmp_path / "f.npz")["features"].shape == (48, 6)


def test_a_saved_model_without_classes_gets_a_head_of_its_own(files: Path, tmp_path: Path) -> None:
    builder = tf.saved_model.Builder(str(tmp_path / "module"))
    with building(STYLES["slim fused"]), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        net(STYLES["slim fused"], images, False)
        vector = tf.get_default_graph().get_tensor_by_name("global_pool:0")
        info = {name: tf.saved_model.build_tensor_info(each) for name, each in (("i", images), ("o", vector))}
        signature = tf.saved_model.build_signature_def({"images": info["i"]}, {"default": info["o"]})
        session.run(tf.global_variables_initializer())
        builder.add_meta_graph_and_variables(session, [], {"default": signature})
    builder.save()
    finetune(
        Options(**options(files, graph=str(tmp_path / "module"), train_dir=str(tmp_path / "run")) | {"checkpoint": ""})
    )
    assert "Logits/fc/weights" in tensors(tmp_path / "run/best.ckpt")


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"preprocessing": None}, RecipeError, "does not say how images are preprocessed: give --preprocessing"),
        ({"bn": ("conv1=train",)}, RecipeError, "--bn: the batch norms of a net of a graph"),
        (
            {"precision": "bfloat16"},
            RecipeError,
            "--precision bfloat16: a net from a graph keeps the graph's own types",
        ),
        ({"preprocessing": "units"}, RecipeError, "no preprocessing 'units'; did you mean unit"),
        ({"net": "vgg_16", "graph": "x.meta"}, RecipeError, "--net and --graph cannot be combined"),
        ({"feed": ("is_training",)}, RecipeError, "--feed is_training: write NAME=VALUE"),
        ({"image_size": 20}, UnsupportedError, "the net takes images of 12 x 12 x 3, these are 20 x 20 x 3"),
    ],
)
def test_what_cannot_be_is_said(files: Path, tmp_path: Path, how: dict, error: type, said: str) -> None:
    with pytest.raises(error, match=re.escape(said)):
        finetune(Options(**options(files, **{**NEW, **how}, train_dir=str(tmp_path / "run"))))
    assert not (tmp_path / "run").exists()


def test_a_saved_model_of_tensorflow_2_is_refused(files: Path, tmp_path: Path) -> None:
    import tensorflow

    class Module(tensorflow.Module):
        def __init__(self) -> None:
            self.kernel = tensorflow.Variable(tensorflow.ones([SIDE * SIDE * 3, 4]))

        @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, SIDE, SIDE, 3])])
        def __call__(self, images: tf.Tensor) -> tf.Tensor:
            flat = tensorflow.reshape(images, [-1, SIDE * SIDE * 3])
            return tensorflow.nn.softmax(tensorflow.matmul(flat, self.kernel))

    tensorflow.saved_model.save(Module(), str(tmp_path / "saved"))
    how = options(files, graph=str(tmp_path / "saved"), train_dir=str(tmp_path / "run"))
    with pytest.raises((UnsupportedError, PlanError), match="Make a frozen graph of it first"):
        finetune(Options(**{**how, "checkpoint": ""}))


def test_whole_numbers_are_given_whole_numbers(files: Path, tmp_path: Path) -> None:
    """Scaled images, cast to whole numbers, would all be the same."""
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.uint8, [None, SIDE, SIDE, 3], "images")
        flat = tf.reshape(tf.cast(images, tf.float32), [-1, SIDE * SIDE * 3])
        tf.nn.softmax(tf.matmul(flat, tf.get_variable("out/w", [SIDE * SIDE * 3, 4])))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "m.ckpt"))
    how = options(files, checkpoint=str(tmp_path / "m.ckpt"), train_dir=str(tmp_path / "run"), exclude=("out",))
    with pytest.raises(RecipeError, match="whole numbers from 0 to 255, which --preprocessing unit does not give"):
        finetune(Options(**how))
    assert finetune(Options(**{**how, "preprocessing": None})).step == 9
    with pytest.raises(RecipeError, match="whole numbers from 0 to 255, which --preprocessing vgg does not give"):
        load_classifier(SourceOptions(train_dir=tmp_path / "run", preprocessing="vgg"))


def test_images_that_depend_on_each_other_are_found_without_a_run_too(files: Path, tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        flat = tf.reshape(images / (tf.reduce_max(images) + 1.0), [-1, SIDE * SIDE * 3])
        tf.nn.softmax(tf.matmul(flat, tf.get_variable("out/w", [SIDE * SIDE * 3, 4])))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "m.ckpt"))
    with pytest.raises(PlanError, match="images depend on each other"):
        load_classifier(SourceOptions(checkpoint=tmp_path / "m.ckpt", preprocessing="unit"))


def test_a_graph_that_is_not_understood_stops_with_what_to_type(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        for name in ("first", "second"):
            flat = tf.reshape(images, [-1, SIDE * SIDE * 3])
            tf.nn.softmax(tf.matmul(flat, tf.get_variable(f"{name}/w", [SIDE * SIDE * 3, 4])), name=name)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "two.ckpt"))
    how = options(files, checkpoint=str(tmp_path / "two.ckpt"), train_dir=str(tmp_path / "run"))
    with pytest.raises(PlanError, match=r"--logits (?s:.*)--net NAME treats it as one of them"):
        finetune(Options(**how))
    argv = [f"--{key.replace('_', '-')}={value}" for key, value in how.items()]
    assert finetune_command.main([*argv, "--logits", "second", "--exclude", "second", "--trainable", "second"]) == 0
