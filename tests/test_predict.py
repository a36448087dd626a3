"""ckpt-predict on a tiny net."""

import csv
import json

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import tiny_net  # noqa: E402
from PIL import Image  # noqa: E402

from ckpt_tools.cli import predict as command  # noqa: E402
from ckpt_tools.errors import DataError, RecipeError  # noqa: E402
from ckpt_tools.train.use.predict import PredictOptions, find_images, predict  # noqa: E402


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with tiny.ckpt, labels.txt and photos of two sizes in two folders."""
    root = tmp_path_factory.mktemp("predict")
    tiny_net.write_source(root / "tiny.ckpt", classes=3)
    (root / "labels.txt").write_text("0:ant\n1:bee\n2:cow\n")
    (root / "photos" / "more").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, size in (("a.png", 32), ("b[1].png", 50), ("more/c.jpg", 64)):
        Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(root / "photos" / name)
    return root


def options(home, **more):
    return PredictOptions(checkpoint=str(home / "tiny.ckpt"), labels=str(home / "labels.txt"), **more)


def expected(home, name):
    """Probabilities by slim itself: the net built and restored by hand."""
    from ckpt_tools import open_checkpoint

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        image = tf.io.decode_png((home / "photos" / name).read_bytes(), 3)
        cut = tf.image.central_crop(tf.image.convert_image_dtype(image, tf.float32), 0.875)
        pixels = v1.image.resize_bilinear(cut[None], [32, 32]) * 2 - 1
        net = pixels
        tensors = open_checkpoint(home / "tiny.ckpt").tensors

        def value(name):
            return tensors[f"Tiny/{name}"].load()

        for layer in tiny_net.BLOCKS:
            net = tf.nn.conv2d(net, value(f"{layer}/weights"), 2, "SAME")
            mean, variance = (value(f"{layer}/BatchNorm/moving_{word}") for word in ("mean", "variance"))
            net = tf.nn.relu(
                tf.nn.batch_normalization(net, mean, variance, value(f"{layer}/BatchNorm/beta"), None, 0.001)
            )
        pooled = tf.reduce_mean(net, [1, 2])
        weights, biases = value("Logits/Conv2d_1c_1x1/weights")[0, 0], value("Logits/Conv2d_1c_1x1/biases")
        return session.run(tf.nn.softmax(pooled @ weights + biases))[0]


def test_probabilities_are_those_of_the_net_written_out(home):
    found = predict(options(home, top=3), home / "photos" / "a.png")
    guesses = found.rows[0]["predictions"]
    chances = dict(zip(("ant", "bee", "cow"), expected(home, "a.png"), strict=True))
    assert [guess["label"] for guess in guesses] == sorted(chances, key=chances.get, reverse=True)
    for guess in guesses:
        assert guess["probability"] == pytest.approx(chances[guess["label"]], abs=1e-5)


def test_folders_patterns_and_names_with_brackets(home):
    photos = home / "photos"
    names = [str(photos / name) for name in ("a.png", "b[1].png", "more/c.jpg")]
    assert find_images([str(photos)]) == names
    assert find_images([names[1], str(photos / "*.png")]) == [names[1], names[0]]
    assert find_images([str(photos / "**" / "*.jpg")]) == [names[2]]
    with pytest.raises(DataError, match=r"no file .*/aa.png; did you mean a.png\?; no file "):
        find_images([str(photos / "aa.png"), str(photos / "*.tiff")])


def test_table_json_and_exit_codes(home, capsys, tmp_path):
    flags = ["--checkpoint", str(home / "tiny.ckpt"), "--labels", str(home / "labels.txt")]
    assert command.main([*flags, str(home / "photos"), "--json", "--top", "2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"rows", "summary"}
    assert [len(row["predictions"]) for row in shown["rows"]] == [2, 2, 2]
    broken = tmp_path / "broken.png"
    broken.write_bytes((home / "photos" / "a.png").read_bytes()[:70])
    assert command.main([*flags, str(home / "photos" / "a.png"), str(broken), "--top", "1"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["file", "label", "probability"]
    assert len(out.splitlines()) == 3
    assert f"{broken}: cannot be decoded" in err
    assert command.main([*flags, str(broken)]) == 2
    assert "1 of 1 images cannot be decoded" in capsys.readouterr().err


def test_labels_that_do_not_fit(home, tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\n")
    wrong = PredictOptions(checkpoint=str(home / "tiny.ckpt"), labels=str(tmp_path / "labels.txt"))
    with pytest.raises(DataError, match="2 labels, but the net has 3 classes"):
        predict(wrong, [str(home / "photos")])
    with pytest.raises(RecipeError, match="not both"):
        PredictOptions(train_dir="a", checkpoint="b")
    with pytest.raises(RecipeError, match="--top 0: must be at least 1; --batch-size 0: must be at least 1"):
        PredictOptions(train_dir="a", top=0, batch_size=0)
    numbered = predict(PredictOptions(checkpoint=str(home / "tiny.ckpt")), [str(home / "photos" / "a.png")])
    assert {guess["label"] for guess in numbered.rows[0]["predictions"]} == {"0", "1", "2"}


def test_records_arrays_and_published_data_sets(home, tmp_path, capsys):
    """The same photos in every kind of file give the same labels; nothing is asked of the labels in them."""
    from test_data import write_records
    from test_published import write_idx

    files = sorted((home / "photos").rglob("*.*"))
    files = [file for file in files if file.suffix in (".png", ".jpg")]
    wanted = [row["predictions"] for row in predict(options(home), list(map(str, files))).rows]
    write_records(tmp_path / "some.tfrecord", [(file.read_bytes(), [1, 2, 3]) for file in files])
    found = predict(options(home), [str(tmp_path / "some.tfrecord")])
    assert [row["file"] for row in found.rows] == [f"some.tfrecord:{i}" for i in range(3)]
    assert [row["predictions"] for row in found.rows] == wanted
    (tmp_path / "records").mkdir()
    (tmp_path / "some.tfrecord").rename(tmp_path / "records" / "unlabelled")
    assert [row["predictions"] for row in predict(options(home), [str(tmp_path / "records")]).rows] == wanted
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB").resize((32, 32))) for file in files])
    np.savez(tmp_path / "x.npz", images=pixels, names=["one", "two", "three"])
    assert [row["file"] for row in predict(options(home), [str(tmp_path / "x.npz")]).rows] == ["one", "two", "three"]
    both = predict(options(home), [str(files[0]), str(tmp_path / "x.npz")])
    assert [row["file"] for row in both.rows] == [
        str(files[0]),
        *(f"{tmp_path}/x.npz:{n}" for n in ("one", "two", "three")),
    ]
    assert both.rows[0]["predictions"] == wanted[0]
    write_idx(tmp_path / "mnist")
    assert len(predict(options(home), [str(tmp_path / "mnist")]).rows) == 40
    np.savez(tmp_path / "y.npz", pictures=pixels)
    with pytest.raises(DataError, match="y.npz: holds pictures. An array `images` is needed."):
        predict(options(home), [str(tmp_path / "y.npz")])


def test_a_csv_with_all_probabilities(home, tmp_path, capsys):
    flags = ["--checkpoint", str(home / "tiny.ckpt"), "--labels", str(home / "labels.txt"), str(home / "photos")]
    out = tmp_path / "predictions.csv"
    assert command.main([*flags, "--output", str(out), "--all-probabilities", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label", "probability", "ant", "bee", "cow"]
    for row, told in zip(rows, shown["rows"], strict=True):
        values = [float(row[name]) for name in ("ant", "bee", "cow")]
        assert sum(values) == pytest.approx(1, abs=1e-5)
        assert values == pytest.approx(told["probabilities"], abs=1e-6)
        assert (row["label"], float(row["probability"])) == (told["predictions"][0]["label"], max(values))
    assert shown["summary"]["labels"] == ["ant", "bee", "cow"]
    assert command.main([*flags, "--output", str(out)]) == 0
    assert out.read_text().splitlines()[0] == "file,label,probability"
    assert command.main([*flags, "--output", str(tmp_path / "no" / "p.csv")]) == 2
    assert "p.csv: is in a folder that does not exist" in capsys.readouterr().err
    assert command.main([*flags, "--output", str(home / "labels.txt")]) == 2
    assert "labels.txt: exists and is not a CSV of predictions" in capsys.readouterr().err
    assert (home / "labels.txt").read_text().startswith("0:ant")
