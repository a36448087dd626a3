"""ckpt-features on a tiny net: values, parts that merge, frontiers, pictures, TensorBoard's projector."""

import errno
import json
import re
import shutil

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import tiny_net  # noqa: E402
from telling import lines_to  # noqa: E402

from ckpt_tools import open_checkpoint  # noqa: E402
from ckpt_tools.cli import features as command  # noqa: E402
from ckpt_tools.errors import DataError, OutputError, RecipeError, SelectionError  # noqa: E402
from ckpt_tools.train.data.loading import load_data_set  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402
from ckpt_tools.train.pages import projection  # noqa: E402
from ckpt_tools.train.pages.figures import draw_points  # noqa: E402
from ckpt_tools.train.run.finetune import finetune  # noqa: E402
from ckpt_tools.train.use.evaluate import EvaluateOptions, evaluate  # noqa: E402
from ckpt_tools.train.use.feature_files import merge_features, read_features  # noqa: E402
from ckpt_tools.train.use.features import FeatureOptions, last_frozen, write_features  # noqa: E402


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with tiny.ckpt, photos, and whole.npy ...: the transfer values of all photos."""
    root = tmp_path_factory.mktemp("features")
    tiny_net.write_source(root / "tiny.ckpt", classes=7)
    tiny_net.write_photos(root / "photos", train=5, validation=2)
    write_features(options(root, "whole"))
    return root


def options(home, prefix, **more):
    return FeatureOptions(
        checkpoint=str(home / "tiny.ckpt"), data=str(home / "photos"), output=str(home / prefix), batch_size=4, **more
    )


def test_values_with_labels_names_and_splits(home):
    features = read_features(str(home / "whole"))
    assert features.values.shape == (21, 16)
    assert features.values.dtype == np.float32
    assert features.labels == ("cat", "dog", "frog")
    assert features.split == ("train",) * 15 + ("validation",) * 6
    assert features.names[0] == "train/cat/0.png"
    assert features.label_ids.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [0, 0, 1, 1, 2, 2]
    lines = (home / "whole.tsv").read_text().splitlines()
    assert (lines[0], lines[21]) == ("label\tname\tsplit", "frog\tvalidation/frog/1.png\tvalidation")
    record = json.loads((home / "whole.json").read_text())
    assert (record["layer"], record["net"], record["shape"]) == ("features", "tiny", [21, 16])


def test_the_head_makes_its_logits_of_them(home):
    """features @ weights + biases are the logits that the whole net gives, which test_predict writes out by hand."""
    from ckpt_tools.train.use.metrics import softmax
    from ckpt_tools.train.use.predict import PredictOptions, predict

    tensors = open_checkpoint(home / "tiny.ckpt").tensors
    weights = tensors["Tiny/Logits/Conv2d_1c_1x1/weights"].load()[0, 0]
    logits = read_features(str(home / "whole")).values @ weights + tensors["Tiny/Logits/Conv2d_1c_1x1/biases"].load()
    chosen = PredictOptions(checkpoint=str(home / "tiny.ckpt"), top=1)
    found = predict(chosen, [str(home / "photos" / "train" / "dog" / "3.png")]).rows[0]["predictions"][0]
    assert found["label"] == str(logits[8].argmax())
    assert found["probability"] == pytest.approx(softmax(logits)[8].max(), abs=1e-5)


def test_they_are_a_data_set(home):
    for name in ("whole.npz", "whole.npy"):
        data = load_data_set(home / name)
        assert (data.kind, len(data.train), len(data.validation)) == ("vectors", 15, 6)
        np.testing.assert_array_equal(data.train.read(3), read_features(str(home / "whole")).values[3])


def test_parts_merge_to_what_one_machine_writes(home):
    for shard in range(3):
        prefix, part = write_features(options(home, "part", shards=3, shard=shard))
        assert prefix.endswith(f"part-{shard:05d}-of-00003")
        assert part.position.tolist() == list(range(shard, 21, 3))
    merged = merge_features(str(home / "part"), 3)
    np.testing.assert_allclose(merged.values, read_features(str(home / "whole")).values, atol=1e-6)
    assert merged.names == read_features(str(home / "whole")).names
    assert merged.split == read_features(str(home / "whole")).split
    with pytest.raises(DataError, match="parts are missing: part-00000-of-00004, part-00001"):
        merge_features(str(home / "part"), 4)


def test_parts_of_different_layers_do_not_merge(home):
    write_features(options(home, "mixed", shards=2, shard=0))
    write_features(options(home, "mixed", shards=2, shard=1, end_point="Conv_2"))
    with pytest.raises(DataError, match=r"mixed-00001-of-00002: differs from .*mixed-00000-of-00002 in layer$"):
        merge_features(str(home / "mixed"), 2)
    write_features(options(home, "mixed", shards=2, shard=0, end_point="Conv_2", pool="max", type="float16"))
    with pytest.raises(DataError, match="in pool and type$"):
        merge_features(str(home / "mixed"), 2)


@pytest.mark.parametrize(("pool", "shape"), [("mean", (16,)), ("max", (16,)), ("none", (8, 8, 16))])
def test_end_points(home, pool, shape):
    _, whole = write_features(options(home, "map", end_point="Conv_2", pool="none"))
    _, features = write_features(options(home, "end", end_point="Conv_2", pool=pool, type="float16"))
    assert features.values.shape == (21, *shape)
    assert features.values.dtype == np.float16
    expected = {"mean": whole.values.mean((1, 2)), "max": whole.values.max((1, 2)), "none": whole.values}[pool]
    np.testing.assert_allclose(features.values, expected, rtol=2e-3, atol=1e-3)


def test_the_frontier_of_a_trainable_list(home):
    _, features = write_features(options(home, "frontier", trainable=("Conv_3,Logits",)))
    _, before = write_features(options(home, "before", end_point="Conv_2", pool="none"))
    np.testing.assert_allclose(features.values.reshape(21, -1), before.values.reshape(21, -1), atol=1e-5)
    with pytest.raises(SelectionError, match="Logits"):
        write_features(options(home, "wrong", trainable=("Logitz",)))
    with pytest.raises(DataError, match="too little of the net is frozen"):
        write_features(options(home, "wrong", trainable=("Conv_1,Conv_2,Conv_3,Logits",)))


def test_a_broken_photo_has_no_row(home, tmp_path):
    data = tiny_net.write_photos(tmp_path / "photos", train=14, validation=6)
    broken = tmp_path / "photos" / "train" / "dog" / "2.png"
    broken.write_bytes(broken.read_bytes()[:70])
    lines: list[str] = []
    out = FeatureOptions(checkpoint=str(home / "tiny.ckpt"), data=data, output=str(tmp_path / "f"), batch_size=8)
    _, features = write_features(out, lines_to(lines))
    assert features.values.shape == (59, 16)
    assert "train/dog/2.png" not in features.names
    assert 20 not in features.position  # cat: 14 photos, then 0, 1, 10, 11, 12, 13, 2 of dog
    assert any("train/dog/2.png" in line for line in lines)
    assert sorted(path.name for path in tmp_path.glob("f*")) == ["f.json", "f.npy", "f.npz", "f.tsv"]


def test_a_disk_without_room_is_noticed_before_it_is_full(home, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2000))
    out = FeatureOptions(checkpoint=str(home / "tiny.ckpt"), data=str(home / "photos"), output=str(tmp_path / "f"))
    with pytest.raises(OutputError, match=r"f.npy: 2,688 bytes are needed, and 2,000 are free"):
        write_features(out)
    assert list(tmp_path.iterdir()) == []


def test_outputs_do_not_take_the_place_of_inputs(home, tmp_path):
    """`--data photos.npz --output photos` wrote transfer values over the photos."""
    photos = {"images": np.zeros((6, 32, 32, 3), np.uint8), "labels": np.arange(6) % 3}
    np.savez(tmp_path / "photos.npz", **photos)
    np.savez(tmp_path / "other.npz", **photos)
    before = (tmp_path / "photos.npz").read_bytes()
    common = {"checkpoint": str(home / "tiny.ckpt"), "data": str(tmp_path / "photos.npz")}
    with pytest.raises(
        OutputError, match="photos.npz: is an input, and would be overwritten. Choose another --output."
    ):
        write_features(FeatureOptions(**common, output=str(tmp_path / "photos")))
    with pytest.raises(OutputError, match="other.npz: exists, and ckpt-features did not write it"):
        write_features(FeatureOptions(**common, output=str(tmp_path / "other")))
    assert (tmp_path / "photos.npz").read_bytes() == (tmp_path / "other.npz").read_bytes() == before
    (tmp_path / "package.json").write_text("{}")
    with pytest.raises(OutputError, match="package.json: exists, and ckpt-features did not write it"):
        write_features(FeatureOptions(**common, output=str(tmp_path / "package")))
    assert (tmp_path / "package.json").read_text() == "{}"
    for ending in ("tsv", "npz"):  # as if the run had been killed before it wrote them
        write_features(FeatureOptions(**common, output=str(tmp_path / "values")))
        (tmp_path / f"values.{ending}").unlink()
    write_features(FeatureOptions(**common, output=str(tmp_path / "values")))


@pytest.mark.parametrize(("module", "name"), [(shutil, "disk_usage"), (np, "savez")])
def test_what_cannot_be_written_whole_leaves_nothing(home, monkeypatch, module, name):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for shard in range(2):
        write_features(options(home, "old", shards=2, shard=shard))
    merge_features(str(home / "old"), 2)
    before = {path.name: path.read_bytes() for path in home.glob("old*")}
    monkeypatch.setattr(module, name, full)
    with pytest.raises(OutputError, match="No space left on device"):
        merge_features(str(home / "old"), 2)
    assert {path.name: path.read_bytes() for path in home.glob("old*")} == before


def test_the_data_of_a_run_is_read_and_split_as_the_run_did(tmp_path):
    """Else its validation images could be trained on, and pictures could stand beside the values of others."""
    tiny_net.write_source(tmp_path / "tiny.ckpt")
    tiny_net.write_photos(tmp_path / "photos", train=10, validation=0)
    (tmp_path / "order.txt").write_text("frog\ncat\ndog\n")
    run = Options(
        checkpoint=str(tmp_path / "tiny.ckpt"), data=str(tmp_path / "photos/train"), labels=str(tmp_path / "order.txt"),
        train_dir=str(tmp_path / "run"), seed=3, validation_fraction=0.4, exclude=("Logits",), steps=1,
    )  # fmt: skip
    finetune(run)
    evaluated = evaluate(EvaluateOptions(train_dir=str(tmp_path / "run")))
    _, features = write_features(FeatureOptions(train_dir=str(tmp_path / "run"), output=str(tmp_path / "f")))
    validation = [name for name, split in zip(features.names, features.split, strict=True) if split == "validation"]
    assert tuple(validation) == evaluated.examples.names
    assert features.labels == evaluated.labels == ("frog", "cat", "dog")
    assert features.names == tuple(features.examples.names[i] for i in features.position)


def test_the_command_draws_and_writes_projector_files(home, capsys):
    pytest.importorskip("sklearn")
    flags = ["--checkpoint", str(home / "tiny.ckpt"), "--data", str(home / "photos"), "--output", str(home / "drawn")]
    (home / "projector").mkdir()
    (home / "projector" / "mine.txt").write_text("")
    assert command.main([*flags, "--plot", "--projector", str(home / "projector")]) == 0
    out, err = (text.splitlines() for text in capsys.readouterr())
    assert err[-1].startswith("drawing        the projector's files and PCA and t-SNE, which takes a while")
    assert out[0] == "21 images, 16 values each, features of tiny"
    assert [line for line in out if "projector" in line] == [
        str(home / "projector" / name)
        for name in ("tensors.tsv", "metadata.tsv", "projector_config.pbtxt", "sprite.png")
    ]
    for ending in ("pca", "tsne", "values"):
        assert (home / f"drawn.{ending}.png").read_bytes().startswith(b"\x89PNG")
    config = (home / "projector" / "projector_config.pbtxt").read_text()
    assert "tensor_shape: 21\n  tensor_shape: 16\n" in config
    named = dict(re.findall(r'(\w+_path): "(.*)"', config))
    tensor = np.loadtxt(home / "projector" / named["tensor_path"], delimiter="\t")
    np.testing.assert_allclose(tensor, read_features(str(home / "drawn")).values, rtol=1e-4, atol=1e-5)
    metadata = (home / "projector" / named["metadata_path"]).read_text().splitlines()
    assert (len(metadata), metadata[1]) == (22, "cat\ttrain/cat/0.png")
    from PIL import Image

    sprite = np.asarray(Image.open(home / "projector" / named["image_path"]))
    photo = np.asarray(Image.open(home / "photos" / "train" / "dog" / "1.png"))
    np.testing.assert_array_equal(sprite[32:64, 32:64], photo)  # the seventh of five in a row


def test_the_projector_shows_some_of_many_images(home, monkeypatch):
    monkeypatch.setattr(projection, "PROJECTED", 5)
    _, features = write_features(options(home, "many"))
    projection.write_projector(features, str(home / "some"))
    assert 'tensor_name: "features (5 of 21 images)"' in (home / "some" / "projector_config.pbtxt").read_text()
    shown = [line.split("\t")[1] for line in (home / "some" / "metadata.tsv").read_text().splitlines()[1:]]
    rows = [features.names.index(name) for name in shown]
    assert (len(rows), rows) == (5, sorted(rows))
    tensor = np.loadtxt(home / "some" / "tensors.tsv", delimiter="\t")
    np.testing.assert_allclose(tensor, features.values[rows], rtol=1e-4, atol=1e-5)


def test_pictures_that_cannot_be_drawn_are_refused_before_the_values_are_computed(home, capsys, monkeypatch):
    monkeypatch.setattr(projection, "find_spec", lambda name: None)
    flags = ["--checkpoint", str(home / "tiny.ckpt"), "--data", str(home / "photos"), "--output", str(home / "plain")]
    assert command.main([*flags, "--plot"]) == 2
    assert capsys.readouterr().err == (
        'ckpt-features: PCA and t-SNE need scikit-learn. pip install "ckpt-tools[plots]"\n'
    )
    assert not list(home.glob("plain*"))


def test_machines_of_a_cluster_take_their_shares(home, capsys, monkeypatch):
    tasks = {"chief": ["a:1"], "worker": ["b:1"], "ps": ["c:1"]}
    flags = ["--checkpoint", str(home / "tiny.ckpt"), "--data", str(home / "photos"), "--output", str(home / "cluster")]
    for job in ("chief", "worker"):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": tasks, "task": {"type": job, "index": 0}}))
        assert command.main(flags) == 0
    assert merge_features(str(home / "cluster"), 2).names == read_features(str(home / "whole")).names
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": tasks, "task": {"type": "ps", "index": 0}}))
    capsys.readouterr()
    assert command.main(flags) == 2
    assert "a parameter server has no share of the images" in capsys.readouterr().err


def test_the_command_merges(home, capsys):
    for shard in "01":
        flags = ["--checkpoint", str(home / "tiny.ckpt"), "--data", str(home / "photos"), "--output", str(home / "two")]
        assert command.main([*flags, "--shards", "2", "--shard", shard]) == 0
    capsys.readouterr()
    assert command.main(["--merge", "2", "--output", str(home / "two"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["shape"], shown["layer"]) == ([21, 16], "features")
    for number in ("0", "-1"):
        assert command.main(["--merge", number, "--output", str(home / "two")]) == 2
        assert capsys.readouterr().err == f"ckpt-features: --merge {number}: at least one part\n"
    assert command.main(["--merge", "2"]) == 2
    assert "--output must be given" in capsys.readouterr().err


def test_wrong_options(home):
    with pytest.raises(RecipeError, match="--data must be given; --output must be given; --shard 2: 2 shards"):
        FeatureOptions(checkpoint="x", shards=2, shard=2)
    with pytest.raises(RecipeError, match="--pool men: must be one of mean, max, none; .*; --type int8: must be"):
        FeatureOptions(train_dir="x", output="y", pool="men", type="int8")
    with pytest.raises(DataError, match="no end point 'Conv_9'; did you mean Conv_"):
        write_features(options(home, "wrong", end_point="Conv_9"))
    (home / "bad.npz").write_bytes(b"hello")
    with pytest.raises(DataError, match="not what ckpt-features writes"):
        read_features(str(home / "bad"))


def test_the_last_end_point_before_all_that_trains():
    with tf.Graph().as_default():
        v1 = tf.compat.v1
        images = v1.placeholder(tf.float32, [None, 4])
        weights = {name: v1.get_variable(name, [4, 4]) for name in ("stem", "left", "right", "top")}
        stem = images @ weights["stem"]
        left, right = stem @ weights["left"], stem @ weights["right"]
        both = left + right
        logits = both @ weights["top"]
        points = {"stem": stem, "left": left, "right": right, "both": both, "logits": logits}
        for moving, found in (("top", "both"), ("left", "stem"), ("right", "stem"), ("stem", None)):
            assert last_frozen(points, images, logits, {moving}) == found, moving


def test_far_points_are_drawn_at_the_edge():
    points = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    points[7], points[9] = (1e6, 0), (0, -1e6)
    axes = draw_points(points, np.arange(200) % 2, ("a", "b"), "PCA").axes[0]
    drawn = np.concatenate([each.get_offsets() for each in axes.collections])
    assert len(drawn) == 200
    assert abs(drawn).max() < 10
    assert axes.get_title() == "PCA; 2 far points at the edge"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    near = draw_points(points[10:], np.zeros(190, int), ("a",), "PCA").axes[0]
    assert near.get_title() == "PCA"
