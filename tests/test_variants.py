"""slim's nets as other libraries compute them: which source gets which variant, and that records keep it.

The functions themselves are compared with Keras' and PyTorch's in test_keras_nets.py and test_torch_nets.py.
"""

import json

import pytest
from test_layouts import outward

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.cli.convert import main as convert
from ckpt_tools.cli.plan import main as plan_main
from ckpt_tools.cli.plan import requested
from ckpt_tools.errors import SelectionError
from ckpt_tools.formats import Checkpoint
from ckpt_tools.layouts import WORLDS, layout_of
from ckpt_tools.layouts.reading import GRAPH_2015
from ckpt_tools.nets.opening import in_slims_names, recorded
from ckpt_tools.nets.registry import NETS, VARIANTS, get_net, register
from ckpt_tools.tensors import Tensor, Tensors
from ckpt_tools.train.options.training import Options


def without_values(specs, path="there"):
    """A checkpoint whose values nobody may ask for."""
    return Checkpoint(Tensors({name: Tensor(spec, lambda: pytest.fail("was read")) for name, spec in specs}), "", path)


def slims(name, classes=1000):
    return without_values((v.name, v.spec) for v in get_net(name).variables(classes))


def of(world, name):
    """The file of a net as `world` has it, without values."""
    source = slims(name)
    return source._replace(tensors=outward(world, get_net(name), source.tensors))


def test_every_net_that_is_near_has_a_variant_that_is_not():
    layouts = {(w, n): found for w in (*WORLDS, GRAPH_2015) for n in NETS if (found := layout_of(w, n))}
    assert len(layouts) > 30
    for (_, name), layout in layouts.items():
        assert layout.exact == name or VARIANTS[layout.exact].base == name
        assert bool(layout.near) == (layout.exact != name)
    assert {layout.exact for layout in layouts.values() if layout.near} == set(VARIANTS)


def test_a_variant_has_the_variables_of_its_net_and_a_cache_of_its_own():
    for variant in VARIANTS.values():
        net = NETS[variant.base]
        assert (variant.scope, variant.table, variant.end_points) == (net.scope, net.table, net.end_points)
        assert variant.identity != net.identity and variant.builder != net.builder
        assert get_net(variant.name) == variant and variant.family == net.family == net.name
    with pytest.raises(SelectionError, match="there already is a net called 'resnet_v1_50_keras'"):
        register(get_net("vgg_16")._replace(name="resnet_v1_50_keras"))
    with pytest.raises(SelectionError, match="did you mean resnet_v1_50_keras"):
        get_net("resnet_v1_50_kers")


@pytest.mark.parametrize(
    ("world", "name", "taken", "pixels"),
    [
        ("keras", "resnet_v1_50", "resnet_v1_50_keras", "caffe"),
        ("keras", "resnet_v2_101", "resnet_v2_101_keras", "inception"),
        ("torchvision", "resnet_v1_152", "resnet_v1_152_torch", "torch"),
        ("timm", "inception_v3", "inception_v3_torch", "inception"),
        ("keras", "vgg_16", "vgg_16", "vgg"),
    ],
)
def test_a_file_gets_the_net_that_computes_what_its_library_does(world, name, taken, pixels):
    source = of(world, name)
    asked = requested(Options(), source, 5)
    assert (asked.net.name, asked.net.preprocessing) == (taken, pixels)
    assert asked.origin.net == (taken if taken != name else "") and asked.origin.near == ()
    assert requested(Options(), source, None).classes == 1000
    named = requested(Options(net=name), source, 5)  # slim's own, if that is wanted
    assert named.net.name == name and named.origin.near == layout_of(world, name).near
    assert requested(Options(net=taken), source, 5)[2:] == asked[2:]


def test_a_plan_says_which_net_it_is(tmp_path, monkeypatch, capsys):
    pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    source = of("keras", "resnet_v2_50")
    monkeypatch.setattr("ckpt_tools.cli.plan.open_checkpoint", lambda path: source)
    assert plan_main(["k.h5", "--num-classes", "5", "--exclude", "logits", "--trainable", "logits"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "net          ResNet-50 v2 as Keras builds it, 5 classes"
    exact = "the net is resnet_v2_50_keras, which computes exactly what Keras does; slim's own is only close"
    assert f"note         {exact}" in lines
    assert plan_main(["k.h5", "--num-classes", "5", "--exclude", "logits", "--net", "resnet_v2_50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "net          slim ResNet-50 v2, 5 classes"
    assert any(line.startswith("note         nearly the same function: Keras: the first pooling") for line in lines)


# --- what the sidecar of a checkpoint keeps ---------------------------------------------------------------------------


def say(path, **record):
    path.with_name(f"{path.name}.provenance.json").write_text(json.dumps(record))
    return str(path)


def test_a_checkpoint_under_slims_names_is_what_its_sidecar_says(tmp_path):
    net = get_net("resnet_v1_50")
    first = say(tmp_path / "best.ckpt", net="resnet_v1_50_keras", preprocessing="caffe")
    found = recorded(first, net)
    assert (found.net, found.pixels) == ("resnet_v1_50_keras", "")  # caffe is the variant's own
    assert found.notes == (f"the net is resnet_v1_50_keras, as {first}.provenance.json says",)
    other = say(tmp_path / "other.ckpt", net="resnet_v1_50", preprocessing="caffe")
    assert (recorded(other, net).net, recorded(other, net).pixels) == ("", "caffe")
    assert recorded(other, net).notes == (f"images are scaled as caffe, as {other}.provenance.json says",)
    own = say(tmp_path / "own.ckpt", net="resnet_v1_50", preprocessing="vgg")
    stranger = say(tmp_path / "stranger.ckpt", net="inception_v3_torch")
    assert recorded(own, net) == recorded(stranger, net) == recorded(str(tmp_path / "none.ckpt"), net) is None
    edited = say(tmp_path / "edited.ckpt", source=[{"path": first}, {"path": other}])
    assert recorded(edited, net) == found
    say(tmp_path / "a.ckpt", source=str(tmp_path / "b.ckpt"))
    assert recorded(say(tmp_path / "b.ckpt", source=str(tmp_path / "a.ckpt")), net) is None  # a circle
    (tmp_path / "bad.ckpt.provenance.json").write_text("[")
    assert recorded(str(tmp_path / "bad.ckpt"), net) is None


def test_a_record_decides_unless_somebody_does(tmp_path):
    path = say(tmp_path / "best.ckpt", net="resnet_v1_50_torch", preprocessing="torch")
    source = slims("resnet_v1_50")._replace(path=path)
    assert requested(Options(), source, 5).net.name == "resnet_v1_50_torch"
    named = requested(Options(net="resnet_v1_50"), source, 5)
    assert (named.net.name, named.origin.net, named.origin.pixels) == ("resnet_v1_50", "", "torch")
    assert requested(Options(net="resnet_v1_50_torch"), source, 5).origin is None  # torch's pixels are its own
    assert requested(Options(net="resnet_v1_50_keras"), source, 5).origin.pixels == "torch"
    assert in_slims_names(source, "vgg_16") == (source, None)
    assert in_slims_names(source._replace(path="elsewhere")) == (source._replace(path="elsewhere"), None)


def test_converting_says_where_it_is_the_same_and_keeps_it(tmp_path, monkeypatch, capsys):
    """Thin values under the names of a whole net: from torchvision, to slim, and on to timm and Keras."""
    monkeypatch.chdir(tmp_path)
    import numpy as np

    net = get_net("resnet_v1_50")
    small = from_arrays({v.name: np.zeros(v.spec.shape, np.float16) for v in net.variables(3)})
    save_checkpoint(outward("torchvision", net, small), "t.safetensors")
    assert convert(["t.safetensors", "slim.ckpt", "--layout", "slim"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == (
        "function  the same in resnet_v1_50_torch, which is used here; nearly the same in slim's own net"
    )
    assert lines[4].startswith("          torchvision: the stride of a stage")
    sidecar = json.loads((tmp_path / "slim.ckpt.provenance.json").read_text())
    assert (sidecar["net"], sidecar["preprocessing"]) == ("resnet_v1_50_torch", "torch")
    assert in_slims_names(open_checkpoint("slim.ckpt"))[1].net == "resnet_v1_50_torch"
    for target, layout, said in (
        ("timm.safetensors", "timm", "the same"),
        ("keras.h5", "keras", "nearly the same"),
    ):
        assert convert(["slim.ckpt", target, "--layout", layout, "--dry-run"]) == 0
        assert f"function  {said}\n" in capsys.readouterr().out
    (tmp_path / "slim.ckpt.provenance.json").unlink()
    assert convert(["slim.ckpt", "timm.safetensors", "--layout", "timm", "--dry-run"]) == 0
    assert "function  nearly the same\n" in capsys.readouterr().out  # it is slim's own again


# --- the functions ----------------------------------------------------------------------------------------------------


def built(name, side):
    tf = pytest.importorskip("tensorflow").compat.v1
    from ckpt_tools.nets.graph import build_net

    with tf.Graph().as_default() as graph:
        made = build_net(get_net(name), tf.zeros([1, side, side, 3]), num_classes=3)
    return graph, made


def strides(graph):
    """Convolutions with a stride of 2, by their scope."""
    found = [op for op in graph.get_operations() if op.type == "Conv2D" and list(op.get_attr("strides"))[1] == 2]
    return [op.name.removeprefix("resnet_v1_50/").removesuffix("/Conv2D") for op in found]


def test_strides_lie_where_each_library_has_them():
    units = [f"block{block}/unit_1/bottleneck_v1" for block in (2, 3, 4)]
    shortcuts = [f"{unit}/{layer}" for unit in units for layer in ("shortcut", "conv2")]
    torchs, made = built("resnet_v1_50_torch", 64)
    assert strides(torchs) == ["conv1", *shortcuts]
    assert list(made.end_points) == [name for name in get_net("resnet_v1_50").end_points if name in made.end_points]
    assert {v.op.name for v in made.variables} == {row.name for row in get_net("resnet_v1_50").table}
    kerass, made = built("resnet_v1_50_keras", 64)
    assert strides(kerass) == ["conv1"]
    halved = [op for op in kerass.get_operations() if op.type == "MaxPool" and list(op.get_attr("ksize"))[1] == 1]
    assert [op.name.split("/")[1:3] for op in halved] == [[f"block{block}", "unit_1"] for block in (2, 3, 4)]
    assert {v.op.name for v in made.variables} == {row.name for row in get_net("resnet_v1_50").table}


def test_padding_lies_on_all_sides_and_counts():
    tf = pytest.importorskip("tensorflow").compat.v1
    import numpy as np
    from tf_slim import layers

    from ckpt_tools.nets.variants import _padded

    ones = np.ones((1, 4, 4, 1), np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        means = _padded(layers.avg_pool2d, ones, [3, 3], stride=1, padding="SAME")
        corners = _padded(layers.max_pool2d, np.arange(16.0).reshape(1, 4, 4, 1), [3, 3], stride=2, padding="SAME")
        valid = _padded(layers.avg_pool2d, ones, [3, 3], stride=1, padding="VALID")
        means, corners, valid = session.run([means, corners, valid])
    np.testing.assert_allclose(means[0, :2, :2, 0], [[4 / 9, 6 / 9], [6 / 9, 1]])
    np.testing.assert_array_equal(corners[0, :, :, 0], [[5, 7], [13, 15]])  # slim's: [[10, 11], [14, 15]]
    assert valid.shape == (1, 2, 2, 1)
