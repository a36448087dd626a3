"""The frontier between the frozen prefix and the rest, in small graphs with obvious answers."""

import pytest

tf = pytest.importorskip("tensorflow").compat.v1

from ckpt_tools.train.graph.frozen_prefix import find_frontier, row_bytes, work  # noqa: E402


@pytest.fixture
def images():
    with tf.Graph().as_default():
        yield tf.placeholder(tf.float32, [None, 16, 16, 3], name="images")


def conv(inputs, name, channels, size=3, stride=1):
    kernel = tf.get_variable(name, [size, size, inputs.shape[-1], channels])
    return tf.nn.conv2d(inputs, kernel, [1, stride, stride, 1], "SAME", name=f"{name}_out")


def frontier(images, target, *moving):
    """Names of the frontier's tensors when the variables `moving` are trained."""
    found = find_frontier(images, [target], lambda name: name in moving)
    return found and sorted(tensor.op.name for tensor in found.tensors)


def test_it_lies_right_before_the_first_variable_that_moves(images):
    first = conv(images, "first", 8)
    second = conv(tf.nn.relu(first, name="relu"), "second", 8)
    target = tf.reduce_sum(conv(second, "third", 8))
    assert frontier(images, target, "third") == ["second_out"]
    assert frontier(images, target, "second") == ["relu"]
    assert frontier(images, target, "second", "third") == ["relu"]
    assert frontier(images, target, "first") is None


def test_the_smaller_of_two_that_divide_alike_is_taken(images):
    large = conv(images, "wide", 64)
    small = tf.nn.max_pool2d(large, 4, 4, "SAME", name="pool")
    bigger = tf.tile(small, [1, 1, 1, 3], name="tile")
    target = tf.reduce_sum(conv(bigger, "head", 4))
    found = find_frontier(images, [target], lambda name: name == "head")
    assert [tensor.op.name for tensor in found.tensors] == ["pool"]
    assert row_bytes(found.tensors[0]) == 4 * 4 * 64 * 4
    assert found.variables == ("wide",)


def test_a_small_tensor_is_not_taken_when_much_would_be_run_again(images):
    narrow = conv(images, "narrow", 1, stride=4)  # 64 bytes an image, but all the work comes after it
    wide = conv(conv(narrow, "wide", 512), "wider", 512)
    target = tf.reduce_sum(conv(wide, "head", 4))
    assert frontier(images, target, "head") == ["wider_out"]


def test_two_branches_are_cut_both(images):
    left, right = conv(images, "left", 8), conv(images, "right", 8)
    target = tf.reduce_sum(conv(left, "trained", 8) * right)
    assert frontier(images, target, "trained") == ["left_out", "right_out"]


def test_random_operations_are_not_cached(images):
    noisy = conv(images, "first", 8) + tf.random_normal([16, 16, 8])
    target = tf.reduce_sum(conv(noisy, "second", 4))
    assert frontier(images, target) == ["first_out"]


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_batch_norm_moves_when_it_sees_the_batch(images, mode):
    first = conv(images, "first", 8)
    ones, zeros = tf.ones([8]), tf.zeros([8])
    if mode == "training":
        normal = tf.nn.fused_batch_norm(first, ones, zeros, name="norm")[0]
    else:
        normal = tf.nn.fused_batch_norm(first, ones, zeros, zeros, ones, is_training=False, name="norm")[0]
    target = tf.reduce_sum(conv(normal, "second", 4))
    assert frontier(images, target, "second") == (["first_out"] if mode == "training" else ["norm"])


def test_what_mixes_the_images_of_a_batch_is_not_cached(images):
    first = conv(images, "first", 8)
    mean = tf.reduce_mean(first, [0, 1, 2])  # a batch norm made by hand
    target = tf.reduce_sum(conv(first - mean, "second", 4))
    assert frontier(images, target, "second") == ["first_out"]


def test_feeding_the_frontier_needs_no_images(images):
    first = conv(images, "first", 8)
    flat = tf.reshape(first, [-1, 16 * 16 * 8], name="flat")
    target = tf.reduce_sum(tf.matmul(flat, tf.get_variable("head", [16 * 16 * 8, 2])))
    found = find_frontier(images, [target], lambda name: name == "head")
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        import numpy as np

        values = np.random.default_rng(0).normal(size=(5, 16, 16, 3))
        rows = session.run(list(found.tensors), {images: values})
        fed = session.run(target, dict(zip(found.tensors, rows, strict=True)))
        assert fed == session.run(target, {images: values})


def test_bytes_and_work(images):
    first = conv(images, "first", 8, stride=2)
    assert row_bytes(first) == 8 * 8 * 8 * 4
    assert row_bytes(tf.reduce_mean(first)) == float("inf")
    assert work(first.op) == 8 * 8 * 8 * 3 * 3 * 3
    product = tf.matmul(tf.reshape(first, [-1, 512]), tf.zeros([512, 10]))
    assert work(product.op) == 512 * 10
