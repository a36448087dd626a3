"""The Python API: what `import ckpt_tools as ck` offers for training and for using nets."""

import inspect
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import tiny_net  # noqa: E402
from PIL import Image  # noqa: E402

import ckpt_tools as ck  # noqa: E402
from ckpt_tools.errors import DataError, PlanError, RecipeError  # noqa: E402
from ckpt_tools.events import Audited, Evaluated, Finished, Planned, Saved, Step  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402

LABELS = ["red", "green", "blue"]


def coloured(count, seed=0):
    """uint8 [count, 32, 32, 3] and int [count]: images whose class is their colour."""
    random = np.random.default_rng(seed)
    images, labels = random.integers(0, 120, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 3
    for image, label in zip(images, labels, strict=True):
        image[..., label] += 100
    return images, labels


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("python")
    tiny_net.write_source(root / "source.ckpt")
    return root


@pytest.fixture(scope="module")
def how(home):
    """Options of a head on the tiny net; paths are Paths, as people have them."""
    return {
        "checkpoint": home / "source.ckpt",
        "net": "tiny",
        "exclude": "Logits",
        "trainable": "Logits",
        "learning_rate": "0.05",
        "device": "cpu",
        "cache_dir": home / "cache",
    }


@pytest.fixture(scope="module")
def trained(home, how):
    """(train directory, data set, result, events) of a run on arrays."""
    data, events = ck.data_set(*coloured(60), LABELS), []
    result = ck.finetune(**how, data=data, train_dir=home / "run", epochs=4, on_event=events.append)
    return home / "run", data, result, events


# --- importing ---


def test_importing_loads_neither_numpy_nor_tensorflow():
    code = (
        "import sys, ckpt_tools as ck\n"
        "heavy = lambda: sorted({'numpy', 'tensorflow', 'matplotlib', 'yaml'} & set(sys.modules))\n"
        "assert not heavy(), heavy()\n"
        "assert set(ck.__all__) <= set(dir(ck))\n"
        "assert not heavy(), heavy()\n"
        "ck.events.Step, ck.make_plan\n"
        "assert 'numpy' not in sys.modules and 'tensorflow' not in sys.modules, heavy()\n"
        "[getattr(ck, name) for name in ck.__all__]\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_threads_load_tensorflow_one_after_the_other(monkeypatch):
    from ckpt_tools.api.tensorflow import with_tensorflow
    from ckpt_tools.train.graph import quiet

    loads = []

    def use():
        with with_tensorflow("training"):
            pass

    def load():
        loads.append(threading.current_thread())
        if len(loads) == 1:
            other = threading.Thread(target=use)
            other.start()
            other.join(0.2)  # it waits for this one
            monkeypatch.setitem(sys.modules, "tensorflow", tf)

    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr(quiet, "hush_tensorflow", load)
    use()
    assert loads == [threading.current_thread()]


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute finetuning"):
        _ = ck.finetuning


# --- options ---


def test_functions_show_their_options():
    known = inspect.signature(ck.finetune).parameters
    others = {"dry_run", "find_learning_rate"}
    assert {found.name for found in fields(Options)} - others <= set(known)
    assert not others & set(known)
    assert known["batch_size"].default == 32
    for name in ("finetune", "evaluate", "features", "export", "predict", "open_classifier", "make_plan"):
        documented = getattr(ck, name).__doc__
        for parameter in inspect.signature(getattr(ck, name)).parameters:
            assert f"`{parameter}`" in documented or parameter in ("on_event", "verbose", "images", "num_classes",
                "variables", "data", "output"), (name, parameter)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"epoch": 3}, TypeError, r"finetune\(\) has no option 'epoch'; did you mean epochs\?"),
        (
            {"checkpoint_exclude_scopes": "a"},
            TypeError,
            "has no option 'checkpoint_exclude_scopes'; it is exclude here",
        ),
        ({"epochs": "many"}, RecipeError, "--epochs must be a number, not 'many'"),
        ({"batch_size": 1.5, "aux": "yes"}, RecipeError, "--aux must be true or false.*--batch-size must be a whole"),
        ({"exclude": {"a": 1}}, RecipeError, "--exclude must be a pattern or a list of them"),
        ({"data": "photos"}, RecipeError, "--checkpoint and --train-dir must be given"),
        ({"dry_run": True}, TypeError, r"finetune\(\) does not take dry_run; ck.dry_run\(\) does that"),
    ],
)
def test_what_is_wrong_is_said_with_the_options_name(options, error, said):
    with pytest.raises(error, match=said):
        ck.finetune(**options)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        ("open_classifier", {"source": "m.ckpt", "precision": "bfloat16"}),
        ("features", {"checkpoint": "m.ckpt", "dry_run": True}),
        ("make_plan", {"checkpoint": "m.ckpt", "steps": 3}),
    ],
)
def test_what_would_be_ignored_is_refused(function, options):
    with pytest.raises(TypeError, match=rf"{function}\(\) does not take {list(options)[-1]}$"):
        getattr(ck, function)(**options)


def test_a_plan_has_the_names_of_the_options(home, how):
    plan = ck.make_plan(home / "source.ckpt", net="tiny", num_classes=3, exclude="Logits", trainable="Conv_3,Logits")
    assert (plan.summary["initialised"], plan.summary["trainable_variables"]) == (2, 4)
    assert plan.digest == ck.make_plan(ck.open_checkpoint(home / "source.ckpt"), net="tiny", num_classes="3",
                                       exclude=["Logits"], trainable=("Conv_3", "Logits")).digest  # fmt: skip
    wrong = ck.make_plan(home / "source.ckpt", net="tiny", num_classes=3)
    assert wrong.conflicts
    with pytest.raises(PlanError):
        wrong.checked()
    own = [ck.Spec("float32", (3,))]
    assert ck.make_plan({"a": own[0]}, [_variable("a", own[0])]).summary["restored"] == 1
    assert ck.make_plan(home / "source.ckpt", [_variable("a", own[0])]).summary["restored"] == 0
    with pytest.raises(TypeError, match="specs go with variables"):
        ck.make_plan({"a": own[0]})


def _variable(name, spec):
    from ckpt_tools.plan import Variable

    return Variable(name, spec)


def test_the_plan_of_a_data_set_in_memory_is_that_of_the_run(trained, how):
    folder, data, _, events = trained
    names = ("checkpoint", "net", "exclude", "trainable")
    plan = ck.make_plan(**{name: how[name] for name in names}, data=data)
    assert plan.digest == events[0].plan.digest


# --- training ---


def test_a_run_tells_typed_events_and_prints_nothing(trained, how, home, capfd):
    _, data, result, events = trained
    kinds = [type(event) for event in events]
    assert kinds[0] is Planned and kinds[-1] is Finished and events[-1].result is result
    steps = [event.step for event in events if isinstance(event, Step)]
    assert steps == list(range(1, result.total + 1))
    evaluated = [event for event in events if isinstance(event, Evaluated)]
    assert evaluated[-1].figures == result.validation
    saved = [event for event in events if isinstance(event, Saved)]
    assert {event.best for event in saved} == {True, False}
    assert all(Path(f"{event.path}.index").exists() for event in saved)
    (audited,) = [event for event in events if isinstance(event, Audited)]
    assert audited.identical == result.freeze_audit["identical"] == 12
    assert events[0].notes and events[0].labels == tuple(LABELS) and events[0].steps == result.total
    capfd.readouterr()
    ck.finetune(**how, data=data, train_dir=home / "quiet", steps=2)
    assert capfd.readouterr() == ("", "")
    ck.finetune(**how, data=data, train_dir=home / "quiet", steps=3, verbose=True)
    out, err = capfd.readouterr()
    assert "continuing     after step 2 of 3" in err and out == ""


def test_what_a_listener_raises_ends_the_run(trained, how, home):
    def refuse(event):
        if isinstance(event, Step) and event.step == 2:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        ck.finetune(**how, data=trained[1], train_dir=home / "refused", steps=9, on_event=refuse)


def test_a_run_on_arrays_goes_on_with_these_arrays_only(trained, how):
    folder, data, result, _ = trained
    more = ck.finetune(**how, data=data, train_dir=folder, epochs=5)
    assert more.step > result.step
    images, labels = coloured(60, seed=1)
    with pytest.raises(ck.CheckpointError, match="--data was memory-.*, is memory-"):
        ck.finetune(**how, data=(images, labels, LABELS), train_dir=folder, epochs=6)
    with pytest.raises(RecipeError, match="the run was trained on arrays in memory. Give --data"):
        ck.evaluate(train_dir=folder)


def test_a_tf_dataset_is_a_data_set(how, home):
    images, labels = coloured(30)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    singly, batched = ck.data_set(dataset), ck.data_set(dataset.batch(7))
    as_dictionaries = ck.data_set(dataset.map(lambda image, label: {"image": image, "label": label, "id": 0}))
    assert singly.path == batched.path == as_dictionaries.path == ck.data_set(images, labels).path
    result = ck.finetune(**how, data=dataset.batch(7), train_dir=home / "dataset", steps=2)
    assert result.step == 2
    with pytest.raises(DataError, match="has no end"):
        ck.data_set(dataset.repeat())
    with pytest.raises(DataError, match="has more than 9,000 bytes, and is kept in memory"):
        ck.data_set(dataset, limit=9000)


def test_what_a_data_set_may_be(tmp_path):
    images, labels = coloured(12)
    data = ck.data_set(images, labels, LABELS)
    assert (data.labels, data.train.names[:2], len(data.train)) == (tuple(LABELS), ("0", "1"), 12)
    assert data.path == ck.data_set(list(images), [LABELS[i] for i in labels], LABELS).path
    assert data.path != ck.data_set(images, labels[::-1].copy(), LABELS).path
    split = ck.data_set(images, labels, LABELS, split=["train"] * 9 + ["validation"] * 3)
    pair = ck.data_set(images[:9], labels[:9], LABELS, validation=(images[9:], labels[9:]))
    assert (len(split.train), len(split.validation)) == (len(pair.train), len(pair.validation)) == (9, 3)
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, image in zip(files, images, strict=False):
        Image.fromarray(image[: 10 + int(file.stem)]).save(file)
    assert ck.data_set(files, LABELS).train.read(1).startswith(b"\x89PNG")
    several_sizes = ck.data_set([image[: 10 + i] for i, image in enumerate(images)], labels)
    assert several_sizes.train.read(3).shape == (13, 32, 3)
    assert ck.data_set(images, np.eye(3, dtype=int)[labels] | [1, 0, 0]).many
    assert ck.data_set(images, [["a"], ["a", "b"], []] * 4).many
    for wrong, said in (
        ((images / 255.0, labels), "images of type float64. Scale them to 0..255"),
        ((images, labels[:5]), "12 train examples, 5 labels"),
        ((images,), "no labels for the train examples"),
        (([tmp_path / "none.png"], [0]), "none.png: no such file"),
        ((images, ["red", float("nan"), None] * 4), "labels: example 1 has nan for a label. Name it, or leave it out."),
        ((images, np.where(labels == 1, np.nan, labels)), "labels of type float64 are not labels"),
    ):
        with pytest.raises(DataError, match=said):
            ck.data_set(*wrong)
    masked = np.ma.masked_equal(labels, 2)
    with pytest.raises(DataError, match=r"labels: example 2 is masked. Leave it out, or fill it with .filled\(\)."):
        ck.data_set(images, masked)
    with pytest.raises(DataError, match="images: example 1 is masked"):
        ck.data_set(np.ma.masked_array(images, np.arange(12)[:, None, None, None] + 0 * images == 1), labels)
    assert ck.data_set(np.ma.array(images), np.ma.array(labels)).path == ck.data_set(images, labels).path
    for names in ("rgb", {0: "red", 1: "green", 2: "blue"}, {"red", "green", "blue"}):
        with pytest.raises(DataError, match="label_names of type .* are not in the order of the ids. Give a list"):
            ck.data_set(images, labels, names)
    with pytest.raises(DataError, match=r"`validation` is not a pair of images and labels"):
        ck.data_set(images, labels, validation=images)


class Column:
    """A column of a table, as pandas has them: it is no sequence, and texts are objects in it."""

    def __init__(self, values):
        self.values = np.array(values, object)

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_columns_of_tables_and_generators_are_data(tmp_path):
    images, labels = coloured(12)
    names = [LABELS[i] for i in labels]
    wanted = ck.data_set(images, names).path
    assert ck.data_set(images, Column(names)).path == ck.data_set(images, np.array(names, object)).path == wanted
    assert ck.data_set((image for image in images), iter(names)).path == wanted
    files = [str(tmp_path / f"{i}.png") for i in range(12)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    wanted = ck.data_set(files, names).path
    assert ck.data_set(Column(files), Column(names)).path == ck.data_set(np.array(files), names).path == wanted


@pytest.mark.parametrize("mode", ["1", "P", "PA", "LA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_images_of_pillow_have_the_colours_that_they_show(mode, trained):
    shown = [Image.fromarray(image).convert("RGB" if mode in ("CMYK", "HSV") else "L") for image in coloured(12)[0]]
    images = [image.convert("P").convert(mode) if mode == "PA" else image.convert(mode) for image in shown]
    wanted = [np.asarray(image.convert("RGB")) for image in images]
    assert ck.data_set(images, [0, 1] * 6).path == ck.data_set(wanted, [0, 1] * 6).path
    with ck.open_classifier(trained[0], device="cpu") as classify:
        np.testing.assert_array_equal(classify.probabilities(images), classify.probabilities(wanted))
        np.testing.assert_array_equal(classify.probabilities(images[0]), classify.probabilities(wanted[0]))


def test_masked_pixels_are_no_pixels(trained):
    images = np.ma.masked_equal(coloured(4)[0], 0)
    assert images.mask.any()
    with ck.open_classifier(trained[0], device="cpu") as classify:
        for given in (images, images[0], list(images)):
            with pytest.raises(DataError, match=r"images have masked values. Leave these out, or fill them"):
                classify(given)
        assert len(classify(images.filled(0))) == 4
    with pytest.raises(DataError, match="images have masked values"):
        ck.data_set(list(images), [0, 1] * 2)


def test_an_array_where_none_is_taken_is_a_sentence(trained):
    images, _ = coloured(3)
    with pytest.raises(DataError, match=r"these are not paths of images. open_classifier\(...\) takes arrays"):
        ck.predict(images, train_dir=trained[0])
    with pytest.raises(DataError, match="no labels for the train examples"):
        ck.features(train_dir=trained[0], data=images)


# --- a net in use ---


def test_evaluate_features_and_a_small_net_on_them(trained, home, how):
    folder, data, _, _ = trained
    evaluation = ck.evaluate(train_dir=folder, data=data, device="cpu")
    assert evaluation.summary["accuracy"] > 0.5
    assert len(evaluation.examples) == evaluation.confusion.sum() == 12
    values = ck.features(train_dir=folder, data=data, device="cpu")
    assert values.values.shape == (60, 16) and not Path(values.facts.get("files", "")).is_file()
    small = ck.finetune(data=values, train_dir=home / "small", steps=5, device="cpu")
    assert small.step == 5
    assert ck.evaluate(train_dir=home / "small", data=values).summary["images"] == 12
    kept = ck.features(train_dir=folder, data=data, output=home / "kept", device="cpu")
    assert (home / "kept.npz").is_file()
    np.testing.assert_array_equal(kept.values, values.values)


def test_an_evaluation_says_how_labels_were_matched(trained):
    images, labels = coloured(12)
    told = ck.evaluate(train_dir=trained[0], data=(images, labels + 3), device="cpu")
    note = "none of the labels is known by name: classes are matched by their order (3 is red, 4 is green, 5 is blue)"
    assert note in told.notes and note in told._repr_html_()
    known = ck.evaluate(train_dir=trained[0], data=trained[1], device="cpu")
    assert known.notes == ("12 of 60 examples were held out for validation (seed 0)",)


def test_a_classifier_stays_open(trained, tmp_path, monkeypatch):
    folder, data, _, _ = trained
    images, _ = coloured(40)
    files = []
    for i in range(4):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(images[i]).save(files[-1])
    expected = ck.predict(files, train_dir=folder, device="cpu", all_probabilities=True, precision="float32")
    sessions, real = [], tf.compat.v1.Session
    monkeypatch.setattr(tf.compat.v1, "Session", lambda *args, **more: sessions.append(1) or real(*args, **more))
    with ck.open_classifier(folder, device="cpu", batch_size=16) as classify:
        found = classify(files)
        assert [each.label for each in found] == [row["predictions"][0]["label"] for row in expected.rows]
        wanted = np.array([row["probabilities"] for row in expected.rows])
        np.testing.assert_allclose([each.probabilities for each in found], wanted, atol=1e-6)
        np.testing.assert_allclose(classify.probabilities(images)[:4], wanted, atol=1e-6)
        one, of_file = classify(images[0]), classify(str(files[0]))
        assert (one.label, one.guesses) == (of_file.label, of_file.guesses) and of_file.name == str(files[0])
        assert len(classify(images)) == 40 and classify([]) == []
        assert [each.name for each in classify(tmp_path)] == [str(file) for file in files]
        (tmp_path / "broken.png").write_bytes(files[0].read_bytes()[:60])
        with pytest.raises(DataError, match=r"cannot be decoded: image .*broken.png \("):
            classify([files[0], tmp_path / "broken.png"])
        with pytest.raises(DataError, match="images of type float64"):
            classify(images[0] / 255.0)
        assert classify.labels == tuple(LABELS)
    assert len(sessions) == 1
    with pytest.raises(ck.CheckpointError, match="the classifier is closed"):
        classify(images[0])


def test_an_export_from_python(trained, tmp_path):
    made = ck.export(train_dir=trained[0], output=tmp_path / "served", format="saved_model")
    assert made.rows[0]["largest_difference"] < 1e-5


def test_estimates_and_rates(trained, how, tmp_path):
    costs = ck.dry_run(**how, data=trained[1], epochs=1)
    assert costs.seconds > 0 and "training" in costs.paces
    found = ck.find_learning_rate(tmp_path / "rates.png", **{**how, "learning_rate": None}, data=trained[1])
    assert found.suggestion > 0 and (tmp_path / "rates.png").is_file()


# --- notebooks ---


def test_results_show_themselves_in_notebooks(trained, how, home):
    folder, data, result, _ = trained
    evaluation = ck.evaluate(train_dir=folder, data=data, device="cpu")
    plan = ck.make_plan(how["checkpoint"], net="tiny", num_classes=3)
    assert repr(plan).startswith(f"<plan {plan.digest}: 14 variables, 12 restored")
    assert repr(evaluation).startswith(f"<evaluation of {folder}/best.ckpt on 12 examples: accuracy ")
    assert repr(result).startswith(f"<run {folder}: {result.step} of {result.total} steps, validation loss ")
    assert repr(data) == f"<data set {data.path}: 3 classes, {len(data.train)} training examples>"
    assert "12 of 14 variables" in plan._repr_html_() and "--exclude Tiny/Logits" in plan._repr_html_()
    shown = ck.open_checkpoint(how["checkpoint"])._repr_html_()
    assert "Tiny/Conv_1/weights" in shown and "14 tensors" in shown
    assert "accuracy" in evaluation._repr_html_() and '<td style="text-align:left">red</td>' in evaluation._repr_html_()
    assert "iframe" in result._repr_html_() and "freeze audit" in result._repr_html_()
    values = ck.features(train_dir=folder, data=data, device="cpu")
    assert repr(values).startswith(f"<features of {folder}/best.ckpt: {len(data.train)} x ")
    for picture in (
        ck.draw_images(data), ck.draw_features(values), ck.draw_values(values),
        ck.draw_confusion(evaluation), ck.draw_errors(evaluation), ck.draw_images(coloured(12)),
        ck.draw_images(data.validation), ck.draw_images(tiny_net.write_photos(home / "photos"), count=2),
    ):  # fmt: skip
        assert picture._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(RecipeError, match="no projection is called 'umap'. Use pca or tsne."):
        ck.draw_features(values, "umap")


def test_text_in_html_is_escaped():
    from ckpt_tools import html

    assert "<b>" not in html.table([{"a": "<b>"}], ["a"]) and "&lt;b&gt;" in html.table([{"a": "<b>"}], ["a"])
    assert "and 2 more" in html.table([{"a": 1}] * 5, ["a"], most=3)


def test_a_notebook_has_bars_of_its_own(capsys, monkeypatch):
    from ckpt_tools.api import notebook
    from ckpt_tools.events import Advanced, Began, Ended, Noted

    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    face = notebook.face()
    for event in (Began("evaluating", 2), Advanced("evaluating", images=8), Noted("look"), Ended("evaluating")):
        face(event)
    out, _ = capsys.readouterr()
    assert "note           look" in out
