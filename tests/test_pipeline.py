"""Batches: the same for the same seed from any step on, every example once per epoch, broken files named."""

import io
import struct
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ckpt_tools.errors import DataError

tf = pytest.importorskip("tensorflow")

from ckpt_tools.train.data.examples import Examples, steps_per_epoch  # noqa: E402
from ckpt_tools.train.data.pipeline import (  # noqa: E402
    Unreadable,
    batch_spec,
    decode,
    epoch_order,
    make_batches,
    ordinary_jpeg,
)
from ckpt_tools.train.data.preprocess import Preprocessing  # noqa: E402

HOW = Preprocessing("inception", 12)


def png(value, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (9, 7), value).save(buffer, "PNG")
    return buffer.getvalue()


def examples(count=23, broken=()):
    """Images of one colour each, by which they are recognised."""
    held = [b"\xff\xd8\xff broken" if i in broken else png((i * 10, 0, 255 - i)) for i in range(count)]
    labels = np.arange(count, dtype=np.int32) % 3
    return Examples(labels, tuple(f"{i}.png" for i in range(count)), tuple(map(len, held)), held.__getitem__)


def batches(data, steps, how=HOW, unreadable=None, **options):
    unreadable = unreadable or Unreadable()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = make_batches(data, how, batch_size=5, seed=11, unreadable=unreadable, **options)
        following = tf.compat.v1.data.make_one_shot_iterator(made).get_next()
        got = []
        try:
            for _ in range(steps):
                with unreadable.raised():
                    got.append(session.run(following))
        except tf.errors.OutOfRangeError:
            pass
        return got


def same(one, two):
    return len(one) == len(two) and all(np.array_equal(a[k], b[k]) for a, b in zip(one, two, strict=True) for k in a)


def test_every_epoch_covers_all_images_in_its_own_order():
    got = batches(examples(), 10, training=True)
    assert [len(batch["label"]) for batch in got] == [5, 5, 5, 5, 3] * 2
    first, second = (np.concatenate([b["index"] for b in part]) for part in (got[:5], got[5:]))
    assert sorted(first) == sorted(second) == list(range(23))
    assert first.tolist() != second.tolist()
    np.testing.assert_array_equal(first, epoch_order(11, 0, 23))
    for batch in got:
        np.testing.assert_array_equal(batch["label"], batch["index"] % 3)
        np.testing.assert_allclose(batch["image"][:, 6, 6, 0], batch["index"] * 10 / 127.5 - 1, atol=1e-5)


@pytest.mark.parametrize("start", [1, 4, 5, 13])
@pytest.mark.parametrize("augment", [(), ("slim",), ("flip", "rotation", "colour")])
def test_from_any_step_on_the_batches_are_those_of_the_whole_run(start, augment):
    how = Preprocessing("inception", 12, augment=augment)
    whole = batches(examples(), 18, how, training=True)
    assert same(whole[start:], batches(examples(), 18 - start, how, training=True, start_step=start))
    assert not same(whole[:3], whole[3:6])


def test_an_image_is_changed_otherwise_in_each_epoch():
    how = Preprocessing("inception", 12, augment=("colour",))
    got = batches(examples(), 10, how, training=True)
    seen = [
        np.concatenate([b["image"] for b in p])[np.argsort(np.concatenate([b["index"] for b in p]))]
        for p in (got[:5], got[5:])
    ]
    assert sum(abs(seen[0][i] - seen[1][i]).max() > 0.01 for i in range(1, 23)) > 15


@pytest.mark.parametrize("how", [HOW, replace(HOW, channels="grey"), None])
def test_what_batches_look_like_is_known_without_them(how):
    given = examples()
    if how is None:
        given = replace(given, read=lambda i: np.zeros(7, np.float32))
    with tf.Graph().as_default():
        made = make_batches(given, how, batch_size=2, training=False).element_spec
    assert batch_spec(given, how) == made


def test_evaluation_is_in_order_once_and_plain():
    how = Preprocessing("inception", 12, augment=("colour",))
    got = batches(examples(), 99, how, training=False)
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in got]), np.arange(23))
    assert same(got, batches(examples(), 99, HOW, training=False))
    assert len(batches(examples(), 99, training=False, start_step=3)) == 2
    assert len(got) == steps_per_epoch(23, 5)


def test_a_broken_image_is_left_out_in_evaluation_and_replaced_in_training():
    unreadable = Unreadable()
    got = batches(examples(40, broken=(7,)), 99, training=False, unreadable=unreadable)
    assert sorted(np.concatenate([b["index"] for b in got])) == [i for i in range(40) if i != 7]
    assert list(unreadable.reasons) == ["7.png"]
    why = "not an image, or of a kind that Pillow does not know"
    assert unreadable.note() == f"could not be decoded and were left out: image 7.png ({why})"
    trained = batches(examples(40, broken=(7,)), 8, training=True)
    indices = np.concatenate([b["index"] for b in trained]).tolist()
    assert len(indices) == 40
    assert indices.count(8) == 2
    whole = batches(examples(40, broken=(7,)), 16, training=True)
    assert same(whole[10:], batches(examples(40, broken=(7,)), 6, training=True, start_step=10))


def huge(side):
    """A PNG file that says it has so many pixels a side, and holds none of them."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_photo_of_too_many_pixels_is_left_out_with_its_reason():
    held = [huge(14_000), *(png(i) for i in range(8))]
    data = Examples(np.zeros(9, np.int32), ("big.png", *"abcdefgh"), (1,) * 9, held.__getitem__)
    unreadable = Unreadable()
    batches(data, 9, training=False, unreadable=unreadable)
    reason = "has 196,000,000 pixels, and up to 178,956,970 are decoded: make it smaller"
    assert unreadable.note() == f"could not be decoded and were left out: image big.png ({reason})"


def test_a_jpeg_of_too_many_pixels_is_left_to_pillow_that_names_it():
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "JPEG")
    data = buffer.getvalue()
    assert ordinary_jpeg(data) == data
    place = data.index(b"\xff\xc0") + 5  # height and width in the header of the frame
    huge = data[:place] + struct.pack(">HH", 14_000, 14_000) + data[place + 4 :]
    with pytest.raises(ValueError, match="a JPEG file of another kind"):
        ordinary_jpeg(huge)
    with pytest.raises(ValueError, match="has 196,000,000 pixels, and up to 178,956,970 are decoded"):
        decode(huge)


def test_a_large_photo_is_decoded_without_pillow_s_warning():
    """In a process of its own, where nobody has asked for warnings: a line of Pillow's source was printed."""
    code = "from ckpt_tools.train.data.pipeline import decode\nimport sys\ntry:\n decode(sys.stdin.buffer.read())\n"
    code += "except OSError as error:\n print(error)"
    done = subprocess.run([sys.executable, "-c", code], input=huge(10_000), capture_output=True, check=True)
    assert done.stderr == b""
    assert b"truncated" in done.stdout  # it was begun


def test_too_many_broken_images_stop_with_their_names():
    with pytest.raises(DataError, match=r"2 of 23 images cannot be decoded: 1.png: not an image.*; 4.png"):
        batches(examples(broken=(1, 4)), 99, training=False)
    with pytest.raises(DataError, match="of 2 images cannot be decoded"):
        batches(examples(2, broken=(0, 1)), 99, training=True)


def test_another_error_of_the_session_passes_through():
    with pytest.raises(tf.errors.OutOfRangeError), Unreadable().raised():
        raise tf.errors.OutOfRangeError(None, None, "end")


@pytest.mark.parametrize(
    ("example", "pixel"),
    [
        (png((1, 2, 3)), [1, 2, 3]),
        (png(7, "L"), [7, 7, 7]),
        (png((9, 8, 7, 0), "RGBA"), [9, 8, 7]),
        (png(1, "1"), [255, 255, 255]),
        (png(513, "I;16"), [2, 2, 2]),
        (np.full((3, 4, 1), 5, np.uint8), [5, 5, 5]),
        (np.full((3, 4, 3), 6, np.uint8), [6, 6, 6]),
    ],
)
def test_decode(example, pixel):
    assert decode(example)[2, 2].tolist() == pixel


def test_decode_gives_the_pixels_of_tensorflow_s_accurate_decoder():
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        theirs = session.run(tf.io.decode_jpeg(buffer.getvalue(), 3, dct_method="INTEGER_ACCURATE"))
    np.testing.assert_array_equal(decode(buffer.getvalue()), theirs)


def test_a_cut_photo_is_told():
    with pytest.raises((ValueError, OSError), match="truncated|broken"):
        decode(png((1, 2, 3))[:-30])
    with pytest.raises(DataError, match="no images"):
        batches(examples(0), 1, training=True)


def jpeg(number, **how):
    """A file of its own for each number: 30 x 20 pixels of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(how.pop("mode", "RGB")).save(buffer, "JPEG", **how)
    return buffer.getvalue()


# What TensorFlow decodes itself, and what it would refuse, or give other pixels of: left to Pillow, one by one.
KINDS = {
    "plain": jpeg(0),
    "progressive": jpeg(1, progressive=True),
    "all colours": jpeg(2, subsampling=0),
    "grey": jpeg(3, mode="L"),
    "restart markers": jpeg(4, restart_marker_blocks=1),
    "RGB inside": jpeg(5, keep_rgb=True),
    "CMYK": jpeg(6, mode="CMYK"),
    "more behind the end": jpeg(7) + b"more",
    "png": png((1, 2, 3)),
}


def of(held, labels=None):
    return Examples(
        np.arange(len(held), dtype=np.int32) if labels is None else labels,
        tuple(map(str, range(len(held)))),
        tuple(map(len, held)),
        held.__getitem__,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_pillow_whoever_decodes(kind):
    (got,) = batches(of([KINDS["plain"], KINDS[kind]]), 1, training=False)
    (arrays,) = batches(of([decode(KINDS["plain"]), decode(KINDS[kind])]), 1, training=False)
    assert same([got], [arrays])


def test_ordinary_jpegs_are_told_apart():
    ordinary = [kind for kind, data in KINDS.items() if takes(data)]
    assert ordinary == ["plain", "progressive", "all colours", "grey", "restart markers", "RGB inside"]
    assert not takes(KINDS["plain"][:-20]) and not takes(b"") and not takes(np.zeros((2, 2, 3), np.uint8))


def takes(data):
    try:
        return ordinary_jpeg(data) == data
    except ValueError:
        return False


def test_photos_come_in_their_order_with_damaged_ones_among_them():
    held = [jpeg(i) for i in range(40)]
    held[7], held[8], held[30] = png((9, 9, 9)), b"\xff\xd8\xff broken \xff\xd9", jpeg(30)[:-40]
    unreadable = Unreadable(limit=0.5)
    got = batches(of(held), 20, training=False, unreadable=unreadable)
    assert np.concatenate([b["index"] for b in got]).tolist() == [i for i in range(40) if i not in (8, 30)]
    assert unreadable.reasons.keys() == {"8", "30"}
    trained = batches(of(held), 8, training=True, unreadable=Unreadable(limit=0.5))
    used = np.concatenate([b["index"] for b in trained]).tolist()
    instead = [{8: 9, 30: 31}.get(i, i) for i in epoch_order(11, 0, 40).tolist()]
    assert used == instead
