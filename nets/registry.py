"""The nets of slim's family, and which of them a checkpoint holds. Nothing here imports TensorFlow.

>>> net = get_net("inception_v3")
>>> net.scope, net.image_size, net.classes, net.head_layer
('InceptionV3', 299, 1001, 'InceptionV3/Logits/Conv2d_1c_1x1')
>>> net.variables(10)[-1].spec
Spec(dtype='float32', shape=(10,))
"""

from __future__ import annotations

from collections.abc import Mapping

from ckpt_tools.errors import SelectionError, nearest
from ckpt_tools.tensors import Spec

from . import recognition
from .net import Net
from .recognition import Recognised
from .vectors import vectors_net_called


def _inception(version: int, image_size: int, first: str, last: str, auxiliary: tuple[str, ...] = ()) -> Net:
    name, scope = f"inception_v{version}", f"InceptionV{version}"
    shipped = version < 4
    return Net(
        name=name,
        title=f"slim {scope}",
        scope=scope,
        landmark=first,
        builder=f"tf_slim.nets.inception.{name}" if shipped else f"ckpt_tools.nets.{name}.{name}",
        image_size=image_size,
        preprocessing="inception",
        head="Logits",
        last_layer=f"Logits/{last}",
        classes=1001,
        class_offset=0,
        auxiliary=auxiliary,
    )


def _resnet(version: int, depth: int) -> Net:
    name = f"resnet_v{version}_{depth}"
    from_caffe = version == 1  # the published v1 files; those of v2 were trained with slim's Inception pipeline
    return Net(
        name=name,
        title=f"slim ResNet-{depth} v{version}",
        scope=name,
        landmark=f"block1/unit_1/bottleneck_v{version}/conv1/weights",
        builder=f"tf_slim.nets.resnet_v{version}.{name}",
        image_size=224,
        preprocessing="vgg" if from_caffe else "inception",
        head="logits",
        last_layer="logits",
        classes=1000 if from_caffe else 1001,
        class_offset=1 if from_caffe else 0,
    )


def _inception_resnet_v2() -> Net:
    return _inception(4, 299, "Repeat/block35_1/Conv2d_1x1/weights", "Logits", ("AuxLogits",))._replace(
        name="inception_resnet_v2",
        title="slim InceptionResnetV2",
        scope="InceptionResnetV2",
        builder="ckpt_tools.nets.inception_resnet_v2.inception_resnet_v2",
    )


def _mobilenet(version: int, percent: int = 100) -> Net:
    """`percent` of the channels; the published files of all widths have one scope. Sizes from 96 to 224 pixels were
    published, and the weights do not depend on them."""
    full = percent == 100
    first = "Conv2d_1_depthwise" if version == 1 else "expanded_conv/depthwise"
    name = f"mobilenet_v{version}" + ("" if full else f"_{percent:03}")
    return Net(
        name=name,
        title=f"slim MobilenetV{version}" + ("" if full else f" {percent / 100:g}"),
        scope=f"MobilenetV{version}",
        landmark=f"{first}/depthwise_weights",
        builder=f"ckpt_tools.nets.mobilenet_v{version}.{name}",
        image_size=224,
        preprocessing="inception",
        head="Logits",
        last_layer="Logits/Conv2d_1c_1x1",
        classes=1001,
        class_offset=0,
    )


def _nasnet_mobile() -> Net:
    """The published file has no scope around the net."""
    return Net(
        name="nasnet_mobile",
        title="slim NASNet-A mobile",
        scope="",
        landmark="cell_stem_0/comb_iter_0/left/separable_5x5_1/depthwise_weights",
        builder="ckpt_tools.nets.nasnet.nasnet_mobile",
        image_size=224,
        preprocessing="inception",
        head="final_layer",
        last_layer="final_layer/FC",
        classes=1001,
        class_offset=0,
        auxiliary=("aux_7",),
    )


def _for_small_images(name: str, title: str, image_size: int, last: str) -> Net:
    """Never published: 10 classes are those of CIFAR-10 and of MNIST."""
    return Net(
        name=name,
        title=f"slim {title}",
        scope=title,
        landmark="fc3/weights",
        builder=f"ckpt_tools.nets.cifarnet.{name}",
        image_size=image_size,
        preprocessing=name,
        head=last,
        last_layer=last,
        classes=10,
        class_offset=0,
    )


def _small_resnet() -> Net:
    """Ours, never published: as many classes as it is trained on."""
    return _resnet(1, 14)._replace(
        title="small slim ResNet-14 v1",
        builder="ckpt_tools.nets.small_resnet.resnet_v1_14",
        image_size=64,
        preprocessing="inception",
    )


def _fully_connected(name: str, title: str, module: str, landmark: str, image_size: int = 224) -> Net:
    return Net(
        name=name,
        title=title,
        scope=name,
        landmark=landmark,
        builder=f"tf_slim.nets.{module}.{name}",
        image_size=image_size,
        preprocessing="vgg",
        head="fc8",
        last_layer="fc8",
        classes=1000,
        class_offset=1,
    )


NETS: dict[str, Net] = {
    net.name: net
    for net in (
        _inception(1, 224, "Conv2d_1a_7x7/weights", "Conv2d_0c_1x1"),
        _inception(2, 224, "Conv2d_1a_7x7/depthwise_weights", "Conv2d_1c_1x1"),
        _inception(3, 299, "Conv2d_1a_3x3/weights", "Conv2d_1c_1x1", ("AuxLogits",)),
        _inception(4, 299, "Mixed_3a/Branch_1/Conv2d_0a_3x3/weights", "Logits", ("AuxLogits",)),
        _inception_resnet_v2(),
        *(_resnet(version, depth) for version in (1, 2) for depth in (50, 101, 152, 200)),
        _small_resnet(),
        _fully_connected("vgg_a", "slim VGG-11", "vgg", "conv1/conv1_1/weights"),
        _fully_connected("vgg_16", "slim VGG-16", "vgg", "conv1/conv1_1/weights"),
        _fully_connected("vgg_19", "slim VGG-19", "vgg", "conv1/conv1_1/weights"),
        _fully_connected("alexnet_v2", "slim AlexNet v2", "alexnet", "conv1/weights"),
        _fully_connected("overfeat", "slim OverFeat", "overfeat", "conv1/weights", 231),
        *(_mobilenet(1, percent) for percent in (100, 75, 50, 25)),
        *(_mobilenet(2, percent) for percent in (100, 140, 130, 75, 50, 35)),
        _nasnet_mobile(),
        _for_small_images("cifarnet", "CifarNet", 32, "logits"),
        _for_small_images("lenet", "LeNet", 28, "fc4"),
    )
}


def _variant(name: str, suffix: str, whose: str, preprocessing: str) -> Net:
    """A net as another library computes it, whose published weights have 1000 classes, or 1008."""
    net = NETS[name]
    return net._replace(
        name=f"{name}_{suffix}",
        base=name,
        title=f"{net.title.removeprefix('slim ')} as {whose} it",
        landmark="",  # its files have the names of the net itself
        builder=f"ckpt_tools.nets.variants.{name}_{suffix}",
        preprocessing=preprocessing,
        classes=1008 if suffix == "2015" else 1000,
        class_offset=0 if suffix == "2015" else 1,
    )


VARIANTS: dict[str, Net] = {
    net.name: net
    for net in (
        *(_variant(f"resnet_v1_{depth}", "keras", "Keras builds", "caffe") for depth in (50, 101, 152)),
        *(_variant(f"resnet_v1_{depth}", "torch", "PyTorch builds", "torch") for depth in (50, 101, 152)),
        *(_variant(f"resnet_v2_{depth}", "keras", "Keras builds", "inception") for depth in (50, 101, 152)),
        _variant("nasnet_mobile", "keras", "Keras builds", "inception"),
        _variant("inception_v3", "torch", "PyTorch builds", "inception"),
        _variant("inception_v3", "2015", "the 2015 graph has", "lenet"),
    )
}


def register(net: Net) -> Net:
    """Makes a net known by its name: to --net, and, where it has a landmark, to the recognition of checkpoints.

    >>> from ckpt_tools.nets.net import TableRow
    >>> def tower(images, num_classes, is_training, dropout_keep_prob, scope):
    ...     "Layers of tf_slim in `scope`; returns the logits and the end points, as slim's builders do."
    >>> rows = (TableRow("Tower/conv/weights", (3, 3, 3, 8), True), TableRow("Tower/fc/weights", (8, -1), True))
    >>> tower = Net("tower", "Tower", "Tower", "", tower, 32, "inception", "fc", "fc", 10, 0, rows=rows)
    >>> register(tower).variables(5)[1].spec
    Spec(dtype='float32', shape=(8, 5))
    >>> NETS.pop("tower").feature_channels
    8

    Raises SelectionError for a name that another net has.
    """
    if {**VARIANTS, **NETS}.get(net.name, net) != net:
        raise SelectionError(f"there already is a net called {net.name!r}", advice="Give it another name.")
    NETS[net.name] = net
    return net


def names_by_scope() -> dict[str, str]:
    """Scope -> the name of its net; the first one's where several have one scope, as MobileNets of several widths.

    >>> names_by_scope()["InceptionV3"], names_by_scope()["MobilenetV2"]
    ('inception_v3', 'mobilenet_v2')
    """
    return {net.scope: net.name for net in reversed(NETS.values()) if net.scope}


def get_net(name: str) -> Net:
    """The net of this name, as tf_slim names its builders. Raises SelectionError that names the nearest ones."""
    found = NETS.get(name) or VARIANTS.get(name) or vectors_net_called(name)
    if found is None:
        advice = f"Use one of {', '.join(NETS)}."
        raise SelectionError(f"no net is called {name!r}{nearest(name, [*NETS, *VARIANTS])}", advice=advice)
    return found


def find_net(name: str | None, specs: Mapping[str, Spec], path: str) -> Net:
    """The net that is named, or the one that names and shapes of the source at `path` tell.

    Raises SelectionError where they tell none, or one that is not among the nets here.
    """
    if name is not None:
        return get_net(name)
    found = recognise(specs)
    if found and found.net:
        return found.net
    if found is None:
        raise SelectionError(
            "cannot tell which net this is", path=path, advice=f"Give its --graph, or --net: {', '.join(NETS)}."
        )
    raise SelectionError(f"cannot be taken as it is: {found}", path=path, advice=_advice(found))


def _advice(found: Recognised) -> str:
    """What to do with a source that is none of the nets here, or has the names of another library."""
    if "2015" in found.phrase:
        return "Give --net inception_v3; ckpt-plan SRC --net inception_v3 --suggest proposes the names to --rename."
    if "names, looks like" in found.phrase:
        return (
            "A whole net of Keras, torchvision or timm is taken as it is; this one lacks layers, or has others: "
            "ckpt-inspect SRC lists them, ckpt-edit SRC --recipe FILE gives them slim's names and axes."
        )
    return f"The nets here are {', '.join(NETS)}; ckpt-inspect, ckpt-edit and ckpt-convert take any checkpoint."


def recognise(specs: Mapping[str, Spec]) -> Recognised | None:
    """The net that a checkpoint's names and shapes are of, or None; no values are read.

    >>> specs = {variable.name: variable.spec for variable in get_net("vgg_16").variables(37)}
    >>> str(recognise(specs))
    'slim VGG-16, 37 classes'
    """
    return recognition.recognise(specs, NETS.values())
