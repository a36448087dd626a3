"""The frozen Inception of TensorFlow's first release, classify_image_graph_def.pb, with random weights.

Nodes, names and operations are those of the public file. They are written as protobufs, since TensorFlow's Python API
no longer creates its batch norm."""

from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf


class Graph2015:
    """`width` maps a number of channels to that of a thinner net, which is not run; `pool` is the pooling of the last
    module; with `scale` batch norms multiply by their gamma."""

    def __init__(self, classes=1008, width=lambda channels: channels, pool="MaxPool", scale=True, seed=0):
        self.definition, self.width, self.scale = tf.GraphDef(), width, scale
        self.random, self.channels = np.random.default_rng(seed), {}
        self.node("DecodeJpeg/contents", "Placeholder", dtype=tf.string)
        self.node("DecodeJpeg", "DecodeJpeg", "DecodeJpeg/contents", channels=3)
        self.node("Cast", "Cast", "DecodeJpeg", SrcT=tf.uint8, DstT=tf.float32)
        self.constant("ExpandDims/dim", np.int32(0))
        self.node("ExpandDims", "ExpandDims", "Cast", "ExpandDims/dim", T=tf.float32)
        self.constant("ResizeBilinear/size", np.int32([299, 299]))
        self.node("ResizeBilinear", "ResizeBilinear", "ExpandDims", "ResizeBilinear/size", T=tf.float32)
        self.constant("Sub/y", np.float32(128))
        self.node("Sub", "Sub", "ResizeBilinear", "Sub/y", T=tf.float32)
        self.constant("Mul/y", np.float32(1 / 128))
        self.node("Mul", "Mul", "Sub", "Mul/y", T=tf.float32)
        self.channels["Mul"] = 3
        self.body(pool)
        self.head("softmax", "softmax/weights", "softmax/biases", classes)

    def body(self, last_pool):
        net = self.conv("conv", "Mul", 32, (3, 3), 2, "VALID")
        net = self.conv("conv_1", net, 32, (3, 3), 1, "VALID")
        net = self.pool("pool", self.conv("conv_2", net, 64, (3, 3)), 3, 2, "VALID", "MaxPool")
        net = self.conv("conv_3", net, 80, (1, 1), 1, "VALID")
        net = self.pool("pool_1", self.conv("conv_4", net, 192, (3, 3), 1, "VALID"), 3, 2, "VALID", "MaxPool")
        for name, pooled in (("mixed", 32), ("mixed_1", 64), ("mixed_2", 64)):
            parts = [self.conv(f"{name}/conv", net, 64, (1, 1))]
            parts.append(self.chain(f"{name}/tower", net, (48, (1, 1)), (64, (5, 5))))
            parts.append(self.chain(f"{name}/tower_1", net, (64, (1, 1)), (96, (3, 3)), (96, (3, 3))))
            net = self.join(name, [*parts, self.pooled(f"{name}/tower_2", net, pooled)])
        parts = [self.conv("mixed_3/conv", net, 384, (3, 3), 2, "VALID")]
        tower = self.chain("mixed_3/tower", net, (64, (1, 1)), (96, (3, 3)))
        parts.append(self.conv("mixed_3/tower/conv_2", tower, 96, (3, 3), 2, "VALID"))
        net = self.join("mixed_3", [*parts, self.pool("mixed_3/pool", net, 3, 2, "VALID", "MaxPool")])
        for name, n in (("mixed_4", 128), ("mixed_5", 160), ("mixed_6", 160), ("mixed_7", 192)):
            parts = [self.conv(f"{name}/conv", net, 192, (1, 1))]
            parts.append(self.chain(f"{name}/tower", net, (n, (1, 1)), (n, (1, 7)), (192, (7, 1))))
            sides = ((n, (1, 1)), (n, (7, 1)), (n, (1, 7)), (n, (7, 1)), (192, (1, 7)))
            parts.append(self.chain(f"{name}/tower_1", net, *sides))
            net = self.join(name, [*parts, self.pooled(f"{name}/tower_2", net, 192)])
        tower = self.chain("mixed_8/tower", net, (192, (1, 1)))
        parts = [self.conv("mixed_8/tower/conv_1", tower, 320, (3, 3), 2, "VALID")]
        tower = self.chain("mixed_8/tower_1", net, (192, (1, 1)), (192, (1, 7)), (192, (7, 1)))
        parts.append(self.conv("mixed_8/tower_1/conv_3", tower, 192, (3, 3), 2, "VALID"))
        net = self.join("mixed_8", [*parts, self.pool("mixed_8/pool", net, 3, 2, "VALID", "MaxPool")])
        for name, kind in (("mixed_9", "AvgPool"), ("mixed_10", last_pool)):
            parts = [self.conv(f"{name}/conv", net, 320, (1, 1))]
            tower = self.chain(f"{name}/tower", net, (384, (1, 1)))
            parts += self.fork(f"{name}/tower/mixed", tower)
            tower = self.chain(f"{name}/tower_1", net, (448, (1, 1)), (384, (3, 3)))
            parts += self.fork(f"{name}/tower_1/mixed", tower)
            net = self.join(name, [*parts, self.pooled(f"{name}/tower_2", net, 192, kind)])
        self.pool("pool_3", net, 8, 1, "VALID", "AvgPool")
        self.constant("pool_3/_reshape/shape", np.int32([-1, self.channels["pool_3"]]))
        self.node("pool_3/_reshape", "Reshape", "pool_3", "pool_3/_reshape/shape", T=tf.float32, Tshape=tf.int32)

    def head(self, name, weights, biases, classes, read="", product="logits/MatMul", total="logits", sum_op="BiasAdd"):
        inputs = self.width(self.channels["pool_3"])
        self.constant(weights, self.normal((inputs, classes), np.sqrt(1 / inputs)))
        self.constant(biases, self.normal((classes,), 0.1))
        for each in (weights, biases) if read else ():
            self.node(each + read, "Identity", each, T=tf.float32)
        self.node(f"{name}/{product}", "MatMul", "pool_3/_reshape", weights + read, T=tf.float32)
        self.node(f"{name}/{total}", sum_op, f"{name}/{product}", biases + read, T=tf.float32)

    def normal(self, shape, size):
        return self.random.normal(0, size, shape).astype(np.float32)

    def node(self, name, op, *inputs, **attributes):
        made = self.definition.node.add(name=name, op=op, input=inputs)
        for key, value in attributes.items():
            attribute = made.attr[key]
            if isinstance(value, tf.DType):
                attribute.type = value.as_datatype_enum
            elif isinstance(value, bool):
                attribute.b = value
            elif isinstance(value, int):
                attribute.i = value
            elif isinstance(value, float):
                attribute.f = value
            elif isinstance(value, str):
                attribute.s = value.encode()
            else:
                attribute.list.i.extend(value)
        return name

    def constant(self, name, value):
        value = np.asarray(value)
        made = self.definition.node.add(name=name, op="Const")
        made.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
        made.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))

    def conv(self, name, before, channels, kernel, stride=1, padding="SAME"):
        inputs, outputs = self.width(self.channels[before]), self.width(channels)
        shape = (*kernel, inputs, outputs)
        self.constant(f"{name}/conv2d_params", self.normal(shape, np.sqrt(2 / np.prod(shape[:3]))))
        self.node(f"{name}/Conv2D", "Conv2D", before, f"{name}/conv2d_params",
                  T=tf.float32, strides=[1, stride, stride, 1], padding=padding)  # fmt: skip
        for word in ("beta", "moving_mean"):
            self.constant(f"{name}/batchnorm/{word}", self.normal((outputs,), 0.1))
        for word in ("gamma", "moving_variance"):
            self.constant(f"{name}/batchnorm/{word}", self.random.uniform(0.8, 1.2, outputs).astype(np.float32))
        places = (f"{name}/batchnorm/{word}" for word in ("moving_mean", "moving_variance", "beta", "gamma"))
        self.node(f"{name}/batchnorm", "BatchNormWithGlobalNormalization", f"{name}/Conv2D", *places,
                  T=tf.float32, variance_epsilon=0.001, scale_after_normalization=self.scale)  # fmt: skip
        self.node(f"{name}/CheckNumerics", "CheckNumerics", f"{name}/batchnorm", T=tf.float32, message="")
        self.node(f"{name}/control_dependency", "Identity", f"{name}/batchnorm", f"^{name}/CheckNumerics", T=tf.float32)
        self.node(name, "Relu", f"{name}/control_dependency", T=tf.float32)
        self.channels[name] = channels
        return name

    def pool(self, name, before, side, stride, padding, kind):
        self.channels[name] = self.channels[before]
        sides = {"ksize": [1, side, side, 1], "strides": [1, stride, stride, 1], "padding": padding}
        return self.node(name, kind, before, T=tf.float32, **sides)

    def pooled(self, name, before, channels, kind="AvgPool"):
        return self.conv(f"{name}/conv", self.pool(f"{name}/pool", before, 3, 1, "SAME", kind), channels, (1, 1))

    def chain(self, name, before, *layers):
        for number, (channels, kernel) in enumerate(layers):
            before = self.conv(f"{name}/conv_{number}" if number else f"{name}/conv", before, channels, kernel)
        return before

    def fork(self, name, before):
        return [self.conv(f"{name}/conv", before, 384, (1, 3)), self.conv(f"{name}/conv_1", before, 384, (3, 1))]

    def join(self, name, parts):
        self.channels[f"{name}/join"] = sum(self.channels[part] for part in parts)
        self.constant(f"{name}/join/concat_dim", np.int32(3))
        return self.node(f"{name}/join", "Concat", f"{name}/join/concat_dim", *parts, T=tf.float32, N=len(parts))

    def retrained(self, classes):
        """The graph as retrain.py leaves it: its own head in place of the softmax."""
        kept = [node for node in self.definition.node if not node.name.startswith("softmax")]
        del self.definition.node[:]
        self.definition.node.extend(kept)
        top = "final_training_ops"
        places = (f"{top}/weights/final_weights", f"{top}/biases/final_biases")
        self.head(top, *places, classes, "/read", "Wx_plus_b/MatMul", "Wx_plus_b/add", "Add")
        self.node("final_result", "Softmax", f"{top}/Wx_plus_b/add", T=tf.float32)
        return self

    def save(self, path):
        Path(path).write_bytes(self.definition.SerializeToString())
        return path
