"""The frozen prefix is computed once: which tensors are cached, what is kept, and that results stay the same."""

import json
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import tiny_net
from telling import lines_to

from ckpt_tools import open_checkpoint
from ckpt_tools.errors import OutputError, RecipeError, TrainingError
from ckpt_tools.events import Began
from ckpt_tools.train.cache import lookup, store
from ckpt_tools.train.cache import transfer as transfer_module
from ckpt_tools.train.cache.store import FrontierTensor, open_cache, parse_size
from ckpt_tools.train.data import examples as examples_module
from ckpt_tools.train.data.loading import load_data_set
from ckpt_tools.train.data.pipeline import make_batches
from ckpt_tools.train.data.preprocess import Preprocessing
from ckpt_tools.train.graph.restore import changed_tensors
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run.finetune import finetune
from ckpt_tools.train.run.run_directory import RunDirectory

TENSORS = [FrontierTensor("a:0", (2, 3)), FrontierTensor("b:0", (4,))]


def rows(numbers):
    """Values of both tensors that tell the images apart."""
    numbers = np.asarray(numbers, np.float32)
    return [numbers[:, None, None] + np.zeros((2, 3), np.float32), numbers[:, None] * np.ones(4, np.float32)]


@pytest.fixture
def cache(tmp_path):
    made = open_cache(tmp_path, {"net": "n"}, TENSORS, "float32")
    with made.adding() as add:
        add(["i1", "i2"], rows([1, 2]))
        add(["i3"], rows([3]))
    return made


# --- the files ---


def test_rows_are_found_by_image_and_read_back(cache):
    found = store.Rows(cache).find(["i3", "other", "i1"])
    assert found.tolist() == [2, -1, 0]
    a, b = cache.maps()
    assert a[found[[0, 2]]].tolist() == rows([3, 1])[0].tolist()
    assert b[found[[0, 2]]].tolist() == rows([3, 1])[1].tolist()
    assert cache.row_bytes == 40


def test_other_facts_are_another_folder(tmp_path, cache):
    same = open_cache(tmp_path, {"net": "n"}, TENSORS, "float32")
    other = open_cache(tmp_path, {"net": "m"}, TENSORS, "float32")
    half = open_cache(tmp_path, {"net": "n"}, TENSORS, "float16")
    assert store.Rows(same).find(["i1"]).tolist() == [0]
    assert store.Rows(other).find(["i1"]).tolist() == store.Rows(half).find(["i1"]).tolist() == [-1]
    assert json.loads((cache.folder / "facts.json").read_text())["net"] == "n"


@pytest.mark.parametrize("left", range(0, 24, 5))
def test_a_cut_short_file_loses_its_last_rows_only(cache, left):
    path = cache.folder / "tensor-0.rows"
    path.write_bytes(path.read_bytes()[: 24 + left])  # rows of 24 bytes: the second one is cut
    assert store.Rows(cache).find(["i1", "i2", "i3"]).tolist() == [0, -1, -1]
    with cache.adding() as add:
        add(["i2"], rows([2]))
    assert store.Rows(cache).find(["i1", "i2", "i3"]).tolist() == [0, 1, -1]
    assert cache.maps()[0][1].tolist() == rows([2])[0][0].tolist()


def test_a_cut_short_index_loses_its_last_rows_only(cache):
    path = cache.folder / "rows.index"
    path.write_bytes(path.read_bytes()[:-1])
    assert store.Rows(cache).find(["i1", "i2", "i3"]).tolist() == [0, 1, -1]


@pytest.mark.parametrize("name", ["tensor-0.rows", "tensor-1.rows", "rows.index"])
def test_every_flipped_bit_is_found(cache, name):
    path = cache.folder / name
    data = path.read_bytes()
    for position in range(0, len(data), 3):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        found = store.Rows(cache).find(["i1", "i2", "i3"])
        assert (found == -1).sum() == 1, position
    path.write_bytes(data)
    assert (store.Rows(cache).find(["i1", "i2", "i3"]) >= 0).all()


def test_a_damaged_row_is_replaced_by_a_newer_one(cache):
    path = cache.folder / "tensor-1.rows"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    assert store.Rows(cache).find(["i1", "i2", "i3"]).tolist() == [0, -1, 2]
    with cache.adding() as add:
        add(["i2"], rows([2]))
    assert store.Rows(cache).find(["i1", "i2", "i3"]).tolist() == [0, 3, 2]


def test_values_of_the_wrong_shape_are_refused(cache):
    with cache.adding() as add, pytest.raises(OutputError, match="rows of shape"):
        add(["i4"], [np.zeros((1, 2, 2), np.float32), np.zeros((1, 4), np.float32)])
    assert store.Rows(cache).find(["i1", "i4"]).tolist() == [0, -1]


def test_the_limit_is_told_before_it_is_passed(cache):
    assert cache.check_space(10, 1e9) == ""
    assert cache.check_space(10, 500.0) == (
        "the cached features would take 520 bytes, more than --cache-limit 500 bytes"
    )
    assert parse_size("10GB") == 1e10
    assert parse_size("500 MB") == 5e8
    with pytest.raises(RecipeError, match="'much' is not a size"):
        parse_size("much")


# --- in a run ---


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_net.write_job(tmp_path_factory.mktemp("cache"), steps=14, log_steps=1)


def differing(a, b):
    return changed_tensors(open_checkpoint(a / "model.ckpt-14").tensors, open_checkpoint(b / "model.ckpt-14").tensors)


# The last bit of a convolution's result depends on where in its batch an image stands (Eigen and oneDNN split a batch
# into blocks). With the cache each image is computed in another batch than without it, hence this and not zero.
TOLERANCE = 2e-5


def distance(a, b):
    """Largest difference between values of two checkpoints, which must hold the same tensors."""
    a, b = (open_checkpoint(run / "model.ckpt-14").tensors for run in (a, b))
    assert a.specs() == b.specs()
    return max(np.abs(a[name].load().astype(np.float64) - b[name].load()).max() for name in a)


def losses(run):
    return np.array([float(row["loss"]) for row in RunDirectory(run).metrics()])


TRAINABLE = {
    "head": {"trainable": ("Logits",)},
    "head with dropout and a layer": {"trainable": ("Logits",), "dropout": 0.3, "head": "dense(8,relu)"},
    "upper layers": {"trainable": ("Conv_3,Logits",), "learning_rate": 0.01},
    "a frozen layer after a trained one": {"trainable": ("Conv_2,Logits",)},
    "three views of each image": {"trainable": ("Logits",), "augment": ("flip", "crop(0.5)"), "augment_copies": 3},
}


@pytest.mark.parametrize("case", TRAINABLE)
def test_the_same_weights_with_and_without_the_cache(job, tmp_path, case):
    said, options = [], {**job, **TRAINABLE[case], "cache_dir": str(tmp_path / "cache")}
    finetune(Options(**options, train_dir=str(tmp_path / "off"), cache="off"))
    finetune(Options(**options, train_dir=str(tmp_path / "on"), cache="require"), lines_to(said))
    finetune(Options(**options, train_dir=str(tmp_path / "again"), cache="require"), lines_to(said))
    views = TRAINABLE[case].get("augment_copies", 1)
    count = f"{42 * views + 18} of {42 * views + 18} {'images' if views == 1 else 'views'} cached"
    assert [count in line for line in said if line.startswith("cache")] == [False, True]
    assert distance(tmp_path / "off", tmp_path / "on") < TOLERANCE
    np.testing.assert_allclose(losses(tmp_path / "on"), losses(tmp_path / "off"), rtol=1e-5)
    assert differing(tmp_path / "on", tmp_path / "again") == []


def test_the_distance_sees_another_learning_rate(job, tmp_path):
    options = {**job, "trainable": ("Logits",)}
    finetune(Options(**options, train_dir=str(tmp_path / "a"), learning_rate=0.001))
    finetune(Options(**options, train_dir=str(tmp_path / "b"), learning_rate=0.0011))
    assert distance(tmp_path / "a", tmp_path / "b") > 10 * TOLERANCE


def test_a_changed_photo_is_computed_again_and_only_it(job, tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    tiny_net.write_photos(photos)
    options = {**job, "data": str(photos), "trainable": ("Logits",), "cache_dir": str(tmp_path / "cache")}
    said = []
    finetune(Options(**options, train_dir=str(tmp_path / "first")), lines_to(said))
    (photos / "train/cat/0.png").write_bytes((photos / "train/dog/1.png").read_bytes() + b"\0")
    finetune(Options(**options, train_dir=str(tmp_path / "second")), lines_to(said))
    there = [line.splitlines()[0].removeprefix("cache").strip() for line in said if line.startswith("cache")]
    assert there == ["0 of 60 images cached; each step runs 0.11% of the net", there[1]]
    assert there[1].startswith("59 of 60 images cached")
    monkeypatch.setattr(transfer_module, "make_batches", None)  # nothing is left to be computed
    finetune(Options(**options, train_dir=str(tmp_path / "third")))


def test_another_backbone_is_computed_again(job, tmp_path):
    other = tiny_net.write_source(tmp_path / "other.ckpt", seed=5)
    said = []
    options = {**job, "cache_dir": str(tmp_path / "cache"), "trainable": ("Logits",)}
    finetune(Options(**options, train_dir=str(tmp_path / "a")), lines_to(said))
    finetune(Options(**{**options, "checkpoint": other}, train_dir=str(tmp_path / "b")), lines_to(said))
    assert sum("0 of 60 images cached" in line for line in said) == 2
    assert len(list((tmp_path / "cache").glob("*/facts.json"))) == 2


def test_a_photo_that_cannot_be_decoded_is_replaced_as_without_the_cache(job, tmp_path):
    photos = tmp_path / "photos"
    tiny_net.write_photos(photos)
    broken = photos / "train/dog/3.png"
    broken.write_bytes(broken.read_bytes()[:100])
    options = {**job, "data": str(photos), "trainable": ("Logits",), "cache_dir": str(tmp_path / "cache")}
    finetune(Options(**options, train_dir=str(tmp_path / "on"), cache="require"))
    finetune(Options(**options, train_dir=str(tmp_path / "off"), cache="off"))
    assert distance(tmp_path / "off", tmp_path / "on") < TOLERANCE


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"augment": ("flip",)},
            "the images are another view in each epoch (--augment); --augment-copies K would cache K views of each",
        ),
        ({"trainable": ()}, "too little of the net is frozen"),
        ({"cache_limit": "1KB"}, "the cached features would take 3.8 kB, more than --cache-limit 1.0 kB"),
        (  # 64 bytes for each of the 18 images to validate and of 2,000 views of the 42 to train on
            {"augment": ("flip",), "augment_copies": 2000, "cache_limit": "5MB"},
            "the cached features would take 5.4 MB, more than --cache-limit 5.0 MB",
        ),
    ],
)
def test_what_cannot_be_cached_is_said(job, tmp_path, options, why):
    wanted = {**job, "trainable": ("Logits",), "cache_dir": str(tmp_path / "cache"), **options}
    with pytest.raises(TrainingError) as caught:
        finetune(Options(**wanted, train_dir=str(tmp_path / "run"), cache="require"))
    assert str(caught.value) == f"--cache require: {why}"
    assert not (tmp_path / "run").exists()
    said = []
    finetune(Options(**wanted, train_dir=str(tmp_path / "run")), lines_to(said))
    assert f"cache          none: {why}" in said


def test_half_precision_halves_the_rows_and_stays_near(job, tmp_path):
    options = {**job, "trainable": ("Logits",), "cache_dir": str(tmp_path / "cache")}
    said = []
    finetune(Options(**options, train_dir=str(tmp_path / "whole")))
    finetune(Options(**options, train_dir=str(tmp_path / "half"), cache_dtype="float16"), lines_to(said))
    assert any("32 bytes per image" in line and "at Tiny/Logits/pool" in line for line in said)
    name = "Tiny/Logits/Conv2d_1c_1x1/weights"
    whole, half = (open_checkpoint(tmp_path / run / "model.ckpt-14").tensors[name].load() for run in ("whole", "half"))
    assert 0 < np.abs(whole - half).max() < 1e-2


# --- several augmented views of each image ---

VIEWS = {"trainable": ("Logits",), "augment": ("flip", "crop(0.5)", "colour"), "augment_copies": 3}


def caches(said):
    """How many views each run found."""
    return [line.split(" cached")[0].removeprefix("cache").strip() for line in said if line.startswith("cache")]


def test_epochs_take_the_views_in_turn(job):
    """42 images in batches of 8: epochs of six steps. Epoch 3 shows what epoch 0 showed, epochs 1 and 2 do not."""
    examples = load_data_set(job["data"]).train
    how = Preprocessing("inception", 16, augment=VIEWS["augment"], copies=3)
    with tf.Graph().as_default(), tf.Session() as session:
        batches = make_batches(examples, how, batch_size=8, training=True, seed=4)
        following = tf.data.make_one_shot_iterator(batches).get_next()
        got = [session.run(following) for _ in range(24)]
        plain = make_batches(examples, how, batch_size=42, training=False, seed=4, view=2)
        second = session.run(tf.data.make_one_shot_iterator(plain).get_next())["image"]
    epochs = []
    for epoch in range(4):
        index, image = (np.concatenate([b[key] for b in got[6 * epoch : 6 * epoch + 6]]) for key in ("index", "image"))
        epochs.append(image[np.argsort(index)])
    assert np.array_equal(epochs[0], epochs[3])
    assert np.array_equal(epochs[2], second)
    assert min(np.abs(epochs[0] - epochs[1]).max(), np.abs(epochs[1] - epochs[2]).max()) > 0.1


def test_views_are_kept_by_photo_seed_and_steps(job, tmp_path):
    photos = tmp_path / "photos"
    tiny_net.write_photos(photos)
    options = {**job, **VIEWS, "data": str(photos), "cache_dir": str(tmp_path / "cache"), "cache": "require"}
    options["steps"] = 1  # what is looked at comes before them
    said = []
    finetune(Options(**options, train_dir=str(tmp_path / "a")), lines_to(said))
    assert "3 views of each training image, at Tiny/Logits/pool" in "".join(said)
    (photos / "train/cat/0.png").write_bytes((photos / "train/dog/1.png").read_bytes() + b"\0")
    finetune(Options(**options, train_dir=str(tmp_path / "b")), lines_to(said))
    (photos / "train/cat/aa.png").write_bytes((photos / "train/dog/1.png").read_bytes() + b"\1")  # the others move on
    finetune(Options(**options, train_dir=str(tmp_path / "c")), lines_to(said))
    finetune(Options(**{**options, "augment_copies": 4}, train_dir=str(tmp_path / "d")), lines_to(said))
    finetune(Options(**{**options, "augment": ("flip",)}, train_dir=str(tmp_path / "e")), lines_to(said))
    finetune(Options(**options, train_dir=str(tmp_path / "f"), seed=1), lines_to(said))
    finetune(Options(**options, train_dir=str(tmp_path / "g")), lines_to(said))
    # 42 photos to train on (then 43), 18 to validate with, which are the same whatever the augmentation
    found = ["0 of 144", "141 of 144", "144 of 147", "147 of 190", "18 of 147", "18 of 147", "147 of 147"]
    assert caches(said) == [f"{each} views" for each in found]
    assert len(list((tmp_path / "cache").glob("*/facts.json"))) == 1


def test_copies_without_augmentation_are_refused():
    with pytest.raises(RecipeError) as caught:
        Options(augment_copies=3)
    assert str(caught.value) == "--augment-copies: there is nothing to copy without --augment"


# --- the head alone: what reaches it is all there, and nothing before it is built ---

HEADS = {
    "the net's own": {},
    "layers and dropout": {"head": "dense(8,relu)|dropout(0.5)", "dropout": 0.3, "ema": 0.9, "layer_decay": 0.5},
    "in a scope of its own": {"head_scope": "Mine", "trainable": ("Mine",), "exclude": ()},
    "views": {"augment": ("flip",), "augment_copies": 2},
}


@pytest.mark.parametrize("case", HEADS)
def test_a_head_is_trained_without_the_net_as_with_it(job, tmp_path, case):
    options = {**job, "trainable": ("Logits",), **HEADS[case], "cache_dir": str(tmp_path / "cache")}
    said = {}
    for name in ("fills", "alone", "whole"):
        if name == "whole":
            shutil.rmtree(tmp_path / "cache/frontiers")
        finetune(Options(**options, train_dir=str(tmp_path / name)), lines_to(said.setdefault(name, [])))
    restored = {name: next(line for line in lines if line.startswith("restored")) for name, lines in said.items()}
    assert restored["fills"] == restored["whole"]
    assert restored["alone"].endswith("variables, read back and compared with the plan; 12 are copied")
    assert differing(tmp_path / "alone", tmp_path / "whole") == []
    assert losses(tmp_path / "alone").tolist() == losses(tmp_path / "whole").tolist()
    assert said["alone"][-1] == said["whole"][-1] == said["fills"][-1]  # the freeze audit
    work = [re.search("each step runs (.*)% of the net", "".join(lines))[1] for lines in said.values()]
    assert len(set(work)) == 1


def test_another_head_finds_the_values_of_the_first(job, tmp_path):
    options = {**job, "cache_dir": str(tmp_path / "cache")}
    said = []
    finetune(Options(**options, trainable=("Logits",), train_dir=str(tmp_path / "a")), lines_to(said))
    other = {"head_scope": "Mine", "head": "dense(8,relu)", "trainable": ("Mine",)}
    finetune(Options(**{**options, **other, "exclude": ()}, train_dir=str(tmp_path / "b")), lines_to(said))
    assert caches(said) == ["0 of 60 images", "60 of 60 images"]
    assert "restored       4 variables, read back and compared with the plan; 12 are copied" in said
    said.clear()  # a backbone that moves is built, whatever is known
    finetune(Options(**options, trainable=("Conv_3,Logits",), train_dir=str(tmp_path / "c")), lines_to(said))
    assert "restored       14 variables, read back and compared with the plan" in said


def test_a_run_that_changes_images_at_random_takes_no_values_of_plain_ones(job, tmp_path):
    """It did where all of them were there and the head alone trained."""
    options = {**job, "trainable": ("Logits",), "cache_dir": str(tmp_path / "cache")}
    finetune(Options(**options, train_dir=str(tmp_path / "plain")))
    said = []
    finetune(Options(**options, augment=("flip",), train_dir=str(tmp_path / "random")), lines_to(said))
    assert any("the images are another view in each epoch" in line for line in said)


def test_a_head_trained_without_the_net_goes_on_where_it_was_stopped(job, tmp_path):
    options = {**job, "trainable": ("Logits",), "cache_dir": str(tmp_path / "cache"), "optimizer": "momentum"}
    finetune(Options(**options, train_dir=str(tmp_path / "whole")))
    finetune(Options(**{**options, "steps": 5}, train_dir=str(tmp_path / "parts")))
    finetune(Options(**options, train_dir=str(tmp_path / "parts")))
    assert differing(tmp_path / "whole", tmp_path / "parts") == []


def test_a_note_that_is_damaged_or_of_another_net_does_no_harm(job, tmp_path):
    options = {**job, "trainable": ("Logits",), "cache_dir": str(tmp_path / "cache")}
    finetune(Options(**options, train_dir=str(tmp_path / "a")))
    note = next((tmp_path / "cache/frontiers").iterdir())
    told = json.loads(note.read_text())
    for name, text in (("b", "{"), ("c", json.dumps({**told, "variables": ["Other/weights"]})), ("d", "[]")):
        note.write_text(text)
        said = []
        finetune(Options(**options, train_dir=str(tmp_path / name)), lines_to(said))
        assert "restored       14 variables, read back and compared with the plan" in said
        assert differing(tmp_path / "a", tmp_path / name) == []


# --- stopped while the cache is filled ---


def test_a_request_to_stop_ends_the_filling_and_the_next_run_goes_on(job, tmp_path, monkeypatch):
    options = {
        **job,
        "trainable": ("Logits",),
        "cache_dir": str(tmp_path / "cache"),
        "train_dir": str(tmp_path / "run"),
    }
    add = transfer_module.TransferCache._add

    def add_and_stop(self, *rows):
        add(self, *rows)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(transfer_module.TransferCache, "_add", add_and_stop)
    assert finetune(Options(**options)).stopped == "SIGTERM"
    monkeypatch.undo()
    said = []
    assert finetune(Options(**options), lines_to(said)).step == 14
    assert caches(said) == ["8 of 60 images"]


# --- the cache goes one way ---


def test_photos_weights_and_records_are_read_once_on_a_first_run(job, tmp_path, monkeypatch):
    """Photos, rows.index and frozen weights were read for every question that was asked: twice and more."""
    photos, hashed, parsed, told = Counter(), [], [], []
    read_bytes, digest_of, records = Path.read_bytes, lookup.digest_of, store.TransferCache.records

    def counted_read(path):
        photos[str(path)] += path.suffix == ".png"
        return read_bytes(path)

    def counted_records(self, start=0):
        parsed.append(records(self, start))
        return parsed[-1]

    monkeypatch.setattr(Path, "read_bytes", counted_read)
    monkeypatch.setattr(lookup, "digest_of", lambda tensors: hashed.append(1) or digest_of(tensors))
    monkeypatch.setattr(store.TransferCache, "records", counted_records)

    def before_training(event):
        if isinstance(event, Began) and event.work == "training":
            told.append((set(photos.values()), sum(photos.values()), len(hashed), sum(map(len, parsed))))

    data = shutil.copytree(job["data"], tmp_path / "photos")
    options = {**job, "data": str(data), "trainable": ("Logits",), "cache_dir": str(tmp_path / "cache")}
    for name in ("first", "again", "one photo changed"):
        for counted in (photos, hashed, parsed):
            counted.clear()
        if name == "one photo changed":
            changed = data / "train" / "cat" / "0.png"
            changed.write_bytes(changed.read_bytes() + b"\0")  # PNG allows what follows its end
            photos.clear()
        finetune(Options(**options, train_dir=str(tmp_path / name)), before_training)
    assert told == [({1}, 60, 1, 60), ({1}, 60, 1, 60), ({1}, 60, 1, 61)]


def test_what_is_kept_of_photos_has_a_limit_and_an_end(monkeypatch):
    reads = []

    def read(i):
        reads.append(i)
        return bytes([i]) * 10

    found = examples_module.Examples(np.zeros(4, np.int32), tuple("abcd"), (10,) * 4, read)
    monkeypatch.setattr(examples_module, "KEPT", 25)
    assert found.digested(lambda digest: True) == tuple(examples_module.digest_of(bytes([i]) * 10) for i in range(4))
    taken = found.take([3, 1, 0, 2], kept=True)
    assert [taken.read(i)[0] for i in range(4)] == [3, 1, 0, 2]
    assert reads == [0, 1, 2, 3, 3, 2]  # two fit
    found.release()
    assert taken.read(1)[0] == 1 and reads[-1] == 1
    assert found.take([1]).digests == (found.digests[1],) and len(reads) == 7


def test_rows_that_come_from_another_process_are_seen(cache):
    known = store.Rows(cache)
    assert known.find(["i1", "i4"]).tolist() == [0, -1]
    with cache.adding() as add:
        add(["i4"], rows([4]))
    assert known.find(["i1", "i4"]).tolist() == [0, 3]
    for file in cache.folder.iterdir():
        file.unlink()
    assert known.find(["i1", "i4"]).tolist() == [-1, -1]
