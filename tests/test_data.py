"""Data sets: each kind is written in its publisher's format, then read."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import zlib

import numpy as np
import pytest
from crc32c import crc32c
from PIL import Image

from ckpt_tools.errors import DataError
from ckpt_tools.train.data.examples import Examples, divide
from ckpt_tools.train.data.loading import load_data_set


def jpeg(seed=0, size=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def photos(root, counts, start=0):
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / label / f"{i:03}.jpg").write_bytes(jpeg(start + i))
    return root


def test_class_folders_are_split_by_the_seed_and_sorted(tmp_path):
    data = load_data_set(photos(tmp_path, {"dog": 10, "cat": 20}), validation_fraction=0.2, seed=1)
    assert data.labels == ("cat", "dog")
    assert data.train.counts(2) == [16, 8]
    assert data.validation.counts(2) == [4, 2]
    assert not set(data.train.names) & set(data.validation.names)
    assert data.notes == ("6 of 30 examples were held out for validation (seed 1)",)
    again = load_data_set(tmp_path, validation_fraction=0.2, seed=1)
    other = load_data_set(tmp_path, validation_fraction=0.2, seed=2)
    assert again.validation.names == data.validation.names
    assert other.validation.names != data.validation.names
    assert data.train.read(0) == (tmp_path / data.train.names[0]).read_bytes()


def test_a_new_photo_leaves_most_of_the_split_where_it_was(tmp_path):
    before = load_data_set(photos(tmp_path, {"a": 50, "b": 50})).validation.names
    (tmp_path / "a" / "new.jpg").write_bytes(jpeg())
    after = load_data_set(tmp_path).validation.names
    assert len(set(before) & set(after)) >= len(before) - 1


@pytest.mark.parametrize("word", ["validation", "val", "test"])
def test_splits_that_the_folder_has(tmp_path, word):
    photos(tmp_path / "train", {"a": 3, "b": 3})
    photos(tmp_path / word, {"a": 2, "b": 1}, start=10)
    data = load_data_set(tmp_path)
    assert (len(data.train), len(data.validation), data.test) == (6, 3, None)
    assert data.split("all").names[-1] == f"{word}/b/000.jpg"
    assert data.split("all").read(8) == jpeg(10)


def test_all_three_splits(tmp_path):
    for split in ("train", "validation", "test"):
        photos(tmp_path / split, {"a": 2, "b": 2})
    assert len(load_data_set(tmp_path).split("test")) == 4
    with pytest.raises(DataError, match="no split 'testt'"):
        load_data_set(tmp_path).split("testt")


def test_labels_txt_decides_the_order(tmp_path):
    photos(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "labels.txt").write_text("0:b\n1:a\n")
    assert load_data_set(tmp_path).labels == ("b", "a")


def test_labels_that_disagree_are_told_from_both_sides(tmp_path):
    photos(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "labels.txt").write_text("a\nc\n")
    with pytest.raises(DataError, match="only in the labels file: c; only as folders: b"):
        load_data_set(tmp_path)
    (tmp_path / "labels.txt").write_text("a\na\n")
    with pytest.raises(DataError, match=r"only in the labels file: a \(0\), a \(1\); only as folders: a, b"):
        load_data_set(tmp_path)


def test_files_that_are_not_images_are_named_and_left_out(tmp_path):
    photos(tmp_path, {"a": 30, "b": 30})
    (tmp_path / "a" / "notes.txt").write_text("mine")
    (tmp_path / "b" / "broken.jpg").write_text("<html>not found</html>")
    (tmp_path / "b" / ".DS_Store").write_text("x")
    data = load_data_set(tmp_path)
    assert len(data.split("all")) == 60
    assert data.notes[:2] == (
        "left out, no JPEG, PNG, GIF, BMP, TIFF or WebP: file b/broken.jpg",
        "left out, no JPEG, PNG, GIF, BMP, TIFF or WebP: file a/notes.txt",
    )


def test_too_many_broken_photos_stop(tmp_path):
    photos(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "x.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="too many files .* file a/x.jpg"):
        load_data_set(tmp_path)


def test_a_git_lfs_pointer_says_so(tmp_path):
    photos(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "x.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(DataError, match="git lfs pull"):
        load_data_set(tmp_path)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "no class folders"),
        ({"a": 0, "b": 0}, "no images found"),
        ({"a": 5, "b": 0, "c": 0}, "no training images for 2 classes: b, c"),
        ({"a": 5}, "only one class, a"),
        ({"a": 1, "b": 1}, "leave none for validation"),
    ],
)
def test_what_cannot_be_trained_on(tmp_path, counts, words):
    with pytest.raises(DataError, match=words):
        load_data_set(photos(tmp_path, counts))


def test_images_without_class_folders(tmp_path):
    (tmp_path / "1.jpg").write_bytes(jpeg())
    with pytest.raises(DataError, match="1 images are not in a class folder.*folder of its own"):
        load_data_set(tmp_path)


def test_a_validation_class_that_is_not_trained_and_one_that_is_missing(tmp_path):
    photos(tmp_path / "train", {"a": 3, "b": 3})
    photos(tmp_path / "test", {"a": 3})
    assert "no validation images for class b" in load_data_set(tmp_path).notes[1]
    photos(tmp_path / "test", {"zebra": 1})
    with pytest.raises(DataError, match="no training images for class zebra"):
        load_data_set(tmp_path)


def test_imbalance_is_mentioned(tmp_path):
    data = load_data_set(photos(tmp_path, {"a": 60, "b": 2}))
    assert "48 training images of a, 1 of b" in data.notes[-1]


def test_a_misspelt_path_names_the_near_one(tmp_path):
    photos(tmp_path / "flowers", {"a": 3, "b": 3})
    with pytest.raises(DataError, match="did you mean flowers"):
        load_data_set(tmp_path / "flower")


def test_digests_see_a_changed_photo(tmp_path):
    photos(tmp_path, {"a": 3, "b": 3})
    before = load_data_set(tmp_path).split("all")
    assert before.digests is before.digests
    (tmp_path / before.names[0]).write_bytes(before.read(0)[:-1] + b"\x00")
    after = load_data_set(tmp_path).split("all")
    assert [a == b for a, b in zip(before.digests, after.digests, strict=True)] == [False] + [True] * 5


def test_digests_tell_images_of_one_size_and_checksum_apart():
    """CRC32C's generator polynomial, added to an image, changes its pixels and not its CRC32C."""
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    images[1] = images[0]
    for position, byte in enumerate((1 | 0x82F63B78 << 1).to_bytes(5, "little")):
        images[1].reshape(-1)[100 + position] ^= byte
    images[2] = images[0]
    examples = Examples(np.zeros(3, np.int32), ("a", "b", "c"), (3072,) * 3, lambda i: images[i])
    first, other, same = examples.digests
    assert crc32c(images[0].tobytes()) == crc32c(images[1].tobytes())
    assert first != other
    assert first == same


def write_records(file, examples, texts=()):
    """As TensorFlow writes them; `texts` are the names of the ids, for image/class/text."""
    tf = pytest.importorskip("tensorflow")
    with tf.io.TFRecordWriter(str(file)) as writer:
        for data, label in examples:
            ids = label if isinstance(label, list) else [label]
            feature = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[data])),
                "image/format": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"jpg"])),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=ids)),
            }
            if texts:
                names = [texts[i].encode() for i in ids]
                feature["image/class/text"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=names))
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def test_slim_records_with_ids_from_one(tmp_path):
    write_records(tmp_path / "flowers_train_00000-of-00002.tfrecord", [(jpeg(0), 1), (jpeg(1), 2)])
    write_records(tmp_path / "flowers_train_00001-of-00002.tfrecord", [(jpeg(2), 2)])
    write_records(tmp_path / "flowers_validation_00000-of-00001.tfrecord", [(jpeg(3), 1)])
    (tmp_path / "labels.txt").write_text("0:background\n1:daisy\n2:rose\n")
    data = load_data_set(tmp_path)
    assert (data.kind, data.labels) == ("tfrecord", ("daisy", "rose"))
    assert data.train.label_ids.tolist() == [0, 1, 1]
    assert data.train.names[2] == "flowers_train_00001-of-00002.tfrecord:0"
    assert [data.train.read(i) for i in range(3)] == [jpeg(0), jpeg(1), jpeg(2)]
    assert data.validation.read(0) == jpeg(3)


@pytest.mark.parametrize("where", [3, 40, -1])
def test_a_damaged_record_is_found(tmp_path, where):
    file = tmp_path / "x_train.tfrecord"
    write_records(file, [(jpeg(0), 0), (jpeg(1), 1)])
    data = bytearray(file.read_bytes())
    data[where] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="x_train.tfrecord: .*record [01]"):
        load_data_set(tmp_path)
    file.write_bytes(data[:-100])
    with pytest.raises(DataError, match="x_train.tfrecord"):
        load_data_set(tmp_path)


def test_records_under_any_name(tmp_path):
    """Whether a file holds records is told by what is in it; without a word for a split all are to train on."""
    write_records(tmp_path / "mydata.tfrecord", [(jpeg(i), i % 2) for i in range(10)])
    data = load_data_set(tmp_path)
    assert (data.kind, len(data.train), len(data.validation)) == ("tfrecord", 8, 2)
    wanted = sorted(data.split("all").digests)
    (tmp_path / "mydata.tfrecord").rename(tmp_path / "birds")
    assert sorted(load_data_set(tmp_path).split("all").digests) == wanted
    assert sorted(load_data_set(tmp_path / "birds").split("all").digests) == wanted
    write_records(tmp_path / "birds-train", [(jpeg(10), 0), (jpeg(11), 1)])
    write_records(tmp_path / "birds_Testing.bin", [(jpeg(12), 1)])
    data = load_data_set(tmp_path)
    assert (len(data.train), len(data.validation)) == (2, 1)
    assert "left out, their names say no split: file birds" in data.notes


def test_records_in_folders_of_splits(tmp_path):
    for folder, count in (("Train", 4), ("valid", 2)):
        (tmp_path / folder).mkdir()
        write_records(tmp_path / folder / "part.tfrec", [(jpeg(i), i % 2) for i in range(count)])
    data = load_data_set(tmp_path)
    assert (len(data.train), len(data.validation)) == (4, 2)
    assert data.train.names[0] == "Train/part.tfrec:0"


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_compressed_records(tmp_path, pack):
    """As TensorFlow compresses them, or as somebody did afterwards; the images are read from them in any order."""
    write_records(tmp_path / "x_train.tfrecord", [(jpeg(i), i % 2) for i in range(6)])
    write_records(tmp_path / "x_test.tfrecord", [(jpeg(9), 1)])
    plain = load_data_set(tmp_path)
    packed = tmp_path / "packed"
    packed.mkdir()
    for file, name in (("x_train.tfrecord", "x_train.tfrecord"), ("x_test.tfrecord", "x_test.gz")):
        (packed / name).write_bytes(pack((tmp_path / file).read_bytes()))
    data = load_data_set(packed)
    assert (data.train.digests, data.train.names) == (plain.train.digests, plain.train.names)
    assert data.validation.read(0) == jpeg(9)
    assert data.train.label_ids.tolist() == [0, 1] * 3
    (packed / "x_test.gz").write_bytes((packed / "x_test.gz").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"x_test.gz: (is cut short|cannot be unpacked)"):
        load_data_set(packed)


def test_a_missing_shard_is_said(tmp_path):
    for i in (0, 2):
        write_records(tmp_path / f"flowers_train_{i:05}-of-00003.tfrecord", [(jpeg(i), 0), (jpeg(i + 5), 1)])
    notes = load_data_set(tmp_path).notes
    assert "2 of 3 shards are here, without file flowers_train_00001-of-00003.tfrecord" in notes


def test_names_of_classes_that_disagree(tmp_path):
    write_records(tmp_path / "x_train", [(jpeg(i), i % 2) for i in range(6)])
    (tmp_path / "labels.txt").write_text("ant\nbee\n")
    given = tmp_path / "given.txt"
    given.write_text("0:ant\n1:bee\n")
    assert load_data_set(tmp_path, labels_file=given).labels == ("ant", "bee")
    given.write_text("bee\nant\n")
    with pytest.raises(DataError, match=r"labels.txt and .*given.txt disagree: class 0 is ant and bee; class 1 is bee"):
        load_data_set(tmp_path, labels_file=given)
    given.write_text("ant\n")
    with pytest.raises(DataError, match=r"labels.txt names 2 classes and .*given.txt 1\. Correct one of them"):
        load_data_set(tmp_path, labels_file=given)
    (tmp_path / "labels.txt").rename(tmp_path / "label.txt")
    assert load_data_set(tmp_path).labels == ("ant", "bee")
    (tmp_path / "labels.txt").write_text("bee\nant\n")
    with pytest.raises(DataError, match="labels.txt and label.txt disagree"):
        load_data_set(tmp_path)
    (tmp_path / "labels.txt").write_text("1:bee\n2:ant\n")
    (tmp_path / "label.txt").unlink()
    with pytest.raises(DataError, match="label 0 has no name in labels.txt"):
        load_data_set(tmp_path)


def test_names_of_classes_in_the_records_themselves(tmp_path):
    """image/class/text, with ids or alone; a file beside the records may say it in other words, not otherwise."""
    write_records(tmp_path / "x_train", [(jpeg(i), i % 2 + 1) for i in range(6)], texts=["", "rose", "daisy"])
    assert load_data_set(tmp_path).labels == ("rose", "daisy")
    (tmp_path / "label_map.pbtxt").write_text("item { id: 1 name: 'rose' } item { id: 2 name: 'daisy' }")
    assert load_data_set(tmp_path).labels == ("rose", "daisy")
    (tmp_path / "label_map.pbtxt").write_text("item { id: 1 name: 'Rosa' } item { id: 2 name: 'Bellis' }")
    data = load_data_set(tmp_path)
    assert data.labels == ("Rosa", "Bellis")
    assert data.notes[0] == "label_map.pbtxt names the classes, not image/class/text: Rosa, not rose"
    (tmp_path / "label_map.pbtxt").write_text("item { id: 1 name: 'daisy' } item { id: 2 name: 'rose' }")
    with pytest.raises(DataError, match="image/class/text and label_map.pbtxt disagree: class 1 is rose and daisy"):
        load_data_set(tmp_path)


def test_records_without_ids(tmp_path):
    tf = pytest.importorskip("tensorflow")
    with tf.io.TFRecordWriter(str(tmp_path / "x_train")) as writer:
        for i in range(6):
            values = {"image/encoded": jpeg(i), "image/class/text": (b"rose", b"daisy")[i % 2]}
            feature = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in values.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    data = load_data_set(tmp_path)
    assert (data.labels, sorted(data.split("all").label_ids.tolist())) == (("daisy", "rose"), [0, 0, 0, 1, 1, 1])
    (tmp_path / "labels.txt").write_text("0:rose\n1:daisy\n")
    assert load_data_set(tmp_path).labels == ("rose", "daisy")
    (tmp_path / "labels.txt").write_text("0:rose\n1:tulip\n")
    with pytest.raises(DataError, match="label 'daisy' has no name in labels.txt"):
        load_data_set(tmp_path)


def test_names_of_a_published_data_set_are_not_overridden(tmp_path):
    root = cifar_python(tmp_path / "c")
    (tmp_path / "swapped.txt").write_text("\n".join(sorted(name.decode() for name in CLASSES)))
    (tmp_path / "other.txt").write_text("\n".join(reversed([name.decode() for name in CLASSES])))
    assert load_data_set(root, labels_file=tmp_path / "swapped.txt").labels[9] == "truck"
    with pytest.raises(DataError, match=r"batches.meta and .*other.txt disagree: class 0 is airplane and truck"):
        load_data_set(root, labels_file=tmp_path / "other.txt")


def test_names_in_an_npz_are_not_overridden(tmp_path):
    images = np.zeros((4, 4, 4), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1, 0, 1], label_names=["no", "yes"])
    (tmp_path / "labels.txt").write_text("yes\nno\n")
    with pytest.raises(DataError, match=r"x.npz: label_names and .*labels.txt disagree: class 0 is no and yes"):
        load_data_set(tmp_path / "x.npz", labels_file=tmp_path / "labels.txt")
    np.savez(tmp_path / "y.npz", images=images, labels=["no", "yes", "no", "yes"], label_names=["yes", "no"])
    data = load_data_set(tmp_path / "y.npz")
    assert (data.labels, data.split("all").label_ids.tolist()) == (("yes", "no"), [1, 0, 0, 1])  # the last two validate
    np.savez(tmp_path / "z.npz", images=images, labels=["10", "9", "10", "9"])
    assert load_data_set(tmp_path / "z.npz").labels == ("9", "10")


def test_several_labels_of_one_image_are_not_read_as_one(tmp_path):
    write_records(tmp_path / "x_train", [(jpeg(0), 3), (jpeg(1), [3, 7]), (jpeg(2), [7])])
    several = r"x_train:1 has 2 labels \(3, 7\). --labels-per-image many takes all of them."
    with pytest.raises(DataError, match=several):
        load_data_set(tmp_path)
    write_records(tmp_path / "x_train", [(jpeg(0), [0, 1, 1]), (jpeg(1), [0, 0, 1])])
    with pytest.raises(DataError, match=r"x_train:0 has 2 labels \(1, 2\)"):
        load_data_set(tmp_path)
    write_records(tmp_path / "x_train", [(jpeg(i), [0, 1, 0] if i % 2 else [0, 0, 1]) for i in range(10)])
    data = load_data_set(tmp_path)  # vectors of 0 and 1 that say one class each
    assert data.labels == ("1", "2")
    assert data.split("all").counts(2) == [5, 5]
    images = np.zeros((3, 4, 4), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=[[0, 1, 0], [1, 1, 0], [0, 0, 1]])
    with pytest.raises(DataError, match="x.npz: labels: example 1 has 2 labels .0, 1.. --labels-per-image many"):
        load_data_set(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", images=images, labels=[[0, 1, 0], [0, 1, 0], [0, 0, 1]])
    assert load_data_set(tmp_path / "x.npz", training=False).labels == ("1", "2")


@pytest.mark.parametrize(
    "words", [["train", "valid", "test"], ["Training", "val", "holdout"], [b"train", b"dev", b"test"]]
)
def test_an_npz_splits_by_the_words_that_people_use(tmp_path, words):
    images = np.zeros((9, 4, 4), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(9) % 2, split=np.repeat(words, [4, 3, 2]))
    data = load_data_set(tmp_path / "x.npz")
    assert (len(data.train), len(data.validation), len(data.test)) == (4, 3, 2)
    np.savez(tmp_path / "y.npz", images=images, labels=np.arange(9) % 2, split=["train"] * 8 + ["fold 2"])
    with pytest.raises(DataError, match="split says fold 2. It can say train, validation or test."):
        load_data_set(tmp_path / "y.npz")


def test_an_npz_with_arrays_for_each_split(tmp_path):
    """As MedMNIST is published; an array that nothing is made of is named."""
    images, labels = np.zeros((4, 28, 28), np.uint8), np.array([[0], [1], [0], [1]])
    arrays = {f"{word}_images": images[:n] for word, n in (("train", 4), ("val", 3), ("test", 2))}
    arrays |= {f"{word}_labels": labels[:n] for word, n in (("train", 4), ("val", 3), ("test", 2))}
    np.savez(tmp_path / "m.npz", **arrays, weights=np.zeros(4))
    data = load_data_set(tmp_path / "m.npz")
    assert (len(data.train), len(data.validation), len(data.test)) == (4, 3, 2)
    assert data.notes == ("not used: array weights",)
    del arrays["val_labels"]
    np.savez(tmp_path / "n.npz", **arrays)
    with pytest.raises(DataError, match="val_images has no labels"):
        load_data_set(tmp_path / "n.npz")


CLASSES = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]


def cifar_rows(seed, count=20):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), [i % 10 for i in range(count)]


def cifar_python(root):
    root.mkdir()
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rows, labels = cifar_rows(i)
        names = [b"photo_%02d.png" % n for n in range(len(labels))]
        batch = {b"batch_label": name.encode(), b"labels": labels, b"data": rows, b"filenames": names}
        (root / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {b"num_cases_per_batch": 20, b"label_names": CLASSES, b"num_vis": 3072}
    (root / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return root


def check_cifar(data):
    rows, _ = cifar_rows(1)
    assert data.kind == "cifar10"
    assert data.labels == tuple(name.decode() for name in CLASSES)
    assert (len(data.train), len(data.validation), data.notes) == (100, 20, ())
    image = data.train.read(23)
    assert image.shape == (32, 32, 3)
    assert image[5, 7].tolist() == [rows[3, plane * 1024 + 5 * 32 + 7] for plane in range(3)]
    assert data.train.label_ids[23] == 3


def test_cifar10_as_published(tmp_path):
    root = cifar_python(tmp_path / "cifar-10-batches-py")
    check_cifar(load_data_set(root))
    check_cifar(load_data_set(tmp_path))
    assert load_data_set(root).train.names[20] == "data_batch_2:photo_00.png"
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(root, root.name)
    check_cifar(load_data_set(tmp_path / "cifar-10-python.tar.gz"))


def test_cifar10_binary(tmp_path):
    for i, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        rows, labels = cifar_rows(i)
        (tmp_path / name).write_bytes(
            b"".join(struct.pack("B", n) + row.tobytes() for n, row in zip(labels, rows, strict=True))
        )
    check_cifar(load_data_set(tmp_path))
    (tmp_path / "data_batch_3.bin").write_bytes(b"123")
    with pytest.raises(DataError, match="data_batch_3.bin has 3 bytes"):
        load_data_set(tmp_path)


class Evil:
    def __reduce__(self):
        return os.system, ("echo owned > /tmp/t2_owned",)


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path):
    root = cifar_python(tmp_path / "c")
    (root / "data_batch_2").write_bytes(pickle.dumps({b"labels": Evil(), b"data": 1}))
    with pytest.raises(DataError, match="asks for posix.system"):
        load_data_set(root)
    (root / "data_batch_2").write_bytes((root / "data_batch_1").read_bytes()[:-50])
    with pytest.raises(DataError, match="cannot be read"):
        load_data_set(root)


def test_a_cut_archive(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(gzip.compress(b"x" * 5000)[:20])
    with pytest.raises(DataError, match="archive cannot be read"):
        load_data_set(tmp_path / "cifar-10-python.tar.gz")


def test_npz_images_with_names_and_a_split(tmp_path):
    images = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
    np.savez(
        tmp_path / "digits.npz",
        images=images,
        labels=[5, 5, 6, 6, 5, 6],
        names=[f"p{i}" for i in range(6)],
        split=["train"] * 4 + ["validation"] * 2,
    )
    data = load_data_set(tmp_path / "digits.npz")
    assert (data.kind, data.labels) == ("npz", ("5", "6"))
    assert data.validation.names == ("p4", "p5")
    assert data.validation.label_ids.tolist() == [0, 1]
    np.testing.assert_array_equal(data.validation.read(1), images[5][..., None])


def test_npz_as_keras_publishes(tmp_path):
    x, y = np.zeros((4, 28, 28), np.uint8), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    data = load_data_set(tmp_path / "mnist.npz")
    assert (len(data.train), len(data.validation)) == (4, 2)


def test_npz_and_npy_vectors(tmp_path):
    features = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
    labels = np.arange(20) % 2
    np.savez(tmp_path / "f.npz", features=features, labels=labels, label_names=["no", "yes"])
    data = load_data_set(tmp_path / "f.npz")
    assert (data.kind, data.labels) == ("vectors", ("no", "yes"))
    np.savez(tmp_path / "map.npz", features=features.reshape(20, 1, 1, 7), labels=labels)  # as of a frontier
    np.testing.assert_array_equal(load_data_set(tmp_path / "map.npz").train.read(0), data.train.read(0))
    np.save(tmp_path / "f.npy", features)
    twin = load_data_set(tmp_path / "f.npy")
    np.testing.assert_array_equal(twin.train.read(0), data.train.read(0))
    (tmp_path / "f.npz").unlink()
    with pytest.raises(DataError, match="f.npz with an array `labels`"):
        load_data_set(tmp_path / "f.npy")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pictures": np.zeros(3)}, "holds pictures"),
        ({"images": np.zeros((3, 4, 4)), "labels": [0, 1, 1]}, "type float64.*uint8"),
        ({"images": np.zeros((3, 4, 4), np.uint8), "labels": [0, 1]}, "3 examples, 2 labels"),
        ({"images": np.zeros((3, 4), np.uint8), "labels": [0, 1, 1]}, "feature vectors of type uint8"),
        ({"images": np.zeros((3, 4, 4, 5), np.uint8), "labels": [0, 1, 1]}, "shape"),
        (
            {"features": np.zeros((3, 2, 2, 7), np.float32), "labels": [0, 1, 1]},
            "2 x 2 x 7 values each are not vectors",
        ),
        (
            {"images": np.zeros((3, 4, 4), np.uint8), "labels": [0, 1, 2], "label_names": ["a", "b"]},
            "label 2 has no name",
        ),
    ],
)
def test_npz_that_does_not_fit(tmp_path, arrays, words):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load_data_set(tmp_path / "x.npz")


def test_what_is_no_data_set(tmp_path):
    (tmp_path / "x.npz").write_text("hello")
    with pytest.raises(DataError, match="not a readable .npz"):
        load_data_set(tmp_path / "x.npz")
    (tmp_path / "x.zip").write_text("hello")
    with pytest.raises(DataError, match="not a data set"):
        load_data_set(tmp_path / "x.zip")


def test_divide_needs_a_share(tmp_path):
    data = load_data_set(photos(tmp_path, {"a": 5, "b": 5}))
    with pytest.raises(DataError, match="leaves one side empty"):
        divide(data.train, 1.0, 0)
