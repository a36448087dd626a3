"""--net FILE.py:FUNCTION: a user's own function, in various styles, is a net like any other."""

import json
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import tensorflow
import tensorflow.compat.v1 as tf
import tf_slim
import tiny_net

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.cli import evaluate, export, finetune, plan
from ckpt_tools.errors import CheckpointError, PlanError, RecipeError
from ckpt_tools.graphs.choosing import Choices
from ckpt_tools.graphs.initializers import Initializer
from ckpt_tools.graphs.variables import GraphVariable
from ckpt_tools.nets.from_graph import has_head
from ckpt_tools.nets.function import net_of_function
from ckpt_tools.nets.graph import build_net
from ckpt_tools.nets.imported import _initializer
from ckpt_tools.nets.net import Net
from ckpt_tools.nets.registry import get_net
from ckpt_tools.nets.resolving import Reference, absolute, resolve
from ckpt_tools.tensors import Spec
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.plan.request import for_net, pixels_of

SLIM = """
    import tensorflow as tf
    import tensorflow.contrib.slim as slim
    from tensorflow.contrib import layers
    from tensorflow.contrib.framework.python.ops import add_arg_scope
    from tensorflow.contrib.layers.python.layers import utils

    IMAGE_SIZE = 32
    PREPROCESSING = "inception"

    def build_arg_scope(weight_decay=0.0, is_training=True):
        regularizer = layers.l2_regularizer(weight_decay)
        with slim.arg_scope([slim.batch_norm, slim.dropout], is_training=is_training):
            with slim.arg_scope([slim.conv2d], normalizer_fn=slim.batch_norm, weights_regularizer=regularizer) as scope:
                return scope

    @add_arg_scope
    def block(net, depth, outputs_collections=None, scope=None):
        assert net.get_shape()[3].value == net.get_shape().as_list()[3]
        net = slim.conv2d(net, depth, [3, 3], stride=2, scope=scope)
        return utils.collect_named_outputs(outputs_collections, scope, net)

    def build(images, num_classes=7, is_training=True, dropout_keep_prob=0.5, reuse=None, scope="Mine"):
        end_points = {}
        with tf.variable_scope(scope, "Mine", [images], reuse=reuse):
            for i, depth in enumerate((8, 12)):
                net = end_points["block%d" % i] = block(images if i == 0 else net, depth, scope="conv%d" % i)
            net = tf.reduce_mean(net, [1, 2], keep_dims=True)
            net = slim.dropout(net, dropout_keep_prob)
            net = slim.conv2d(net, num_classes, [1, 1], activation_fn=None, normalizer_fn=None, scope="logits")
            end_points["Predictions"] = slim.softmax(tf.squeeze(net, [1, 2]))
        return tf.squeeze(net, [1, 2]), end_points
    """
LAYERS = """
    import tensorflow as tf

    def build(images, num_classes, training):
        net = images
        for _ in range(2):
            net = tf.layers.conv2d(net, 6, 3, padding="same", use_bias=False)
            net = tf.nn.relu(tf.layers.batch_normalization(net, training=training))
            net = tf.layers.max_pooling2d(net, 2, 2)
        net = tf.layers.dense(tf.layers.flatten(net), 9, activation=tf.nn.relu)
        net = tf.layers.dropout(net, 0.4, training=training)
        return {"logits": tf.layers.dense(net, num_classes)}
    """
RAW = """
    import tensorflow as tf

    def weight(shape):
        return tf.Variable(tf.truncated_normal(shape, stddev=0.05), name="weights")

    def build(x, keep_prob, n_classes=4):
        with tf.name_scope("conv"):
            a = tf.nn.relu(tf.nn.conv2d(x, weight([3, 3, 3, 4]), strides=[1, 2, 2, 1], padding="SAME"))
        net = tf.concat(3, [a, tf.neg(a)])
        left, right = tf.split(3, 2, net)
        net = tf.pack([left, right])[0]
        size = int(net.get_shape()[1] * net.get_shape()[2] * net.get_shape()[3])
        net = tf.nn.dropout(tf.reshape(net, [-1, size]), keep_prob)
        with tf.variable_scope("scaled"):
            net = net * tf.get_variable("by", [size / 1])  # a float since Python 3
        with tf.name_scope("out"):
            biases = tf.Variable(tf.constant(0.1, shape=[n_classes]), name="biases")
            return tf.nn.softmax(tf.matmul(net, weight([size, n_classes])) + biases)
    """
CLASS = """
    import tensorflow as tf

    class Model:
        def __init__(self, images, num_classes=5, is_training=True):
            self.images = images
            self.features = self.body(is_training)
            self.logits = tf.layers.dense(self.features, num_classes, name="head")

        def body(self, is_training):
            net = tf.layers.conv2d(self.images, 6, 3, name="conv")
            net = tf.cond(is_training, lambda: tf.nn.dropout(net, 0.5), lambda: net)
            return tf.reduce_mean(net, [1, 2])
    """
BACKBONE = """
    import tensorflow as tf

    def build(images, scope="Trunk"):
        with tf.variable_scope(scope):
            net = tf.layers.conv2d(images, 6, 3, strides=2, activation=tf.nn.relu, name="conv1")
            return tf.layers.conv2d(net, 10, 3, activation=tf.nn.relu, name="conv2"), {"first": net}
    """


def write(folder: Path, code: str, name: str = "nets.py") -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(dedent(code), encoding="utf-8")
    return str(folder / name)


def traced(folder: Path, code: str, function: str = "build", side: int | None = 32, **how: object) -> Net:
    return net_of_function(f"{write(folder, code)}:{function}", image_size=side, **how)


def values_of(net: Net, classes: int | None, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {}
    for each in net.variables(classes):
        values = random.normal(0, 0.3, each.spec.shape).astype("float32")
        made[each.name] = np.abs(values) + 0.5 if each.name.endswith("variance") else values
    return made


def computed(net: Net, values: dict[str, np.ndarray], images: np.ndarray, classes: int | None) -> list[np.ndarray]:
    """Features and, where there are classes, logits."""
    with tf.Graph().as_default(), tf.Session() as session:
        built = build_net(net, tf.constant(images), num_classes=classes)
        session.run(tf.global_variables_initializer())
        for variable in built.variables:
            variable.load(values[variable.op.name], session)
        return session.run([built.features, *([built.logits] if classes else [])])


def images_of(side: int = 32, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (3, side, side, channels)).astype("float32")


# --- the styles ------------------------------------------------------------------------------------------------------


def test_slim(tmp_path: Path) -> None:
    net = traced(tmp_path, SLIM, side=None)
    assert (net.name, net.image_size, net.preprocessing, net.classes) == ("nets.py:build", 32, "inception", 7)
    assert (net.scope, net.head, net.head_layer, net.width) == ("Mine", "logits", "Mine/logits", 12)
    assert [(row.name, row.shape, row.trainable) for row in net.table[-6:]] == [
        ("Mine/conv1/weights", (3, 3, 8, 12), True),
        ("Mine/conv1/BatchNorm/beta", (12,), True),
        ("Mine/conv1/BatchNorm/moving_mean", (12,), False),
        ("Mine/conv1/BatchNorm/moving_variance", (12,), False),
        ("Mine/logits/weights", (1, 1, 12, -1), True),
        ("Mine/logits/biases", (-1,), True),
    ]
    features, logits = computed(net, values := values_of(net, 5), images_of(), 5)
    weights, biases = values["Mine/logits/weights"][0, 0], values["Mine/logits/biases"]
    np.testing.assert_allclose(logits, features @ weights + biases, rtol=1e-5, atol=1e-6)


def test_tf_layers(tmp_path: Path) -> None:
    """Names, and what they count up to, are those of TensorFlow 1; a batch norm is by its moving averages."""
    net = traced(tmp_path, LAYERS)
    assert [row.name for row in net.table if row.role != "head"] == [
        "conv2d/kernel",
        *(f"batch_normalization/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")),
        "conv2d_1/kernel",
        *(f"batch_normalization_1/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")),
        "dense/kernel",
        "dense/bias",
    ]
    assert [row.shape for row in net.table if row.role == "head"] == [(9, -1), (-1,)]
    features, logits = computed(net, values := values_of(net, 3), images_of(), 3)
    assert (features.shape, logits.shape) == ((3, 9), (3, 3))
    other = {**values, "batch_normalization_1/moving_mean": values["batch_normalization_1/moving_mean"] + 1}
    assert not np.allclose(computed(net, other, images_of(), 3)[0], features)


def test_raw_operations_of_before_1_0(tmp_path: Path) -> None:
    """The old argument orders, and probabilities that are walked back to their logits."""
    net = traced(tmp_path, RAW)
    assert [row.name for row in net.table] == ["conv/weights", "scaled/by", "out/biases", "out/weights"]
    assert [row.shape for row in net.table] == [(3, 3, 3, 4), (16 * 16 * 4,), (-1,), (16 * 16 * 4, -1)]
    _, logits = computed(net, values_of(net, 6), images_of(), 6)
    assert np.abs(logits.sum(axis=1) - 1).min() > 0.01  # no softmax of them


def test_a_class(tmp_path: Path) -> None:
    net = traced(tmp_path, CLASS, "Model")
    assert (net.name, net.head_layer, net.width, net.classes) == ("nets.py:Model", "head", 6, 5)
    assert computed(net, values_of(net, 2), images_of(), 2)[1].shape == (3, 2)


def test_a_backbone(tmp_path: Path) -> None:
    """What a function without a number of classes returns are features; maps are averaged."""
    net = traced(tmp_path, BACKBONE)
    assert (has_head(net), net.width, net.classes) == (False, 10, 0)
    assert for_net(Options(), net).head_scope == "Logits"
    assert computed(net, values_of(net, None), images_of(), None)[0].shape == (3, 10)
    last = traced(tmp_path, LAYERS.replace('return {"logits": tf.layers', "return (tf.layers").replace("}", ")"))
    assert has_head(last)
    unnamed = LAYERS.replace("num_classes, training", "training").replace("num_classes", "4")
    assert has_head(traced(tmp_path, unnamed))  # it says that they are logits
    bare = unnamed.replace('{"logits": ', "(").replace("}", ")")
    assert not has_head(traced(tmp_path, bare))
    assert traced(tmp_path, bare, choices=Choices(logits="dense_1/BiasAdd")).classes == 4


def test_batch_norms_of_every_rank_and_layout(tmp_path: Path) -> None:
    code = """
        import tensorflow as tf
        from tensorflow.contrib import layers

        def build(images, num_classes=3):
            flat = layers.batch_norm(tf.reduce_mean(images, [1, 2]), scale=True, scope="flat")
            turned = tf.transpose(images, [0, 3, 1, 2])
            slim = layers.batch_norm(turned, data_format="NCHW", scale=True, scope="slim",
                                     param_initializers={"gamma": tf.constant_initializer(3.0)})
            own = tf.layers.batch_normalization(turned, axis=1, name="own")
            both = tf.concat([flat, tf.reduce_max(slim, [2, 3]), tf.reduce_max(own, [2, 3])], 1)
            return tf.layers.dense(both, num_classes)
        """
    net = traced(tmp_path, code)
    (features, _), values, images = computed(net, values_of(net, 3), images_of(), 3), values_of(net, 3), images_of()

    def normalised(inputs: np.ndarray, scope: str) -> np.ndarray:
        gamma, beta, mean, variance = (
            values[f"{scope}/{name}"] for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (inputs - mean) / np.sqrt(variance + 0.001) * gamma + beta

    expected = [normalised(images.mean((1, 2)), "flat")]
    expected += [normalised(images, scope).max((1, 2)) for scope in ("slim", "own")]
    np.testing.assert_allclose(features, np.concatenate(expected, 1), rtol=1e-4, atol=1e-5)
    begins = {each.key: each.initializer.first for each in net.graph.found.variables if each.key.endswith("gamma")}
    assert begins == {"flat/gamma": 1.0, "slim/gamma": 3.0, "own/gamma": 1.0}


def test_a_net_of_slim_gives_the_bits_of_the_registrys(tmp_path: Path) -> None:
    code = """
        from tensorflow.contrib.slim.python.slim.nets import resnet_v1

        resnet_arg_scope = resnet_v1.resnet_arg_scope

        def resnet_v1_14(images, num_classes=None, is_training=True, global_pool=True, scope="resnet_v1_14"):
            depths = [("block1", 16, 2), ("block2", 32, 2), ("block3", 64, 2), ("block4", 128, 1)]
            blocks = [resnet_v1.resnet_v1_block(name, depth, 1, stride) for name, depth, stride in depths]
            return resnet_v1.resnet_v1(images, blocks, num_classes, is_training=is_training, global_pool=global_pool,
                                       scope=scope)
        """
    own, known = traced(tmp_path, code, "resnet_v1_14", side=64), get_net("resnet_v1_14")
    values = values_of(known, 5)
    assert {row.name: row.shape for row in own.table} == {row.name: row.shape for row in known.table}
    assert {row.name for row in own.table if row.trainable} == {row.name for row in known.table if row.trainable}
    ours, theirs = (computed(net, values, images_of(64), 5) for net in (own, known))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))
    values["resnet_v1_14/block4/unit_1/bottleneck_v1/conv3/weights"] *= 1.001
    assert computed(own, values, images_of(64), 5)[0].tobytes() != ours[0].tobytes()


def test_a_function_and_the_graph_that_it_trained_in_are_one_net(GOLDEN: Path) -> None:
    """The golden checkpoint by the function of docs/nets.py, which has never seen its `.meta`."""
    source = str(GOLDEN / "tf221_graph" / "model.ckpt")
    tensors = open_checkpoint(source).tensors
    function = f"{Path(__file__).parent.parent / 'docs' / 'nets.py'}:build"
    found = []
    for reference in (Reference(function, image_size=12), Reference()):
        net = resolve(reference, tensors.specs(), source)
        values = {each.name: tensors[each.name].load() for each in net.variables(5)}
        found.append(computed(net, values, images_of(12), 5))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*found, strict=True))


# --- how files are imported ------------------------------------------------------------------------------------------


def test_nothing_is_left_behind(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    before = dict(sys.modules), list(sys.path), sys.argv, tf_slim.batch_norm, tf_slim.layers.batch_norm
    write(tmp_path, "import tensorflow as tf\ndepth = 6 if hasattr(tf, 'contrib') else None\n", "beside.py")
    code = f"import beside\nprint('imported', xrange(3))\n{dedent(CLASS)}".replace("images, 6", "images, beside.depth")
    assert traced(tmp_path, code, "Model").width == 6
    assert sys.modules["tensorflow"] is tensorflow and "beside" not in sys.modules and "nets" not in sys.modules
    assert (sys.path, sys.argv, tf_slim.batch_norm, tf_slim.layers.batch_norm) == before[1:]
    assert {name for name in before[0] if name not in sys.modules} == set()
    assert isinstance(tf.placeholder(tf.float32, [3]).shape[0] if not tf.executing_eagerly() else 3, int)
    out, err = capfd.readouterr()
    assert out == "" and "imported" in err
    assert not list(tmp_path.rglob("__pycache__"))


def test_files_in_a_package_and_modules_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "", "mine/__init__.py")
    write(tmp_path, "", "mine/nets/__init__.py")
    write(tmp_path, "import tensorflow as tf\nconv2d = tf.layers.conv2d", "mine/parts.py")
    code = "from ..parts import conv2d\nfrom mine import parts\n" + dedent(BACKBONE).replace(
        "tf.layers.conv2d", "conv2d"
    )
    path = write(tmp_path, code, "mine/nets/trunk.py")
    monkeypatch.chdir(tmp_path)
    by_file, by_name = (net_of_function(f"{each}:build", image_size=16) for each in (path, "mine.nets.trunk"))
    assert by_file.table == by_name.table and by_name.name == "mine.nets.trunk:build"
    assert by_file.graph.digest == by_name.graph.digest
    assert absolute("mine/nets/trunk.py:build") == f"{path}:build" and absolute("mine.nets:build") == "mine.nets:build"
    assert not [name for name in sys.modules if name.startswith("mine")]


def test_a_script_gives_its_definitions(tmp_path: Path) -> None:
    script = "SIDE = 16\nsession = tf.Session()\ntf.train.Saver().restore(session, 'model.ckpt')\n"
    built = f"{dedent(BACKBONE)}\nbuild(tf.zeros([1, 32, 32, 3]))\n1 / 0\n"
    net = traced(tmp_path, built, note=lambda text: None)
    assert [row.name for row in net.table] == [f"Trunk/conv{i}/{name}" for i in (1, 2) for name in ("kernel", "bias")]
    assert traced(tmp_path, built.replace("1 / 0", "pass")).table == net.table
    notes = []
    assert traced(tmp_path, dedent(BACKBONE) + script, note=notes.append).width == 10
    (note,) = notes
    assert "nets.py: line 10: ValueError: No variables to save" in note and "its definitions are taken" in note
    with pytest.raises(RecipeError, match=r"nets.py: line 10: ValueError: No variables to save"):
        traced(tmp_path, dedent(BACKBONE).replace("build", "other") + "\n" + script.replace("SIDE = 16\n", ""))


def test_what_contrib_lacks_is_named_where_it_is_used(tmp_path: Path) -> None:
    code = "from tensorflow.contrib.rnn import LSTMCell\nfrom tensorflow.contrib import image\n" + dedent(BACKBONE)
    flag = (
        "assert tf.__version__ < '2'\ntf.app.flags.DEFINE_integer('depth', 10, '')\nassert tf.app.flags.FLAGS.depth\n"
    )
    for _ in range(2):
        assert traced(tmp_path, code.replace("def build", f"{flag}\ndef build")).width == 10
    used = code.replace("    with tf.variable", "    image.rotate(images, 1)\n    with tf.variable")
    with pytest.raises(RecipeError, match=r"nets.py: line 7, in build: .* has no tensorflow.contrib.image.rotate"):
        traced(tmp_path, used)
    with pytest.raises(RecipeError, match=r"line 5, in build: AttributeError: .* has no tensorflow.varable_scope"):
        traced(tmp_path, BACKBONE.replace("tf.variable_scope", "tf.varable_scope"))


# --- what is said ----------------------------------------------------------------------------------------------------


MISTAKES = {
    "def built(x): pass": "build is not in it; did you mean built?",
    "build = 3": "build is not a function",
    "def build(x, width, *, size, depth=2): pass": "build needs width and size. It is called with images, and",
    "def build(): pass": "build takes no images",
    "def build(x): pass": "build returns nothing. It must return logits or features",
    "def build(x): return {'net': x}": "build returns a dict with net, but no logits",
    "def build(x): return 'logits'": "build returns a str. It must",
    "def build(x):\n    return x / 0 if 1 / 0 else x": "line 4, in build: ZeroDivisionError: division by zero",
    "def build(x):\n    return tf.layers.dense(x, -1)": "line 4, in build: ValueError: ",
    "def build(x): exit(3)": "line 3, in build: it ends the program",
    "def build(x:": "line 3: ",
    "def build(x):\n    with tf.Graph().as_default(): return tf.zeros([1, 2])": "build builds in a graph of its own",
    "IMAGE_SIZE = '32'\ndef build(x): return x": "IMAGE_SIZE = '32' is not of type int",
    "CHANNELS = 2\ndef build(x): return x": "CHANNELS = 2: images have 1 or 3",
}


@pytest.mark.parametrize("code", MISTAKES)
def test_mistakes_are_one_sentence(code: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as found:
        traced(tmp_path, f"import tensorflow as tf\n\n{code}\n", side=None if "SIZE" in code else 32)
    assert MISTAKES[code] in str(found.value)
    assert str(found.value).startswith(f"{tmp_path / 'nets.py'}: ") and "\n" not in str(found.value)


def test_what_a_function_does_not_say_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nets.py: does not say how large its images are. Give --image-size."):
        traced(tmp_path, BACKBONE, side=None)
    with pytest.raises(RecipeError, match=r"nets.py:build does not say how images are preprocessed: give --prep"):
        pixels_of(traced(tmp_path, BACKBONE), None, None)
    with pytest.raises(RecipeError, match=r"the net in nets.py:build: no preprocessing 'units'; did you mean unit\?"):
        pixels_of(traced(tmp_path, "PREPROCESSING = 'units'\n" + dedent(BACKBONE)), None, None)
    assert pixels_of(traced(tmp_path, "CHANNELS = 1\n" + dedent(BACKBONE)), "unit", None).channels == "grey"
    for wrong in ("nets.py:", "nets.py:a.b", ":build"):
        with pytest.raises(RecipeError, match=r"write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION"):
            resolve(Reference(wrong), {}, "")
    with pytest.raises(RecipeError, match=r"none.py: there is no such file"):
        resolve(Reference("none.py:build", image_size=8), {}, "")
    with pytest.raises(RecipeError, match=r"no_such_module: ModuleNotFoundError: No module named 'no_such_module'"):
        resolve(Reference("no_such_module:build", image_size=8), {}, "")


def test_a_net_that_cannot_be_taken_is_a_conflict(tmp_path: Path) -> None:
    code = """
        import tensorflow as tf

        def build(images, num_classes=4):
            net = tf.layers.conv2d(images, 4, 3)
            mean, variance = tf.nn.moments(net, [0, 1, 2])
            net = tf.nn.batch_normalization(net, mean, variance, None, None, 0.001)
            return tf.layers.dense(tf.reduce_mean(net, [1, 2]), num_classes)
        """
    with pytest.raises(PlanError, match=r"nets.py: build builds a graph with 1 conflict\nbatch norm without averages"):
        traced(tmp_path, code)


# --- from a file to a trained net ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_net.write_photos(tmp_path_factory.mktemp("photos") / "photos")


def write_source(folder: Path, code: str, classes: int, **how: object) -> str:
    values = values_of(traced(folder, code, **how), classes)
    source = str(folder / "source.ckpt")
    save_checkpoint(from_arrays({**values, "global_step": np.int64(7)}), source, format="v2")
    return source


def test_a_new_head_on_a_function(
    tmp_path: Path, photos: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """Trained, evaluated and exported; the function is run for the training alone, and an edited one is noticed."""
    source = write_source(tmp_path, SLIM, 7)
    monkeypatch.chdir(tmp_path)
    run = ["--checkpoint", source, "--net", "nets.py:build", "--data", photos, "--train-dir", "run"]
    run += ["--exclude", "logits", "--trainable", "logits", "--batch-size", "8", "--cache-dir", "cache"]
    assert finetune.main([*run, "--epochs", "2"]) == 0
    err = capfd.readouterr().err
    assert "10 of 12 tensors" not in err and "restored       10 variables" in err and "0 of 60 images cached" in err
    before, after = (open_checkpoint(each).tensors for each in (source, "run/best.ckpt"))
    kept = [name for name in before if "logits" not in name and name != "global_step"]
    assert len(kept) == 8 and all(np.array_equal(before[name].load(), after[name].load()) for name in kept)
    assert after["Mine/logits/biases"].spec.shape == (3,)
    record = json.loads(Path("run/plan.json").read_text(encoding="utf-8"))
    assert record["net"] == "nets.py:build" and record["graph"]["digest"]
    assert f"net: {tmp_path}/nets.py:build" in Path("run/config.yaml").read_text(encoding="utf-8")

    write(tmp_path, "raise RuntimeError('nothing runs a function by itself')")
    assert evaluate.main(["--train-dir", "run", "--data", photos]) == 0
    assert export.main(["--train-dir", "run", "--output", "served"]) == 0
    assert Path("served/saved_model").is_dir()

    write(tmp_path, SLIM.replace("net = slim.dropout(", "net = slim.dropout(2.0 * "))
    capfd.readouterr()
    assert finetune.main([*run, "--epochs", "4"]) == 2
    assert "nets.py:build no longer computes what it did when the run began" in capfd.readouterr().err
    assert finetune.main([*run, "--epochs", "4", "--resume"]) == 0
    assert "0 of 60 images cached" in capfd.readouterr().err  # what was cached is another net's
    assert json.loads(Path("run/plan.json").read_text(encoding="utf-8"))["graph"] != record["graph"]


def test_a_head_of_its_own_and_training_from_nothing(tmp_path: Path, photos: str, capfd: pytest.CaptureFixture) -> None:
    """A backbone gets a head; without a checkpoint a net begins as its function says."""
    common = ["--data", photos, "--batch-size", "8", "--steps", "2", "--preprocessing", "unit", "--image-size", "32"]
    source = write_source(tmp_path, BACKBONE, None)
    net = ["--net", f"{tmp_path / 'nets.py'}:build"]
    run = ["--checkpoint", source, "--train-dir", str(tmp_path / "run"), "--trainable", "Logits"]
    assert finetune.main([*common, *net, *run, "--cache", "off"]) == 0
    assert open_checkpoint(str(tmp_path / "run" / "best.ckpt")).tensors["Logits/fc/weights"].spec.shape == (10, 3)
    write(tmp_path, RAW, "raw.py")
    net = ["--net", f"{tmp_path / 'raw.py'}:build", "--train-dir", str(tmp_path / "raw")]
    assert finetune.main([*common, *net, "--learning-rate", "1e-9", "--cache", "off"]) == 0
    made = open_checkpoint(str(tmp_path / "raw" / "best.ckpt")).tensors
    np.testing.assert_allclose(made["out/biases"].load(), 0.1, atol=1e-5)
    weights = made["out/weights"].load()
    assert 0.03 < weights.std() < 0.06 and np.abs(weights).max() < 0.1001  # truncated at two deviations


@pytest.mark.parametrize(
    ("name", "value"), [("bn/gamma", 1), ("bn/moving_variance", 1), ("bn/beta", 0), ("scale_x", 0)]
)
def test_what_a_graph_does_not_begin_is_begun_by_name(name: str, value: int) -> None:
    made = GraphVariable(name, Spec("float32", (3,)), name, True)
    with tf.Graph().as_default(), tf.Session() as session:
        assert session.run(_initializer(made, 1)([3])).tolist() == [value] * 3
        begun = made._replace(initializer=Initializer("constant", 2.5))
        assert session.run(_initializer(begun, 1)([3])).tolist() == [2.5] * 3


def test_fixed_classes_are_said(tmp_path: Path, photos: str, capfd: pytest.CaptureFixture) -> None:
    code = LAYERS.replace(
        "tf.layers.dense(net, num_classes)", "tf.layers.dense(net, num_classes) * tf.ones([num_classes])"
    )
    code = code.replace("num_classes, training", "num_classes=4, training=True")
    source = write_source(tmp_path, code, 4)
    run = ["--checkpoint", source, "--net", f"{tmp_path / 'nets.py'}:build", "--data", photos, "--image-size", "32"]
    run += ["--preprocessing", "unit", "--exclude", "dense_1", "--train-dir", str(tmp_path / "run")]
    assert finetune.main([*run, "--trainable", "dense_1"]) == 2
    assert "--head-scope Logits puts a new head on the features" in capfd.readouterr().err


def test_ckpt_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    """It says that it loads TensorFlow; the classes are the checkpoint's."""
    write_source(tmp_path, SLIM, 5)
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    assert plan.main(["source.ckpt", "--net", "nets.py:build"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("net          the net in nets.py:build, 5 classes\nrestored     10 of 10 variables\n")
    assert err == "nets.py:build is run to see what it builds, which takes TensorFlow\n"
    assert plan.main(["source.ckpt", "--net", "nets.py:build", "--num-classes", "3"]) == 1
    assert "Mine/logits/weights: net [1, 1, 12, 3], checkpoint [1, 1, 12, 5], class axis" in capfd.readouterr().out
    write(tmp_path, BACKBONE)
    assert plan.main(["source.ckpt", "--net", "nets.py:build", "--num-classes", "3"]) == 2
    assert "nets.py: does not say how large its images are. Give --image-size." in capfd.readouterr().err
    with pytest.raises(CheckpointError, match=r"--features apply to a graph, and --net vgg_16 is a built-in net"):
        Options(net="vgg_16", features="pool5")
