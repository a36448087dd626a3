"""--precision and --xla: below float32 where requested, float32 where necessary; exact resume."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny_net
from telling import lines_to

from ckpt_tools import open_checkpoint
from ckpt_tools.train.graph import precision
from ckpt_tools.train.graph.restore import changed_tensors
from ckpt_tools.train.graph.update import apply_gradients
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run.finetune import finetune
from ckpt_tools.train.run.run_directory import RunDirectory


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_net.write_job(tmp_path_factory.mktemp("precision"), optimizer="sgd", learning_rate=0.01, log_steps=1)


@pytest.fixture(scope="module")
def plain(job, tmp_path_factory):
    """Three steps in float32: the folder of the run."""
    run = tmp_path_factory.mktemp("float32") / "run"
    finetune(Options(**job, train_dir=str(run), steps=3))
    return run


def losses(run):
    return [float(row["loss"]) for row in RunDirectory(run).metrics()]


def change(job, run, step):
    """What training added to the weights of each layer, as one vector each."""
    source, saved = open_checkpoint(job["checkpoint"]).tensors, open_checkpoint(run / f"model.ckpt-{step}").tensors
    names = [name for name in source if name.endswith("/weights") and "Logits" not in name]
    return {name: (saved[name].load() - source[name].load()).ravel() for name in names}


def test_options_name_the_precisions():
    with pytest.raises(Exception, match=r"--precision bfloat61: must be one of .*did you mean bfloat16"):
        Options(precision="bfloat61")


@pytest.mark.parametrize(("kind", "tolerance"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_training_is_near_that_in_float32(job, plain, tmp_path, kind, tolerance):
    run = tmp_path / "run"
    finetune(Options(**job, precision=kind, train_dir=str(run), steps=3))
    found, expected = losses(run), losses(plain)
    assert found == pytest.approx(expected, rel=tolerance)
    assert found != expected  # it was computed in something else
    for name, wanted in change(job, plain, 3).items():
        had = change(job, run, 3)[name]
        assert np.dot(had, wanted) / np.linalg.norm(had) / np.linalg.norm(wanted) > 0.98, name
        assert np.linalg.norm(had) == pytest.approx(np.linalg.norm(wanted), rel=0.1), name


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_what_is_saved_is_what_a_run_in_float32_saves(job, plain, tmp_path, kind):
    run = tmp_path / "run"
    finetune(Options(**job, precision=kind, train_dir=str(run), steps=1))
    usual = open_checkpoint(plain / "model.ckpt-3").tensors.specs()
    specs = open_checkpoint(run / "model.ckpt-1").tensors.specs()
    extra = {name: specs[name] for name in specs if name not in usual}
    assert {name: specs[name] for name in usual} == usual
    assert set(extra) == ({"loss_scale", "loss_scale/good_steps"} if kind == "float16" else set())
    load_with_saver(run / "model.ckpt-1")


def load_with_saver(path):
    """A plain tf.train.Saver takes the file into the net as slim builds it."""
    import tensorflow.compat.v1 as tf

    from ckpt_tools.nets.graph import build_net
    from ckpt_tools.nets.registry import get_net

    with tf.Graph().as_default(), tf.Session() as session:
        build_net(get_net("tiny"), tf.placeholder(tf.float32, [None, 32, 32, 3]), num_classes=3)
        tf.train.Saver().restore(session, str(path))


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
def test_only_the_backbone_computes_in_less(job, tmp_path, kind):
    import tensorflow.compat.v1 as tf

    model = build(Options(**job, precision=kind, train_dir=str(tmp_path)))
    tower = model.training
    assert {tower.end_points[name].dtype.name for name in tiny_net.BLOCKS} == {kind}
    assert {tower.features.dtype, tower.logits.dtype, model.step.loss.dtype} == {tf.float32}
    assert {v.dtype.base_dtype for v in model.variables.values()} <= {tf.float32, tf.int64, tf.int32}
    logits = next(op for op in model.graph.get_operations() if op.name.startswith("training/") and "Logits" in op.name
                  and op.type == "Conv2D")  # fmt: skip
    assert {tensor.dtype for tensor in logits.inputs} == {tf.float32}


def build(options):
    """The graph of a run with these options."""
    import tensorflow.compat.v1 as tf

    from ckpt_tools.train.cache.feeding import build_graph
    from ckpt_tools.train.data.pipeline import Unreadable
    from ckpt_tools.train.graph.devices import ONE_DEVICE
    from ckpt_tools.train.plan.job import make_job

    job = make_job(replace(options, cache="off"))
    with tf.Graph().as_default():
        return build_graph(job, ONE_DEVICE, None, Unreadable(), length=job.total).model


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_transfer_values_are_kept_and_fed_in_the_precision(job, tmp_path, kind):
    options = {**job, "precision": kind, "trainable": ("Conv_3,Logits",), "steps": 4}
    said = []
    finetune(Options(**options, train_dir=str(tmp_path / "cached"), cache="require"), lines_to(said))
    assert any(line.startswith("cache          training/") or "Conv_2" in line for line in said)
    finetune(Options(**options, train_dir=str(tmp_path / "plain"), cache="off"))
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "plain"), rel=1e-2)


# --- the loss scale ------------------------------------------------------------------------------------------------


def updates(gradients, monkeypatch, grows_after=2):
    """Weight, scale, good steps and the norm that is reported, after each of these gradients of one weight."""
    import tensorflow.compat.v1 as tf

    monkeypatch.setattr(precision, "GROWS_AFTER", grows_after)
    with tf.Graph().as_default(), tf.Session() as session:
        step, weight = tf.train.get_or_create_global_step(), tf.get_variable("weight", initializer=1.0)
        scale = precision.make_loss_scale("float16")
        fed = tf.placeholder(tf.float32, [])
        options = Options(optimizer="momentum", momentum=0.5)
        update = apply_gradients([(fed, weight)], options, {}, tf.constant(0.1), step, scale=scale)
        session.run(tf.global_variables_initializer())
        for number, gradient in enumerate(gradients):
            _, norms = session.run([update.operation, update.gradient_norms], {fed: gradient})
            values = session.run([weight, scale.value, scale.good_steps, step])
            assert values.pop() == number + 1
            yield (*values, norms[0])


def test_a_step_that_overflows_is_left_out_and_halves_the_scale(monkeypatch):
    first, overflow, third = updates([1.0, math.inf, 1.0], monkeypatch)
    assert first == (pytest.approx(0.9), 2.0**15, 1, 1.0)
    assert overflow == (pytest.approx(0.9), 2.0**14, 0, 0.0)
    assert third == (pytest.approx(0.9 - 0.1 * 1.5), 2.0**14, 1, 1.0)  # the momentum of the first step is still there


def test_good_steps_double_the_scale(monkeypatch):
    found = list(updates([0.0] * 4, monkeypatch))
    assert [row[1:3] for row in found] == [(2.0**15, 1), (2.0**16, 0), (2.0**16, 1), (2.0**17, 0)]


def test_a_gradient_that_is_never_a_number_is_reported_in_the_end(monkeypatch):
    found = list(updates([math.nan] * 16, monkeypatch))
    assert [row[1] for row in found] == [*(2.0**n for n in range(14, -1, -1)), 1.0]
    assert [row[3] for row in found[:15]] == [0.0] * 15
    assert math.isnan(found[15][3])
    assert {row[0] for row in found} == {1.0}


def test_scaling_changes_no_gradient():
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        scale = precision.make_loss_scale("float16")
        session.run(tf.global_variables_initializer())
        found = precision.unscaled([tf.constant([2.0, 4.0]) * scale.value, None], scale)
        np.testing.assert_array_equal(session.run(found[0]), [2.0, 4.0])
        assert found[1] is None


def test_stopped_and_continued_in_float16(job, tmp_path):
    options = {**job, "precision": "float16", "optimizer": "adam", "dropout": 0.2}
    finetune(Options(**options, train_dir=str(tmp_path / "whole"), steps=9))
    for steps in (5, 9):
        finetune(Options(**options, train_dir=str(tmp_path / "parts"), steps=steps))
    whole, parts = (open_checkpoint(tmp_path / name / "model.ckpt-9").tensors for name in ("whole", "parts"))
    assert changed_tensors(whole, parts) == []
    assert whole["loss_scale/good_steps"].load() == 9


# --- XLA -----------------------------------------------------------------------------------------------------------


def test_compiled_steps_are_the_same_up_to_rounding(job, plain, tmp_path):
    run = tmp_path / "run"
    finetune(Options(**job, xla=True, train_dir=str(run), steps=3))
    assert losses(run) == pytest.approx(losses(plain), rel=1e-5)
    for name, wanted in change(job, plain, 3).items():
        np.testing.assert_allclose(change(job, run, 3)[name], wanted, rtol=1e-3, atol=1e-6)


def test_the_net_and_its_gradients_are_compiled_and_nothing_is_without_xla(job, tmp_path):
    for xla in (True, False):
        graph = build(Options(**job, xla=xla, train_dir=str(tmp_path))).graph.as_graph_def()
        compiled = {node.op for node in graph.node if node.attr["_XlaCompile"].b}
        wanted = {"Conv2D", "Conv2DBackpropFilter", "FusedBatchNormV3", "FusedBatchNormGradV3"}
        assert compiled >= wanted if xla else not compiled
