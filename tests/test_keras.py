"""Keras files: names, layouts of Keras 1, 2 and 3, links that are not followed, files that Keras itself reads."""

import time

import numpy as np
import pytest

from ckpt_tools import from_arrays
from ckpt_tools.errors import CheckpointError, DamagedError, NotACheckpointError, UnsupportedError
from ckpt_tools.formats import keras
from ckpt_tools.formats.keras_names import KerasLayer, layers_in, layers_of, variables_of
from ckpt_tools.kinds import kinds

h5py = pytest.importorskip("h5py")
VGG = {
    "block1_conv1/kernel": np.arange(12, dtype="float32").reshape(1, 1, 3, 4),
    "block1_conv1/bias": np.arange(4, dtype="float32"),
    "lstm/lstm_cell/kernel": np.ones((2, 3), "float16"),
    "global_step": np.array(7, "int64"),
    "mask/on": np.array([True, False]),
}


def written(tmp_path, values=VGG):
    keras.write(from_arrays(values), str(tmp_path / "w.h5"))
    return tmp_path / "w.h5"


def test_what_is_written_is_read_back(tmp_path):
    opened = keras.read(written(tmp_path))
    assert opened.format == "keras_h5"
    assert list(opened.tensors) == list(VGG)
    for name, array in VGG.items():
        found = opened.tensors[name].load()
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_the_layout_is_keras_2s(tmp_path):
    with h5py.File(written(tmp_path)) as file:
        assert file.attrs["layer_names"].tolist() == [b"block1_conv1", b"lstm", b"global_step", b"mask"]
        assert file["block1_conv1"].attrs["weight_names"].tolist() == [b"block1_conv1/kernel:0", b"block1_conv1/bias:0"]
        assert file["block1_conv1/block1_conv1/kernel:0"].shape == (1, 1, 3, 4)


def test_the_same_bytes_whenever_it_is_written(tmp_path, monkeypatch):
    first = written(tmp_path).read_bytes()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86400)
    assert written(tmp_path).read_bytes() == first


def test_a_list_of_layers_too_long_for_one_attribute(tmp_path):
    values = {f"layer_{i}/{'x' * 90}": np.float32(i) for i in range(900)}
    path = written(tmp_path, values)
    with h5py.File(path) as file:
        assert "layer_names" in file.attrs
    values = {f"{'x' * 90}_{i}/kernel": np.float32(i) for i in range(900)}
    path = written(tmp_path, values)
    with h5py.File(path) as file:
        assert {"layer_names0", "layer_names1"} <= set(file.attrs)
    assert list(keras.read(path).tensors) == list(values)


def old_model(path):
    """A whole model as Keras 2 saved it, with a weight that does not say its layer, and an optimizer."""
    with h5py.File(path, "w") as file:
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = np.array([b"fc1", b"odd", b"flatten"])
        fc1, odd = weights.create_group("fc1"), weights.create_group("odd")
        weights.create_group("flatten").attrs["weight_names"] = np.array([], "S1")
        fc1.attrs["weight_names"] = np.array([b"fc1/kernel:0"])
        fc1["fc1/kernel:0"] = np.arange(6, dtype=">f4").reshape(2, 3)
        odd.attrs["weight_names"] = np.array([b"Variable:0"])
        odd["Variable:0"] = np.ones(2)
        optimizer = file.create_group("optimizer_weights")
        optimizer.attrs["weight_names"] = np.array([b"training/Adam/iterations:0"])
        optimizer["training/Adam/iterations:0"] = np.int64(9)


def test_a_whole_model_of_keras_2(tmp_path):
    old_model(tmp_path / "m.h5")
    opened = keras.read(tmp_path / "m.h5")
    assert {name: str(spec) for name, spec in opened.tensors.specs().items()} == {
        "fc1/kernel": "float32[2,3]",
        "odd/Variable": "float64[2]",
        "training/Adam/iterations": "int64[]",
    }
    kernel = opened.tensors["fc1/kernel"].load()
    assert kernel.dtype == np.dtype("<f4")
    assert kernel.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("kind", ["soft", "external", "group"])
def test_links_are_not_followed(tmp_path, kind):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["kernel:0"] = np.ones(3)
        file.create_group("fc1")["kernel:0"] = np.ones(3)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"fc1"])
        if kind == "group":
            file["fc1"] = h5py.ExternalLink("secret.h5", "/fc1")
        else:
            group = file.create_group("fc1")
            group.attrs["weight_names"] = np.array([b"kernel:0"])
            soft = h5py.SoftLink("/elsewhere")
            group["kernel:0"] = soft if kind == "soft" else h5py.ExternalLink("secret.h5", "/kernel:0")
    with pytest.raises(
        UnsupportedError, match=r"is an? (soft|external) link, which could point anywhere: not followed"
    ):
        keras.read(tmp_path / "m.h5")


def test_values_outside_the_file_are_refused(tmp_path):
    (tmp_path / "passwd").write_bytes(bytes(64))
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"fc1"])
        group = file.create_group("fc1")
        group.attrs["weight_names"] = np.array([b"kernel:0"])
        group.create_dataset("kernel:0", (16,), "f4", external=[(str(tmp_path / "passwd"), 0, 64)])
    with pytest.raises(UnsupportedError, match="its values lie outside this file"):
        keras.read(tmp_path / "m.h5")


def test_a_huge_claim_without_bytes_is_refused(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"fc1"])
        group = file.create_group("fc1")
        group.attrs["weight_names"] = np.array([b"kernel:0"])
        group.create_dataset("kernel:0", (10**10,), "f4", chunks=(1024,))
    with pytest.raises(DamagedError, match="takes 40,000,000,000 bytes, but 0 are stored"):
        keras.read(tmp_path / "m.h5")


def test_what_is_no_keras_file(tmp_path):
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(NotACheckpointError, match="HDF5 file without Keras weights"):
        keras.read(tmp_path / "empty.h5")
    whole = written(tmp_path).read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedError, match="not a sound Keras file"):
        keras.read(tmp_path / "cut.h5")


def test_types_and_names_that_hdf5_has_no_place_for(tmp_path):
    text = from_arrays({"t": np.array([b"x"], object)})
    with pytest.raises(UnsupportedError, match=r"cannot hold 1 of 1 tensors: t \(string\[1\]\)"):
        keras.write(text, str(tmp_path / "never.h5"))
    for name in ("/root", "a//b", "a/./b", "a\0"):
        with pytest.raises(UnsupportedError, match="cannot hold 1 of 1 names"):
            keras.write(from_arrays({name: np.zeros(1)}), str(tmp_path / "never.h5"))
    assert not list(tmp_path.iterdir())


def test_damage_is_a_checkpoint_error_or_harmless(tmp_path):
    whole = written(tmp_path).read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for trial in range(120):
        broken = bytearray(whole)
        if trial % 4:
            broken[random.integers(len(whole))] ^= 1 << random.integers(8)
        else:
            broken = broken[: random.integers(len(whole))]
        path = tmp_path / f"{trial}.h5"  # HDF5 takes a file of the same name for the one that it has open
        path.write_bytes(broken)
        try:
            opened = keras.read(path)
            for name in opened.tensors:
                opened.tensors[name].load()
        except CheckpointError:
            refused += 1
    assert refused > 20


def test_numbered_weights_get_the_names_of_their_layer(tmp_path):
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for place, layer, shapes in [
            ("layers/conv2d", "block1_conv1", [(3, 3, 3, 4), (4,)]),
            ("layers/batch_normalization_1", "bn1", [(4,)] * 4),
            ("layers/functional/layers/my_layer", "mine", [(2,)]),
            ("optimizer", "adam", [()] * 11),
        ]:
            group = file.create_group(f"{place}/vars")
            group.attrs["name"] = layer
            for number, shape in enumerate(shapes):
                group[str(number)] = np.full(shape, number, "f4")
    opened = keras.read(tmp_path / "m.weights.h5")
    assert list(opened.tensors) == [
        *("bn1/gamma", "bn1/beta", "bn1/moving_mean", "bn1/moving_variance"),
        *("block1_conv1/kernel", "block1_conv1/bias", "mine/0"),
        *(f"optimizer/vars/{number}" for number in range(11)),
    ]
    assert opened.tensors["bn1/moving_variance"].load().tolist() == [3] * 4
    assert opened.note == "the file numbers the weights of a layer; they are named by the layer's usual order"


def test_moving_statistics_are_statistics_in_every_kind_of_batch_norm(tmp_path):
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for place, count in [("batch_normalization", 4), ("batch_normalization_1", 3), ("batch_normalization_2", 2)]:
            group = file.create_group(f"layers/{place}/vars")
            group.attrs["name"] = place
            for number in range(count):
                group[str(number)] = np.zeros(4, "f4")
        for number, shape in enumerate([(), (), (4,), (4,)]):
            file[f"optimizer/vars/{number}"] = np.zeros(shape, "i8" if number == 0 else "f4")
    found = {name: kind.kind for name, kind in kinds(keras.read(tmp_path / "m.weights.h5").tensors.specs()).items()}
    statistics = [name for name, kind in found.items() if kind == "statistic"]
    layers = ("batch_normalization", "batch_normalization_1", "batch_normalization_2")
    assert statistics == [f"{layer}/moving_{what}" for layer in layers for what in ("mean", "variance")]
    assert [name for name, kind in found.items() if kind == "weight"] == [
        *("batch_normalization/gamma", "batch_normalization/beta", "batch_normalization_1/0"),
    ]
    assert [kind for name, kind in found.items() if name.startswith("optimizer")] == ["step", "slot", "slot", "slot"]


def test_files_without_names_of_layers_and_two_layers_of_one_name(tmp_path):
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:  # Keras 2.12
        file["_layer_checkpoint_dependencies/dense/vars/0"] = np.zeros((2, 3), "f4")
        file["_layer_checkpoint_dependencies/odd/vars/0"] = np.zeros(3, "f4")
        for place in ("a", "b"):
            group = file.create_group(f"{place}/dense/vars")
            group.attrs["name"] = "same"
            group["0"] = np.zeros((2, 3), "f4")
    assert list(keras.read(tmp_path / "m.weights.h5").tensors) == [
        *("_layer_checkpoint_dependencies/dense/kernel", "_layer_checkpoint_dependencies/odd/vars/0"),
        *("a/dense/vars/0", "b/dense/vars/0"),
    ]


@pytest.mark.parametrize("config", [b"{", b"[" * 100_000, b'{"class_name": "Dense", "config": 7}', b"\xff"])
def test_a_damaged_config_is_no_config(config):
    assert layers_in(config) == {}


def test_layers_of_names():
    assert layers_of(["InceptionV3/Conv/weights", "InceptionV3/Logits/weights", "global_step"]) == {
        "Conv": ["InceptionV3/Conv/weights"],
        "Logits": ["InceptionV3/Logits/weights"],
        "global_step": ["global_step"],
    }
    assert layers_of(["a/x/w", "b/x/w"]) == {"a": ["a/x/w"], "b": ["b/x/w"]}
    assert variables_of("dense", 1) == ("kernel",)
    assert variables_of("dense", 3) == (None, None, None)
    assert variables_of("conv2d_3", 2) == ("kernel", "bias")


def test_keras_reads_what_is_written_and_is_read(tmp_path):
    pytest.importorskip("tensorflow")
    import keras as real

    def net():
        layers = [real.layers.Conv2D(4, 3, name="conv"), real.layers.BatchNormalization(name="bn")]
        return real.Sequential(
            [real.layers.Input((8, 8, 3)), *layers, real.layers.Flatten(), real.layers.Dense(5, name="out")]
        )

    model = net()
    wanted = [np.asarray(weight) for weight in model.weights]
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    model.save(tmp_path / "m.h5")
    names = [f"{layer}/{v}" for layer, vs in [("conv", 2), ("bn", 4), ("out", 2)] for v in _usual(vs)]
    for file, format in (("m.keras", "keras"), ("m.weights.h5", "keras_h5")):
        opened = keras.read(tmp_path / file)
        assert opened.format == format
        assert all(np.array_equal(opened.tensors[n].load(), w) for n, w in zip(names, wanted, strict=True))
    old = keras.read(tmp_path / "m.h5")
    keras.write(old.tensors, str(tmp_path / "ours.h5"))
    other = net()
    other.load_weights(tmp_path / "ours.h5", by_name=True)
    assert all(np.array_equal(np.asarray(a), w) for a, w in zip(other.weights, wanted, strict=True))


def _usual(count):
    return ("kernel", "bias") if count == 2 else ("gamma", "beta", "moving_mean", "moving_variance")


def test_an_archive_names_every_variable_as_keras_does(tmp_path):
    """Settings decide what the numbers mean: whether there is a scale, an offset, a bias; layers keep other layers."""
    pytest.importorskip("tensorflow")
    from keras import Input, Model, Sequential, layers

    images = Input((12, 12, 3))
    x = layers.Conv2D(4, 3, name="first")(images)
    for settings in ({}, {"scale": False}, {"center": False, "name": "no_beta"}, {"scale": False, "center": False}):
        x = layers.BatchNormalization(**settings)(x)
    x = layers.SpectralNormalization(layers.Conv2D(4, 1))(layers.SeparableConv2D(4, 3)(x))
    x = layers.LayerNormalization(center=False)(layers.PReLU()(layers.Normalization()(x)))
    x = layers.Reshape((8, 32))(layers.Dropout(0.1, seed=1)(x))
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True, use_bias=False))(x)
    x = layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(2)])(layers.MultiHeadAttention(2, 3)(x, x))
    for name in ("one", "two"):  # layers of the same names, one model in another
        x = Sequential([layers.Dense(4, use_bias=False, name="d"), layers.BatchNormalization(name="b")], name=name)(x)
    model = Model(images, x)
    model.save(tmp_path / "m.keras")
    opened = keras.read(tmp_path / "m.keras")
    wanted = {weight.path: np.asarray(weight) for weight in model.weights}
    found = {name: tensor.load() for name, tensor in opened.tensors.items()}
    extra = {name for name in found if "seed_generator" in name or name == "spectral_normalization/kernel"}
    assert found.keys() - extra == wanted.keys()
    assert all(np.array_equal(found[name], value) for name, value in wanted.items())
    assert opened.note == (
        "the file numbers the weights of a layer; they are named by the layer's class and settings in config.json"
    )
    statistics = {name for name, kind in kinds(opened.tensors.specs()).items() if kind.kind == "statistic"}
    assert statistics == {name for name in wanted if name.rpartition("/")[2] in _STATISTICS}


_STATISTICS = ("moving_mean", "moving_variance", "mean", "variance", "count")


@pytest.mark.parametrize("scale, center, first", [(False, True, "beta"), (True, False, "gamma")])
def test_settings_that_an_older_keras_did_not_have_are_off(scale, center, first):
    """Keras 3.12 has no renorm; the batch norms of Keras' InceptionV3 have no scale."""
    layer = KerasLayer("BatchNormalization", {"scale": scale, "center": center})
    assert variables_of("batch_normalization_7", 3, [layer]) == (first, "moving_mean", "moving_variance")
