"""A conflict is raised if a net would ignore tensors of a restored layer; scales and biases are folded exactly."""

import json

import numpy as np
import pytest
import tiny_net

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.cli.edit import main as edit
from ckpt_tools.errors import RecipeError, SelectionError
from ckpt_tools.folding import Folding, fold, foldable
from ckpt_tools.nets.registry import get_net
from ckpt_tools.plan import Plan, PlanRules, Variable, make_plan
from ckpt_tools.plan.suggest import suggest
from ckpt_tools.recipe import as_data, parse_recipe
from ckpt_tools.surgery import Fold
from ckpt_tools.tensors import Spec

tiny_net.register()
F = "float32"
OUTPUTS = 8


def layer(*extra: str, weights: tuple[int, ...] = (3, 3, 4, OUTPUTS), scope: str = "net/conv") -> dict[str, Spec]:
    """A convolution with batch norm, and what else a file may hold of it."""
    own = ("BatchNorm/beta", "BatchNorm/moving_mean", "BatchNorm/moving_variance", *extra)
    return {f"{scope}/weights": Spec(F, weights)} | {f"{scope}/{name}": Spec(F, (OUTPUTS,)) for name in own}


def net_of(specs: dict[str, Spec]) -> list[Variable]:
    return [Variable(name, spec, "moving_" not in name) for name, spec in specs.items()]


def values_of(specs: dict[str, Spec], seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {name: random.normal(size=spec.shape).astype(spec.dtype) for name, spec in specs.items()}
    return {name: np.abs(array) + 0.5 if name.endswith("variance") else array for name, array in made.items()}


def causes(plan: Plan) -> list[str]:
    return [conflict.cause for conflict in plan.conflicts]


def computed(values: dict[str, np.ndarray], images: np.ndarray, scope: str = "net/conv") -> np.ndarray:
    """What the layer gives in float64, with whatever of gamma and biases the file has. Valid padding, stride 1."""
    wide = {name.removeprefix(f"{scope}/"): array.astype("float64") for name, array in values.items()}
    rows, columns = images.shape[1] - 2, images.shape[2] - 2
    patches = np.stack(
        [images[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)], axis=3
    )  # [batch, rows, columns, 9, channels]
    made = np.einsum("nrckx,kxo->nrco", patches, wide["weights"].reshape(9, -1, OUTPUTS)) + wide.get("biases", 0)
    made = (made - wide["BatchNorm/moving_mean"]) / np.sqrt(wide["BatchNorm/moving_variance"] + 0.001)
    return made * wide.get("BatchNorm/gamma", 1) + wide["BatchNorm/beta"]


@pytest.mark.parametrize(
    ("extra", "cause"),
    [
        ("BatchNorm/gamma", "scales that the net has no variable for"),
        ("biases", "biases in front of a batch norm"),
        ("BatchNorm/renorm_mean", "batch renormalisation"),
        ("pointwise_weights", "half of a separable layer"),
        ("mask", "parts of layers that the net has no variable for"),
    ],
)
def test_what_would_be_ignored_is_a_conflict(extra, cause):
    plan = make_plan(layer(extra), net_of(layer()))
    (conflict,) = plan.conflicts
    assert (conflict.cause, conflict.names) == (cause, (f"net/conv/{extra}",))
    assert f"{cause} (1 tensor)\n  net/conv/{extra}: " in plan.conflict_text()
    assert not make_plan(layer(extra), net_of(layer()), PlanRules(exclude=[f"net/conv/{extra}"])).conflicts


def test_an_inception_with_scales_has_94_of_them_in_one_conflict():
    net = get_net("inception_v3")
    source = {each.name: each.spec for each in net.variables(1001)}
    betas = [name for name in source if name.endswith("BatchNorm/beta") and "AuxLogits" not in name]
    source |= {name.replace("beta", "gamma"): source[name] for name in betas}
    plan = make_plan(source, net.variables(10), PlanRules(exclude=["Logits"], trainable=["Logits"]))
    (conflict,) = plan.conflicts
    assert len(conflict.names) == len(betas) == 94
    assert conflict.advice.startswith("--fold ")
    proposal = suggest(source, net.variables(10))
    assert proposal.to_config() == {
        "exclude": ["InceptionV3/Logits"],
        "trainable": ["InceptionV3/Logits"],
        "fold": True,
    }
    folded = make_plan(
        source, net.variables(10), PlanRules(exclude=["Logits"], trainable=["Logits"], fold=True)
    ).checked()
    assert sum(row.action == "adapt" for row in folded.rows) == 2 * 94
    assert Plan.from_json(json.loads(json.dumps(folded.to_json()))) == folded


@pytest.mark.parametrize(
    "names",
    [
        ["global_step", "net/mean_rgb"],  # beside the layer, not in it
        ["net/other/weights", "net/other/gamma"],  # of a layer that the net has not
        ["net/conv/weights/Momentum", "net/conv/BatchNorm/moving_mean/biased"],  # only training needs them
    ],
)
def test_what_belongs_to_no_layer_that_is_taken_is_no_conflict(names):
    source = layer() | {name: Spec(F, (OUTPUTS,)) for name in names}
    source |= {name: source["net/conv/weights"] for name in names if name.endswith("Momentum")}
    assert not make_plan(source, net_of(layer())).conflicts


def test_a_layer_with_another_conflict_has_no_second_one():
    wider = net_of(layer(weights=(3, 3, 4, 9)))
    assert "scales that the net has no variable for" not in causes(make_plan(layer("BatchNorm/gamma"), wider))


@pytest.mark.parametrize("extra", [("BatchNorm/gamma",), ("biases",), ("BatchNorm/gamma", "biases")])
@pytest.mark.parametrize("prefix", ["", "model/"])
def test_a_folded_layer_computes_what_the_whole_one_did(extra, prefix):
    from ckpt_tools.train.graph.restore import planned_tensors

    source = values_of(layer(*extra, scope=f"{prefix}net/conv"))
    source[f"{prefix}net/conv/weights"][..., 0] = 0
    if "BatchNorm/gamma" in extra:
        source[f"{prefix}net/conv/BatchNorm/gamma"][1] = 0  # and some are negative
    specs = from_arrays(source).specs()
    renames = [f"{prefix}net=net"] if prefix else []
    plan = make_plan(specs, net_of(layer()), PlanRules(renames=renames, fold=True)).checked()
    tensors = planned_tensors(plan, from_arrays(source), seed=0)
    images = np.random.default_rng(1).normal(size=(2, 6, 6, 4))
    wanted = computed(source, images, f"{prefix}net/conv")
    restored = {name: tensors[name].load() for name in tensors}
    np.testing.assert_allclose(computed(restored, images), wanted, rtol=1e-5, atol=1e-6)
    assert {array.dtype.name for array in restored.values()} == {F}
    without = {name.removeprefix(prefix): array for name, array in source.items() if not name.endswith(extra)}
    assert np.abs(computed(without, images) - wanted).max() > 0.1  # the comparison can fail


def test_a_net_that_has_gamma_keeps_it_when_biases_are_folded():
    plan = make_plan(
        layer("BatchNorm/gamma", "biases"), net_of(layer("BatchNorm/gamma")), PlanRules(fold=True)
    ).checked()
    assert plan.adaptations == {"net/conv/BatchNorm/moving_mean": Folding(None, "net/conv/biases", (-1,))}
    assert next(row.reason for row in plan.rows if row.action == "adapt") == "less net/conv/biases"


def test_folding_comes_before_other_adaptations():
    from ckpt_tools.train.graph.restore import planned_tensors

    source = values_of(layer("BatchNorm/gamma"))
    grey = net_of(layer(weights=(3, 3, 1, OUTPUTS)))
    plan = make_plan(from_arrays(source).specs(), grey, PlanRules(fold=True, adapt_input=True)).checked()
    assert plan.rows[0].rule == "--fold, --adapt-input"
    assert plan.rows[0].reason == "times net/conv/BatchNorm/gamma; 4 input channels summed"
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    made = planned_tensors(plan, from_arrays(source), seed=0)["net/conv/weights"].load()
    wanted = (source["net/conv/weights"] * source["net/conv/BatchNorm/gamma"]).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(made, wanted, rtol=1e-6)


def test_nothing_is_folded_into_weights_that_begin_afresh():
    plan = make_plan(layer("BatchNorm/gamma"), net_of(layer()), PlanRules(exclude=["net/conv/weights"], fold=True))
    assert causes(plan) == ["parts of layers that the net has no variable for"]


@pytest.mark.parametrize(
    ("name", "shape", "spread"),
    [
        ("weights", (3, 3, 2, 8), (1, 1, 1, 8)),
        ("weights", (16, 8), (1, 8)),
        ("depthwise_weights", (3, 3, 4, 2), (1, 1, 4, 2)),
        ("pointwise_weights", (1, 1, 4, 8), (1, 1, 1, 8)),
    ],
)
def test_where_a_scale_meets_the_outputs(name, shape, spread):
    specs = {f"c/{name}": Spec(F, shape)} | {f"c/BatchNorm/{n}": Spec(F, (8,)) for n in ("gamma", "moving_mean")}
    assert [each.spread for each in foldable(specs)] == [spread]
    transposed = {key.replace("c/", "Conv2d_transpose/"): spec for key, spec in specs.items()}
    if name == "weights":
        last_two = Spec(F, (*shape[:-2], shape[-1], shape[-2]))
        transposed["Conv2d_transpose/weights"] = last_two
        assert [each.spread for each in foldable(transposed)] == [(*spread[:-2], 8, 1)]


@pytest.mark.parametrize("scope", ["unit/preact", "unit/BatchNorm"])
def test_scales_without_weights_of_their_own_are_not_folded(scope):
    specs = {f"{scope}/{name}": Spec(F, (8,)) for name in ("gamma", "moving_mean")}
    specs |= {"unit/conv1/weights": Spec(F, (1, 1, 8, 8))}
    assert not list(foldable(specs))
    specs |= {"unit/weights": Spec(F, (1, 1, 8, 9)), "unit/kernel": Spec(F, (1, 1, 8, 8))}
    assert not list(foldable(specs))


def test_low_precision_is_folded_in_float32():
    import ml_dtypes

    gamma = np.array([1 / 3, 3], ml_dtypes.bfloat16)
    made = fold(np.full((1, 2), 1.5, ml_dtypes.bfloat16), gamma, np.array([0.5, 0.5], ml_dtypes.bfloat16), (1, 2))
    assert made.dtype == ml_dtypes.bfloat16
    assert made.tolist() == [[float(gamma[0]), 3.0]]


# --- ckpt-edit ------------------------------------------------------------------------------------------------------


def test_the_operation_and_the_option_give_the_same(tmp_path):
    from ckpt_tools.train.graph.restore import planned_tensors

    source = from_arrays(values_of(layer("BatchNorm/gamma", "biases")))
    save_checkpoint(source, tmp_path / "a.ckpt", format="v2")
    assert edit([str(tmp_path / "a.ckpt"), "-o", str(tmp_path / "b.ckpt"), "--fold", "gamma,biases"]) == 0
    edited = open_checkpoint(tmp_path / "b.ckpt").tensors
    planned = planned_tensors(make_plan(source.specs(), net_of(layer()), PlanRules(fold=True)), source, seed=0)
    assert sorted(edited) == sorted(planned)
    assert all(edited[name].load().tobytes() == planned[name].load().tobytes() for name in planned)
    assert edited["net/conv/weights"].load().tobytes() != source["net/conv/weights"].load().tobytes()


def test_the_rows_say_what_went_where():
    rows = Fold(("gamma",)).edit(from_arrays(values_of(layer("BatchNorm/gamma", "biases")))).rows
    assert {row.name: row.detail for row in rows} == {
        "net/conv/weights": "times net/conv/BatchNorm/gamma",
        "net/conv/BatchNorm/moving_mean": "times net/conv/BatchNorm/gamma",
        "net/conv/BatchNorm/gamma": "into net/conv/BatchNorm/moving_mean and net/conv/weights",
    }


def test_it_is_a_recipe_too():
    (made,) = parse_recipe("- fold: [gamma]")
    assert made == Fold(("gamma",))
    assert parse_recipe(json.dumps(as_data([Fold(select=("conv",))]))) == (Fold(select=("conv",)),)
    with pytest.raises(RecipeError, match="fold knows gamma and biases, not 'gama'; did you mean gamma"):
        parse_recipe("- fold: gama")


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ({}, "fold: no batch norm has gamma or biases that its layer's weights could take"),
        (
            {"net/conv/BatchNorm/gamma": (8,), "net/conv/weights/Momentum": (3, 3, 4, 8)},
            "fold: net/conv/weights/Momentum would no longer fit what is folded: strip optimizer and averages first",
        ),
        (
            {"net/conv/BatchNorm/gamma": (8,), "u/preact/gamma": (8,), "u/preact/moving_mean": (8,)},
            "fold: u/preact/gamma has no weights of its layer that could take it; `select` leaves it alone",
        ),
    ],
)
def test_what_cannot_be_folded_is_said(extra, problem):
    source = values_of(layer() | {name: Spec(F, shape) for name, shape in extra.items()})
    with pytest.raises(SelectionError) as caught:
        Fold()(from_arrays(source))
    assert str(caught.value) == problem


# --- ckpt-finetune --------------------------------------------------------------------------------------------------


def test_a_run_begins_with_the_folded_values(tmp_path):
    """The tiny net has no gamma; features of the run's start are those of the file's own net, built with TensorFlow."""
    tf = pytest.importorskip("tensorflow").compat.v1
    from ckpt_tools.nets.graph import build_net
    from ckpt_tools.train.graph.restore import assign, planned_tensors
    from ckpt_tools.train.options.training import Options
    from ckpt_tools.train.plan.job import make_job

    job = tiny_net.write_job(tmp_path)
    source = open_checkpoint(job["checkpoint"]).tensors
    arrays = {name: source[name].load() for name in source}
    random = np.random.default_rng(5)
    for name in tiny_net.BLOCKS:
        arrays[f"Tiny/{name}/BatchNorm/gamma"] = random.normal(1, 0.5, tiny_net.BLOCKS[name][1]).astype(F)
    save_checkpoint(from_arrays(arrays), tmp_path / "scaled.ckpt")
    options = {**job, "checkpoint": str(tmp_path / "scaled.ckpt"), "train_dir": str(tmp_path / "run")}
    made = make_job(Options(**options, fold=True))
    tensors = planned_tensors(made.plan, made.source.tensors, seed=0)
    images = random.normal(size=(2, 32, 32, 3)).astype(F)
    with tf.Graph().as_default(), tf.Session() as session:
        wanted = tf.constant(images)
        for name in tiny_net.BLOCKS:
            scope = f"Tiny/{name}"
            wanted = tf.nn.conv2d(wanted, arrays[f"{scope}/weights"], 2, "SAME")
            norm = [arrays[f"{scope}/BatchNorm/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")]
            wanted = tf.nn.relu(tf.nn.fused_batch_norm(wanted, *norm, epsilon=0.001, is_training=False)[0])
        wanted = session.run(tf.reduce_mean(wanted, [1, 2]))
        built = build_net(made.net, tf.constant(images), num_classes=made.classes)
        assign(session, {each.op.name: each for each in built.variables}, tensors)
        features = session.run(built.features)
    np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-5)
