"""MNIST, Fashion-MNIST, EMNIST and CIFAR-100, written in their published formats, then read."""

import gzip
import pickle
import struct
import tarfile

import numpy as np
import pytest

from ckpt_tools.errors import DataError
from ckpt_tools.train.data.loading import load_data_set
from ckpt_tools.train.data.mnist import FASHION

RANDOM = np.random.default_rng(8)
BEGINS = (5, 0, 4, 1, 9, 2, 1, 3, 1, 4)  # MNIST's first labels
FASHION_LABELS = (9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9, 5, 5, 7, 9, 1, 0, 6, 4, 3, 1, 4, 8, 4, 3, 0, 2, 4, 4)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder, prefix="", labels=BEGINS * 2 + tuple(range(10)), pack=gzip.compress, ending=".gz", dot="-"):
    """Thirty images to train on and ten to test on; returns all images."""
    folder.mkdir(parents=True, exist_ok=True)
    images = RANDOM.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    ids = np.array([*labels, *range(10)], np.uint8)
    for split, part in (("train", slice(0, 30)), ("t10k" if not prefix else "test", slice(30, None))):
        (folder / f"{prefix}{split}-images{dot}idx3-ubyte{ending}").write_bytes(pack(idx(images[part])))
        (folder / f"{prefix}{split}-labels{dot}idx1-ubyte{ending}").write_bytes(pack(idx(ids[part])))
    return images


@pytest.mark.parametrize(
    ("how", "where"),
    [({}, "."), ({"pack": bytes, "ending": ""}, "."), ({"pack": bytes, "ending": "", "dot": "."}, "MNIST/raw")],
)
def test_mnist_as_published(tmp_path, how, where):
    images = write_idx(tmp_path / where, **how)
    data = load_data_set(tmp_path)
    assert (data.kind, data.labels) == ("mnist", tuple("0123456789"))
    assert (len(data.train), len(data.validation)) == (30, 10)
    assert [data.labels[i] for i in data.train.label_ids[:5]] == list("50419")
    np.testing.assert_array_equal(data.train.read(7), images[7][..., None])
    np.testing.assert_array_equal(data.validation.read(3), images[33][..., None])
    assert data.validation.names[3] == "test:3"


def test_one_file_stands_for_all_and_a_labels_file_names_the_digits(tmp_path):
    write_idx(tmp_path)
    assert len(load_data_set(tmp_path / "t10k-images-idx3-ubyte.gz").train) == 30
    (tmp_path / "labels.txt").write_text("\n".join(f"digit {i}" for i in range(10)))
    assert load_data_set(tmp_path).labels[9] == "digit 9"


def test_fashion_mnist_is_known_by_its_labels(tmp_path):
    write_idx(tmp_path, labels=FASHION_LABELS)
    data = load_data_set(tmp_path)
    assert data.labels == FASHION
    assert data.labels[data.train.label_ids[0]] == "Ankle boot"
    assert "Fashion-MNIST, by its first labels" in data.notes
    (tmp_path / "wrong.txt").write_text("\n".join(reversed(FASHION)))
    with pytest.raises(
        DataError, match=r"Fashion-MNIST and .*wrong.txt disagree: class 0 is T-shirt/top and Ankle boot"
    ):
        load_data_set(tmp_path, labels_file=tmp_path / "wrong.txt")


def test_emnist_has_letters_and_stands_upright(tmp_path):
    images = write_idx(tmp_path, "emnist-letters-", labels=[i % 10 + 1 for i in range(30)])
    mapping = "".join(f"{i} {64 + i} {96 + i}\n" for i in range(1, 11))
    (tmp_path / "emnist-letters-mapping.txt").write_text(mapping)
    labels = gzip.compress(idx(np.arange(1, 11, dtype=np.uint8)))
    (tmp_path / "emnist-letters-test-labels-idx1-ubyte.gz").write_bytes(labels)
    data = load_data_set(tmp_path)
    assert data.labels[:3] == ("Aa", "Bb", "Cc")
    np.testing.assert_array_equal(data.train.read(4)[..., 0], images[4].T)
    write_idx(tmp_path, "emnist-digits-")
    with pytest.raises(DataError, match="holds 2 data sets: emnist-digits, emnist-letters. Give a file of one of them"):
        load_data_set(tmp_path)
    assert len(load_data_set(tmp_path / "emnist-letters-train-images-idx3-ubyte.gz").labels) == 10


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-40], "cannot be read: .*Download it again"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-3]), "says 30 x 28 x 28 values and holds 23,517 bytes"),
        (lambda data: gzip.compress(b"hello"), "is not an IDX file"),
        (lambda data: gzip.compress(idx(np.zeros((29, 28, 28), np.uint8))), "29 images, 30 labels"),
        (lambda data: gzip.compress(b"\0\0\x0d\3" + bytes(12)), "is not an IDX file of bytes"),
        (None, "the file of the images that belong to train-labels-idx1-ubyte.gz is missing"),
    ],
)
def test_damaged_files(tmp_path, damage, words):
    write_idx(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    if damage:
        file.write_bytes(damage(file.read_bytes()))
    else:
        file.unlink()
    with pytest.raises(DataError, match=words):
        load_data_set(tmp_path)


FINE = [f"thing_{i}".encode() for i in range(100)]
COARSE = [f"kind_{i}".encode() for i in range(20)]


def write_cifar100(root, binary):
    """300 images to train on, 100 to test on; returns the rows of both."""
    root.mkdir()
    held = {}
    for split, count in (("train", 300), ("test", 100)):
        rows = held[split] = RANDOM.integers(0, 256, (count, 3072), dtype=np.uint8)
        fine = [i % 100 for i in range(count)]
        if binary:
            lines = (bytes([number // 5, number]) + row.tobytes() for number, row in zip(fine, rows, strict=True))
            (root / f"{split}.bin").write_bytes(b"".join(lines))
        else:
            batch = {b"fine_labels": fine, b"coarse_labels": [n // 5 for n in fine], b"data": rows}
            batch[b"filenames"] = [b"photo_%03d.png" % i for i in range(count)]
            (root / split).write_bytes(pickle.dumps(batch, protocol=2))
    if binary:
        for kind, names in (("fine", FINE), ("coarse", COARSE)):
            (root / f"{kind}_label_names.txt").write_bytes(b"\n".join(names) + b"\n")
    else:
        names = {b"fine_label_names": FINE, b"coarse_label_names": COARSE}
        (root / "meta").write_bytes(pickle.dumps(names, protocol=2))
    return held


@pytest.mark.parametrize("binary", [False, True])
def test_cifar100_as_published(tmp_path, binary):
    name = "cifar-100-binary" if binary else "cifar-100-python"
    held = write_cifar100(tmp_path / name, binary)
    data = load_data_set(tmp_path)
    assert (data.kind, len(data.labels), len(data.train), len(data.validation)) == ("cifar100", 100, 300, 100)
    assert data.labels[data.train.label_ids[207]] == "thing_7"
    assert data.train.read(207)[4, 9].tolist() == held["train"][207].reshape(3, 32, 32)[:, 4, 9].tolist()
    coarse = load_data_set(tmp_path / name, label_column=["coarse"])
    assert (len(coarse.labels), coarse.labels[coarse.train.label_ids[207]]) == (20, "kind_1")
    with pytest.raises(
        DataError, match=r"CIFAR-100 has no labels corse; did you mean coarse\? --label-column can be co"
    ):
        load_data_set(tmp_path, label_column=["corse"])
    archive = tmp_path / f"{name}.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / name, name)
    assert load_data_set(archive).train.digests == data.train.digests


def test_a_folder_of_train_and_test_is_no_cifar(tmp_path):
    """CIFAR-100's files are called `train` and `test`, as other people's are."""
    write_cifar100(tmp_path / "c", binary=False)
    (tmp_path / "c" / "meta").unlink()
    with pytest.raises(DataError, match="no class folders"):
        load_data_set(tmp_path / "c")
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 2, 2), np.uint8), labels=[0, 1, 0, 1])
    with pytest.raises(DataError, match="--label-column is for a CSV of images, and for CIFAR-100"):
        load_data_set(tmp_path / "x.npz", label_column=["fine"])
