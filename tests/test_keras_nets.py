"""Keras Applications and our nets: the same random weights give the same logits, and files convert both ways."""

import json

import numpy as np
import pytest
from computing import CLASSES, NEW_HEAD, as_slims, distance, images, logits, pixels_of, values, write_photos

pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from ckpt_tools import open_checkpoint, save_checkpoint  # noqa: E402
from ckpt_tools.cli.convert import main as convert  # noqa: E402
from ckpt_tools.tensors import Tensors  # noqa: E402

# Largest difference of the net that is taken for Keras' files, in parts of the largest logit.
CASES = {
    "mobilenet_v1_025": ("MobileNet", {"alpha": 0.25}, 96, 1e-5),
    "mobilenet_v1": ("MobileNet", {}, 128, 1e-5),
    "mobilenet_v2_035": ("MobileNetV2", {"alpha": 0.35}, 96, 2e-5),
    "mobilenet_v2_140": ("MobileNetV2", {"alpha": 1.4}, 96, 2e-5),
    "inception_v3": ("InceptionV3", {}, 139, 1e-5),
    "inception_resnet_v2": ("InceptionResNetV2", {}, 139, 1e-5),
    "nasnet_mobile": ("NASNetMobile", {}, 96, 2e-5),
    "vgg_16": ("VGG16", {}, 224, 1e-5),
    "vgg_19": ("VGG19", {}, 224, 1e-5),
    "resnet_v1_50": ("ResNet50", {}, 75, 1e-5),
    "resnet_v1_101": ("ResNet101", {}, 75, 1e-5),
    "resnet_v1_152": ("ResNet152", {}, 75, 1e-5),
    "resnet_v2_50": ("ResNet50V2", {}, 64, 1e-5),
    "resnet_v2_101": ("ResNet101V2", {}, 64, 1e-5),
    "resnet_v2_152": ("ResNet152V2", {}, 64, 1e-5),
}
QUICK = ("mobilenet_v1_025", "inception_v3", "resnet_v1_50")


def application(name, **how):
    title, options, side, _ = CASES[name]
    how = {"weights": None, "input_shape": (side, side, 3), "classes": CLASSES, "classifier_activation": None, **how}
    return getattr(keras.applications, title)(**options, **how)


def with_values(model, seed=0):
    random = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(values(weight.path, weight.shape, random))
    return model


def arrays_of(model):
    return {f"{layer.name}/{w.path.rpartition('/')[2]}": np.array(w) for layer in model.layers for w in layer.weights}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n not in QUICK else ()) for n in CASES])
def test_logits_are_those_of_keras(name):
    *_, side, most = CASES[name]
    model, fed = with_values(application(name)), images(side)
    expected = np.array(model(fed, training=False))
    found, tensors = as_slims(arrays_of(model))
    assert found.net.name == name
    assert distance(logits(found.exact, tensors, fed), expected) < most
    if found.near:  # slim's own is not the same, as its layout says
        assert 1e-3 < distance(logits(name, tensors, fed), expected) < 0.5
    else:  # the comparison can fail
        last = list(tensors)[-1]
        other = {**tensors, last: tensors[last]._replace(load=lambda: tensors[last].load() * 1.5)}
        assert distance(logits(name, Tensors(other), fed), expected) > 1e-3


@pytest.mark.parametrize("name", ["mobilenet_v2_035", pytest.param("inception_resnet_v2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", ["k.h5", "k.weights.h5", "k.keras"])
def test_every_file_of_keras_becomes_slims_and_goes_back(tmp_path, monkeypatch, capsys, name, file):
    """Written by Keras, brought to slim and back by the command, loaded by Keras: all weights are the same again."""
    monkeypatch.chdir(tmp_path)
    application(name)  # so that Keras' own numbers do not begin at nothing
    model = with_values(application(name))
    (model.save_weights if "weights" in file else model.save)(file)
    assert convert([file, "slim.ckpt", "--layout", "slim"]) == 0
    assert "function  the same" in capsys.readouterr().out
    for target in ("out.h5", "out.weights.h5"):
        assert convert(["slim.ckpt", target, "--layout", "keras"]) == 0
        again = application(name, weights=target)
        for a, b in zip(model.weights, again.weights, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_net_without_its_top(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = with_values(application("mobilenet_v1_025", include_top=False))
    model.save("body.h5")
    assert convert(["body.h5", "slim.ckpt", "--layout", "slim"]) == 0
    assert convert(["slim.ckpt", "out.h5", "--layout", "keras"]) == 0
    assert "note      the source has no classifier" in capsys.readouterr().out
    again = application("mobilenet_v1_025", include_top=False, weights="out.h5")
    assert all((np.array(a) == np.array(b)).all() for a, b in zip(model.weights, again.weights, strict=True))


def test_a_slim_net_of_1001_classes_predicts_the_same_in_keras(tmp_path, monkeypatch):
    """Slots and averages go, the background goes; the other classes have the same probabilities among themselves."""
    from test_cache_nets import write_random

    monkeypatch.chdir(tmp_path)
    source = open_checkpoint(write_random("mobilenet_v1_025", "random.ckpt")).tensors
    random = np.random.default_rng(0)
    heads = {name: spec.shape[:-1] for name, spec in source.specs().items() if "Logits" in name}
    wide = {n: from_(random.normal(size=(*shape, 1001)) * 0.1) for n, shape in heads.items()}
    slots = {f"{name}/Adam": source[name] for name in list(source)[:3]}
    save_checkpoint(Tensors({**source, **wide, **slots}), "slim.ckpt")
    assert convert(["slim.ckpt", "out.h5", "--layout", "keras"]) == 0
    fed = images(96)
    model = application("mobilenet_v1_025", classes=1000, weights="out.h5")
    expected = np.array(model(fed, training=False))
    import computing

    monkeypatch.setattr(computing, "CLASSES", 1001)
    got = logits("mobilenet_v1_025", open_checkpoint("slim.ckpt").tensors, fed)
    assert distance(got[:, 1:], expected) < 1e-5


def test_a_file_of_keras_is_trained_on_without_any_option_and_goes_back(tmp_path, monkeypatch, capsys):
    """The file that Keras saves, fine-tuned and written as Keras' again, predicts in Keras what it predicts here."""
    from ckpt_tools.cli.finetune import main as finetune
    from ckpt_tools.train.use.predict import PredictOptions, predict

    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", ("cat", "cow", "dog"))
    with_values(application("mobilenet_v1_025", classes=1000)).save("k.h5")
    words = [*NEW_HEAD, "--learning-rate", "0.1"]
    assert finetune(["--checkpoint", "k.h5", "--data", "photos", "--train-dir", "run", *words]) == 0
    said = "".join(capsys.readouterr())
    assert (
        "note           the checkpoint is MobilenetV1 0.25 of Keras, 1000 classes: 137 tensors under Keras' names"
        in said
    )
    assert "135 of 137 tensors are bit for bit as planned" in said
    assert convert(["run/best.ckpt", "back.h5", "--layout", "keras"]) == 0
    assert "function  the same" in capsys.readouterr().out
    model = application("mobilenet_v1_025", classes=3, weights="back.h5", classifier_activation="softmax")
    found = predict(PredictOptions(train_dir="run", all_probabilities=True), ["photos"]).rows
    chances = np.array([row["probabilities"] for row in found])
    assert np.abs(chances[0] - chances[-1]).max() > 0.05  # it has learnt something
    expected = np.array(model(pixels_of([row["file"] for row in found], "run"), training=False))
    np.testing.assert_allclose(chances, expected, atol=1e-5)


@pytest.mark.slow
def test_a_resnet_of_keras_stays_keras_own_through_two_runs(tmp_path, monkeypatch, capsys):
    """Its strides and pixels are not slim's, under whose names the second run finds what the first one saved."""
    from ckpt_tools.cli.finetune import main as finetune
    from ckpt_tools.train.use.predict import PredictOptions, predict

    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", ("cat", "cow", "dog"))
    with_values(application("resnet_v1_50")).save("k.h5")
    words = ["--data", "photos", "--image-size", "75", "--steps"]
    head = ["--exclude", "Logits", "--trainable", "Logits"]
    assert finetune(["--checkpoint", "k.h5", "--train-dir", "run", *head, *words, "12"]) == 0
    last = ["--trainable", "block4,Logits"]
    assert finetune(["--checkpoint", "run/best.ckpt", "--train-dir", "run2", *last, *words, "3"]) == 0
    for run in ("run", "run2"):
        record = json.loads((tmp_path / run / "plan.json").read_text())
        assert (record["net"], record["preprocessing"]["style"]) == ("resnet_v1_50_keras", "caffe")
    assert finetune(["--checkpoint", "run/best.ckpt", "--train-dir", "run2", *last, *words, "5"]) == 0  # goes on
    capsys.readouterr()
    assert convert(["run2/best.ckpt", "back.h5", "--layout", "keras"]) == 0
    assert "function  the same\n" in capsys.readouterr().out
    model = application("resnet_v1_50", classes=3, weights="back.h5", classifier_activation="softmax")
    found = predict(PredictOptions(train_dir="run2", all_probabilities=True), ["photos"]).rows
    expected = np.array(model(pixels_of([row["file"] for row in found], "run2"), training=False))
    np.testing.assert_allclose(np.array([row["probabilities"] for row in found]), expected, atol=1e-5)


def from_(values):
    from ckpt_tools.tensors import from_array

    return from_array(values.astype(np.float32))
