"""--labels-per-image many: several labels of an image, from data to the exported model."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import tiny_net  # noqa: E402
from PIL import Image  # noqa: E402
from test_data import write_records  # noqa: E402
from test_train_report import Page  # noqa: E402

from ckpt_tools import open_checkpoint  # noqa: E402
from ckpt_tools.cli import evaluate as evaluate_command  # noqa: E402
from ckpt_tools.cli import export as export_command  # noqa: E402
from ckpt_tools.cli import features as features_command  # noqa: E402
from ckpt_tools.cli import predict as predict_command  # noqa: E402
from ckpt_tools.errors import DataError, RecipeError, TrainingError  # noqa: E402
from ckpt_tools.train.data import examples  # noqa: E402
from ckpt_tools.train.data.examples import divide  # noqa: E402
from ckpt_tools.train.data.loading import load_data_set  # noqa: E402
from ckpt_tools.train.data.pipeline import epoch_order  # noqa: E402
from ckpt_tools.train.graph import objective  # noqa: E402
from ckpt_tools.train.graph.devices import FILLER, no_filler  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402
from ckpt_tools.train.run.finetune import finetune  # noqa: E402
from ckpt_tools.train.use import metrics  # noqa: E402
from ckpt_tools.train.use.evaluate import EvaluateOptions, evaluate  # noqa: E402
from ckpt_tools.train.use.predict import PredictOptions, predict  # noqa: E402

RANDOM = np.random.default_rng(5)
COUNT = 72
HOT = (RANDOM.random((COUNT, 3)) < [0.5, 0.3, 0.4]).astype(np.uint8)  # red, green, blue, in any number of them
NAMES = ["red", "green", "blue"]
SPLIT = np.array(["train"] * 48 + ["validation"] * 24)


def pictures():
    """uint8 [n, 32, 32, 3]: an image is bright in the colours that it has as labels."""
    noise = RANDOM.integers(0, 100, (COUNT, 32, 32, 3))
    return (noise + 150 * HOT[:, None, None, :]).astype(np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """colours.npz, photos of the same, a source, and a run that has learnt them."""
    root = tmp_path_factory.mktemp("many")
    images = pictures()
    np.savez(root / "colours.npz", images=images, labels=HOT, label_names=NAMES, split=SPLIT)
    (root / "photos").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(root / "photos" / f"{i:02}.png")
    finetune(options(root, steps=40, learning_rate=0.02))
    return root


def options(root, folder="run", **more):
    source = root / "tiny.ckpt"
    if not source.with_name("tiny.ckpt.index").exists():
        tiny_net.write_source(source)
    how = {"net": "tiny", "checkpoint": str(source), "exclude": ("Logits",), "device": "cpu", "batch_size": 10}
    data = {"data": str(root / "colours.npz"), "labels_per_image": "many", "cache_dir": str(root / "cache")}
    return Options(**{**how, **data, "train_dir": str(root / folder), **more})


# --- data ----------------------------------------------------------------------------------------------------------


def test_records_with_ids_vectors_and_texts(tmp_path):
    """The same labels, written in the ways that people write them."""
    images = [f"{i}".encode() for i in range(COUNT)]
    ids = [(np.flatnonzero(row) + 1).tolist() for row in HOT]  # from 1, as slim's
    ways = {
        "ids": (list(zip(images, ids, strict=True)), ()),
        "vectors": (list(zip(images, HOT.tolist(), strict=True)), ()),
        "texts": (list(zip(images, ids, strict=True)), ["", *NAMES]),
    }
    found = {}
    for way, (written, texts) in ways.items():
        (tmp_path / way).mkdir()
        write_records(tmp_path / way / "x_train", written, texts=texts)
        found[way] = load_data_set(tmp_path / way, labels_per_image="many")
        both = found[way].split("all")
        order = np.argsort([int(both.read(i)) for i in range(COUNT)])
        np.testing.assert_array_equal(both.label_ids[order], HOT)
    assert [found[way].labels for way in ways] == [("1", "2", "3"), ("0", "1", "2"), ("red", "green", "blue")]
    assert "an image has 1." in found["ids"].notes[-1]


def test_npz_with_vectors_and_folders_with_one_label(home, tmp_path):
    data = load_data_set(home / "colours.npz", labels_per_image="many")
    assert (data.labels, data.many, len(data.train), len(data.validation)) == (("red", "green", "blue"), True, 48, 24)
    np.testing.assert_array_equal(data.validation.label_ids, HOT[48:])
    assert data.train.counts(3) == HOT[:48].sum(axis=0).tolist()
    with pytest.raises(DataError, match=r"example \d+ has \d labels.*--labels-per-image many takes all of them"):
        load_data_set(home / "colours.npz")
    folders = load_data_set(tiny_net.write_photos(tmp_path / "photos"), labels_per_image="many")
    assert folders.train.label_ids.sum(axis=1).tolist() == [1] * 42
    assert folders.train.counts(3) == [14, 14, 14]


def test_each_label_is_in_both_parts_of_a_division():
    """A label that few images have would be missed by chance, among images that have others as well."""
    hot = np.zeros((400, 3), np.uint8)
    hot[:, 0], hot[:200, 1], hot[:10, 2] = 1, 1, 1
    part = examples.Examples(hot, tuple(map(str, range(400))), (1,) * 400, lambda i: b"")
    train, validation = divide(part, 0.2, seed=3)
    assert validation.counts(3) == [80, 40, 2]
    assert not set(train.names) & set(validation.names)


# --- training ------------------------------------------------------------------------------------------------------


def test_steps_are_those_of_gradient_descent_on_the_sigmoid_loss(tmp_path):
    """Seven steps of logistic regression for each label, positives weighted, with targets of 0.05 and 0.95."""
    values = (RANDOM.normal(size=(COUNT, 6)) + HOT @ RANDOM.normal(size=(3, 6))).astype(np.float32)
    np.savez(tmp_path / "v.npz", features=values, labels=HOT, label_names=NAMES, split=SPLIT)
    how = {"data": str(tmp_path / "v.npz"), "labels_per_image": "many", "batch_size": 10, "weight_decay": 0.0}
    how |= {"optimizer": "sgd", "label_smoothing": 0.1, "class_weights": "green=3", "device": "cpu"}
    start = finetune(Options(train_dir=str(tmp_path / "start"), learning_rate=1e-12, steps=1, **how))
    end = finetune(Options(train_dir=str(tmp_path / "end"), learning_rate=0.5, steps=7, **how))
    first, last = (open_checkpoint(f"{r.train_dir}/model.ckpt-{r.step}").tensors for r in (start, end))
    weights, biases, positive = first["Logits/fc/weights"].load().astype(np.float64), np.zeros(3), np.array([1, 3, 1])
    batches = [epoch_order(0, e, 48)[i : i + 10] for e in range(2) for i in range(0, 48, 10)]
    for rows in batches[:7]:
        chances, targets = metrics.sigmoid(values[rows] @ weights + biases), HOT[rows] * 0.9 + 0.05
        slope = ((1 - targets) * chances - positive * targets * (1 - chances)) / (3 * len(rows))
        weights, biases = weights - 0.5 * values[rows].T @ slope, biases - 0.5 * slope.sum(axis=0)
    np.testing.assert_allclose(last["Logits/fc/weights"].load(), weights, atol=1e-5)
    np.testing.assert_allclose(last["Logits/fc/biases"].load(), biases, atol=1e-5)
    assert abs(last["Logits/fc/weights"].load() - first["Logits/fc/weights"].load()).max() > 0.01


def test_a_run_learns_and_says_how_well(home):
    result = json.loads((home / "run" / "result.json").read_text())
    assert result["best"]["validation_mean_average_precision"] > 0.95
    with (home / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-1] == "validation_mean_average_precision"
    measured = [float(row["validation_mean_average_precision"]) for row in rows if row["validation_loss"]]
    assert max(measured) == pytest.approx(result["best"]["validation_mean_average_precision"], abs=1e-5)
    assert "labels_per_image: many" in (home / "run" / "config.yaml").read_text()


@pytest.mark.parametrize("more", [{"cache": "off"}, {"accumulate": 3}, {"accumulate": 7, "cache": "off"}])
def test_cached_and_divided_batches_give_the_same_head(home, tmp_path, more):
    """48 images in batches of 10: the last has 8 images, so that some of seven parts have a filler or two."""
    how = {"trainable": ("Logits",), "steps": 7, "learning_rate": 0.01}
    plain = finetune(options(home, str(tmp_path / "plain"), **how))
    other = finetune(options(home, str(tmp_path / "other"), **how, **more))
    one, two = (open_checkpoint(f"{r.train_dir}/model.ckpt-7").tensors for r in (plain, other))
    name = "Tiny/Logits/Conv2d_1c_1x1/weights"
    np.testing.assert_allclose(one[name].load(), two[name].load(), atol=1e-5)
    assert plain.validation == pytest.approx(other.validation, abs=1e-5)


def test_it_is_part_of_what_a_run_is(home, tmp_path):
    photos = tiny_net.write_photos(tmp_path / "photos")
    finetune(options(home, str(tmp_path / "run"), data=photos, labels_per_image="one", steps=1))
    with pytest.raises(TrainingError, match="--labels-per-image was one, is many"):
        finetune(options(home, str(tmp_path / "run"), data=photos, steps=2))


# --- evaluation and prediction -------------------------------------------------------------------------------------


def test_evaluation_says_what_the_run_measured(home, tmp_path, capsys):
    out = tmp_path / "evaluation"
    flags = ["--train-dir", str(home / "run"), "--output", str(out), "--all-probabilities", "--report"]
    assert evaluate_command.main(flags) == 0
    shown = capsys.readouterr().out
    record = json.loads((out / "evaluation.json").read_text())
    best = json.loads((home / "run" / "result.json").read_text())["best"]
    assert record["summary"]["mean_average_precision"] == pytest.approx(best["validation_mean_average_precision"])
    assert record["summary"]["loss"] == pytest.approx(best["validation_loss"], rel=1e-4)
    assert [row["images"] for row in record["rows"]] == HOT[48:].sum(axis=0).tolist()
    assert f"mean average precision {record['summary']['mean_average_precision']:.3f}, macro AUC " in shown
    assert "F1 on these images is highest with --threshold red=" in shown
    assert (out / "precision_recall.png").read_bytes().startswith(b"\x89PNG")
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["true"] for row in rows] == ["|".join(np.array(NAMES)[row == 1]) for row in HOT[48:]]
    told = ["|".join(name for name in NAMES if float(row[name]) >= 0.5) for row in rows]
    assert [row["predicted"] for row in rows] == told
    page = Page((home / "run" / "report.html").read_text())
    assert f"{record['summary']['mean_average_precision']:.3f}mean average precision on 24" in page.text["figures"]
    assert "true positives" in page.text["confusion"]
    assert "average precision" in page.text["classes"]


def test_thresholds(home):
    def predicted(*threshold):
        found = evaluate(EvaluateOptions(train_dir=str(home / "run"), threshold=threshold))
        return found.predicted.sum(axis=0).tolist(), [row["threshold"] for row in found.rows]

    assert predicted("1") == ([0, 0, 0], [1, 1, 1])
    assert predicted("0")[0] == [24, 24, 24]
    plain, _ = predicted()
    assert predicted("green=0") == ([plain[0], 24, plain[2]], [0.5, 0, 0.5])
    assert predicted("1", "green=0,blue=0") == ([0, 24, 24], [1, 0, 0])
    for wrong, words in (("greenn=0.1", "no class is called 'greenn'; did you mean green"), ("2", "at most 1")):
        with pytest.raises(RecipeError, match=words):
            predicted(wrong)


def test_every_label_above_its_threshold_is_predicted(home, capsys):
    files = sorted((home / "photos").iterdir())[48:]
    found = predict(PredictOptions(train_dir=str(home / "run")), list(map(str, files)))
    evaluation = evaluate(EvaluateOptions(train_dir=str(home / "run")))
    for row, told, chances in zip(found.rows, evaluation.predicted, evaluation.probabilities, strict=True):
        wanted = sorted(np.flatnonzero(told), key=lambda i: -chances[i])
        assert [guess["label"] for guess in row["predictions"]] == [NAMES[i] for i in wanted]
    none, several = ((evaluation.true.sum(axis=1) == count).argmax() for count in (0, 2))
    flags = ["--train-dir", str(home / "run"), "--threshold", "0.5", str(files[none]), str(files[several])]
    assert predict_command.main(flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "labels"]
    assert lines[2].endswith("png  none")
    assert all(name in lines[3] for name in np.array(NAMES)[evaluation.true[several]])


def test_a_checkpoint_of_another_program_needs_the_word(home, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    how = {"checkpoint": str(home / "run" / "model.ckpt-40"), "data": str(home / "colours.npz")}
    shutil.copytree(home / "run", tmp_path / "run", ignore=shutil.ignore_patterns("plan.json"))
    how["checkpoint"] = str(tmp_path / "run" / "model.ckpt-40.index")
    how["labels"] = str(tmp_path / "names.txt")
    with pytest.raises(DataError, match="--labels-per-image many"):
        evaluate(EvaluateOptions(**how))
    many = evaluate(EvaluateOptions(**how, labels_per_image="many"))
    own = evaluate(EvaluateOptions(train_dir=str(home / "run"), use="last"))
    assert many.summary["mean_average_precision"] == own.summary["mean_average_precision"]
    with pytest.raises(RecipeError, match="--labels-per-image is for --checkpoint: a run knows it"):
        EvaluateOptions(train_dir="run", labels_per_image="many")
    with pytest.raises(RecipeError, match="--threshold 0.3: the net predicts one label per image"):
        predict(PredictOptions(checkpoint=how["checkpoint"], threshold=("0.3",)), [str(home / "photos")])


# --- features and export -------------------------------------------------------------------------------------------


def test_features_keep_all_labels_and_can_be_trained_on(home, tmp_path):
    prefix = tmp_path / "features"
    flags = ["--train-dir", str(home / "run"), "--output", str(prefix), "--plot", "--projector", str(tmp_path / "p")]
    assert features_command.main(flags) == 0
    with np.load(f"{prefix}.npz") as held:
        np.testing.assert_array_equal(held["labels"], HOT)
    lines = (tmp_path / "features.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[0] for line in lines] == ["|".join(np.array(NAMES)[row == 1]) for row in HOT]
    how = {"data": f"{prefix}.npz", "labels_per_image": "many", "steps": 40, "learning_rate": 0.05, "device": "cpu"}
    result = finetune(Options(train_dir=str(tmp_path / "small"), **how))
    assert result.best["validation_mean_average_precision"] > 0.95


def test_an_export_says_which_labels_are_above_their_thresholds(home, tmp_path):
    flags = ["--train-dir", str(home / "run"), "--output", str(tmp_path / "x"), "--threshold", "green=0.9"]
    assert export_command.main([*flags, "--format", "saved_model,tflite"]) == 0
    record = json.loads((tmp_path / "x" / "export.json").read_text())
    assert (record["labels_per_image"], record["thresholds"]) == ("many", pytest.approx([0.5, 0.9, 0.5]))
    served = tf.saved_model.load(str(tmp_path / "x" / "saved_model")).signatures["serving_default"]
    files = sorted((home / "photos").iterdir())[48:60]
    found = served(images=tf.constant([file.read_bytes() for file in files]))
    own = predict(PredictOptions(train_dir=str(home / "run"), threshold=("green=0.9",)), list(map(str, files)))
    for i, row in enumerate(own.rows):
        chosen = found["labels"][i].numpy()[found["above_threshold"][i].numpy()]
        assert [name.decode() for name in chosen] == [guess["label"] for guess in row["predictions"]]


def test_what_a_filler_is_counts_for_nothing():
    """A part of a batch for which no image is left: its loss and its rightness are 0."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        labels = tf.constant([[1, 0], [FILLER, FILLER]])
        found = session.run([no_filler(labels), objective.rightness(tf.constant([[2.0, -1.0], [1.0, -3.0]]), labels)])
    assert [part.tolist() for part in found] == [[1, 0], [1, 0]]


def test_options_are_refused_that_mean_nothing(home):
    with pytest.raises(RecipeError, match="--labels-per-image several: must be one of one, many"):
        replace(options(home), labels_per_image="several")
    with pytest.raises(RecipeError, match="--all-probabilities needs --output"):
        EvaluateOptions(train_dir="run", all_probabilities=True)
