"""Kinds of tensors, for names that real programs write and for names that only look like them."""

import pytest

from ckpt_tools.kinds import KINDS, Kind, kinds
from ckpt_tools.tensors import Spec

F, INT = "float32", "int64"
WEIGHT, STATISTIC, STEP, OTHER = Kind("weight"), Kind("statistic"), Kind("step"), Kind("other")


def kind_of(name, specs):
    return kinds({key: Spec(*spec) for key, spec in specs.items()})[name]


def slot(of, name):
    return Kind("slot", of, name)


MATRIX = (F, (4, 2))
TRAINED = {"net/weights": MATRIX, "net/biases": (F, (2,))}


@pytest.mark.parametrize(
    ("name", "spec", "expected"),
    [
        # TF 1: the variable's name, then the optimizer's
        ("net/weights/Momentum", MATRIX, slot("net/weights", "Momentum")),
        ("net/weights/Adam", MATRIX, slot("net/weights", "Adam")),
        ("net/weights/Adam_1", MATRIX, slot("net/weights", "Adam_1")),
        ("net/weights/RMSProp_3", MATRIX, slot("net/weights", "RMSProp_3")),
        ("net/weights/Adafactor", (F, (4,)), slot("net/weights", "Adafactor")),
        ("net/weights/adam_m", MATRIX, slot("net/weights", "adam_m")),
        ("net/weights/MyOwnOptimizer", MATRIX, slot("net/weights", "MyOwnOptimizer")),
        # with a name scope of the optimizer's in front
        ("train/net/weights/Adam", MATRIX, slot("net/weights", "Adam")),
        ("OptimizeLoss/net/weights/Momentum", MATRIX, slot("net/weights", "Momentum")),
        ("net/net/weights/Adam_1", MATRIX, slot("net/weights", "Adam_1")),
        ("training/Ftrl/net/weights/linear", MATRIX, slot("net/weights", "linear")),
        # Keras 2.11 and 3, Mesh TensorFlow
        ("Adam/m/net/weights", MATRIX, slot("net/weights", "m")),
        ("adam/net_weights_velocity", MATRIX, slot("net/weights", "velocity")),
        ("net/weights_slot_vr", (F, (4,)), slot("net/weights", "slot_vr")),
        ("my_optimizer/_variables/7", MATRIX, Kind("slot")),
        ("my_optimizer/_variables/0", (INT, ()), STEP),
        # scalars of optimizers
        ("beta1_power", (F, ()), slot(None, "beta1_power")),
        ("train/beta2_power_1", (F, ()), slot(None, "beta2_power_1")),
        ("OptimizeLoss/learning_rate", (F, ()), slot(None, "learning_rate")),
        ("training/Adagrad/decay", (F, ()), slot(None, "decay")),
        ("net/decay", (F, ()), WEIGHT),
        # averages
        ("net/weights/ExponentialMovingAverage", MATRIX, Kind("average", "net/weights")),
        ("train/net/weights/ExponentialMovingAverage_1", MATRIX, Kind("average", "net/weights")),
        ("ema/net/weights", MATRIX, Kind("average", "net/weights")),
        ("net/ema/weights", MATRIX, Kind("average", "net/weights")),
        ("net/weights/ExponentialMovingAverage/biased", MATRIX, Kind("average")),
        ("total_loss/avg", (F, ()), Kind("average")),
        # what batch norm keeps
        ("net/BatchNorm/moving_mean", (F, (2,)), STATISTIC),
        ("net/BatchNorm/moving_variance/local_step", (F, ()), STATISTIC),
        ("net/bn/renorm_mean_weight", (F, ()), STATISTIC),
        ("net/bn/moments/Squeeze_1/ExponentialMovingAverage", (F, (2,)), STATISTIC),
        ("net/bn0/mean/EMA", (F, (2,)), STATISTIC),
        ("net/batch_normalization_3/mean", (F, (2,)), STATISTIC),
        ("net/mean", (F, (2,)), WEIGHT),
        ("net/weights_quant/min", (F, ()), STATISTIC),
        # steps
        ("global_step", (INT, ()), STEP),
        ("mnist_cnn/Global_Step", ("int32", ()), STEP),
        ("global_step_1", ("int32", (1,)), STEP),
        ("save_counter/.ATTRIBUTES/VARIABLE_VALUE", (INT, ()), STEP),
        ("Adam/iterations:0", (INT, ()), STEP),
        ("net/step", (F, (2,)), WEIGHT),
        # others
        ("vocabulary", ("string", (100,)), OTHER),
        ("keras_api/metrics/0/total/.ATTRIBUTES/VARIABLE_VALUE", (F, ()), OTHER),
        ("Variable", ("int32", ()), OTHER),
        ("initialised", ("bool", ()), OTHER),
        ("ids", (INT, (5,)), OTHER),
        ("quantised/weights", ("uint8", (3, 3)), WEIGHT),
        ("half/scale", ("bfloat16", ()), WEIGHT),
        # names that only look like slots: no such variable, or another shape
        ("people/Adam", MATRIX, WEIGHT),
        ("Momentum/weights", MATRIX, WEIGHT),
        ("net/weights/Adam", (F, (9, 9)), WEIGHT),
        ("attention/v", MATRIX, WEIGHT),
        ("attention/q/m/weights", (F, (9, 9)), WEIGHT),
        ("ema/other/weights", MATRIX, WEIGHT),
    ],
)
def test_beside_a_trained_layer(name, spec, expected):
    assert kind_of(name, {**TRAINED, name: spec}) == expected
    assert expected.kind in KINDS


def test_a_statistic_has_an_average_of_its_own():
    specs = {"bn/moving_mean": (F, (2,)), "bn/moving_mean/ExponentialMovingAverage": (F, (2,))}
    assert kind_of("bn/moving_mean/ExponentialMovingAverage", specs) == Kind("average", "bn/moving_mean")


def test_zero_debiased_statistics_under_a_doubled_scope():
    base = {"net/BatchNorm/moving_mean": (F, (2,))}
    name = "net/BatchNorm/net/BatchNorm/moving_mean/biased"
    assert kind_of(name, {**base, name: (F, (2,))}) == STATISTIC


def test_slots_whose_variable_is_in_another_file():
    assert kind_of("b/w/Adam", {"a": MATRIX, "a/Adam": MATRIX, "b/w/Adam": MATRIX}) == slot(None, "Adam")
    assert kind_of("b/w/Adam_1", {"b/w/Adam": MATRIX, "b/w/Adam_1": MATRIX}) == slot(None, "Adam_1")
    assert kind_of("b/w/Adam", {"b/w/Adam": MATRIX}) == WEIGHT


def test_object_based_names():
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    specs = {
        f"layer/kernel{value}": MATRIX,
        f"layer/kernel/.OPTIMIZER_SLOT/opt/m{value}": MATRIX,
        f"opt/beta_1{value}": (F, ()),
        f"opt/iter{value}": (INT, ()),
        f"layer/beta_1{value}": (F, ()),
        "_CHECKPOINTABLE_OBJECT_GRAPH": ("string", ()),
    }
    assert list(kinds({name: Spec(*spec) for name, spec in specs.items()}).values()) == [
        WEIGHT,
        slot(f"layer/kernel{value}", "m"),
        slot(None, "beta_1"),
        STEP,
        WEIGHT,
        OTHER,
    ]


def test_stored_keys_tell_what_names_do_not():
    keys = {"Variable": "step/.ATTRIBUTES/VARIABLE_VALUE", "w": "w/.ATTRIBUTES/VARIABLE_VALUE"}
    keys["Variable_1"] = "w/.OPTIMIZER_SLOT/opt/m/.ATTRIBUTES/VARIABLE_VALUE"
    specs = {"Variable": Spec(INT, ()), "w": Spec(F, (2,)), "Variable_1": Spec(F, (2,)), "other": Spec(INT, ())}
    assert list(kinds(specs, keys).values()) == [STEP, WEIGHT, slot("w", "m"), OTHER]
    assert kinds(specs)["Variable"] == OTHER


def test_keras_names_end_in_an_output_number():
    found = kinds({"dense/kernel:0": Spec(F, (4, 2)), "training/Adam/dense/kernel/m:0": Spec(F, (4, 2))})
    assert list(found.values()) == [WEIGHT, slot("dense/kernel:0", "m")]


@pytest.mark.parametrize("name", ["Adam", "/", "", "a//Adam", ":0", "/.OPTIMIZER_SLOT/", "_slot_vr", "_m", "x/biased"])
def test_odd_names_are_no_error(name):
    assert kind_of(name, {name: MATRIX}).kind in KINDS


def test_no_names():
    assert kinds({}) == {}
