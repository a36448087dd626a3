"""--precision auto: below float32 if that is native and gives nearly the same values for the user's own images."""

import json
from collections import Counter

import numpy as np
import pytest
import tiny_net
from telling import lines_to

from ckpt_tools import open_checkpoint
from ckpt_tools.errors import RecipeError
from ckpt_tools.train.graph import folded, native, towers
from ckpt_tools.train.graph.native import candidate, compared
from ckpt_tools.train.graph.restore import changed_tensors
from ckpt_tools.train.options.training import Choice, Options
from ckpt_tools.train.run.finetune import finetune
from ckpt_tools.train.use.evaluate import EvaluateOptions, evaluate
from ckpt_tools.train.use.export import ExportOptions, export
from ckpt_tools.train.use.features import FeatureOptions, write_features
from ckpt_tools.train.use.predict import PredictOptions, predict


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_net.write_job(tmp_path_factory.mktemp("native"), learning_rate=0.05, steps=6, trainable=("Logits",))


@pytest.fixture
def bfloat16_here(monkeypatch):
    """A processor that has bfloat16, and a data set of 60 images that is worth looking into."""
    monkeypatch.setattr(native, "native", lambda device: "bfloat16")
    monkeypatch.setattr(native, "WORTH", 10)


def run(job, folder, **options):
    """What a run said, the record that it keeps, its variables."""
    said = []
    finetune(Options(**{**job, **options}, train_dir=str(folder)), lines_to(said))
    record = json.loads((folder / "plan.json").read_text())["precision"]
    line = [line for line in said if line.startswith("precision")]
    return line, record, open_checkpoint(folder / "best.ckpt").tensors


# --- what is chosen ------------------------------------------------------------------------------------------------


def test_what_is_asked_for_is_taken(bfloat16_here):
    assert candidate("float32", "auto", 1000) == Choice("float32", "as asked for")
    assert candidate("float16", "auto", 1).precision == "float16"


def test_auto_takes_what_is_native_for_many_images(bfloat16_here, monkeypatch):
    assert candidate("auto", "auto", 10) == Choice("bfloat16", "native here", open=True)
    assert candidate("auto", "auto", 9) == Choice("float32", "fewer than 10 images")
    monkeypatch.setattr(native, "native", lambda device: None)
    assert candidate("auto", "auto", 10) == Choice("float32", "no format below float32 is native on this device")


@pytest.mark.parametrize(
    ("flags", "found"),
    [("fpu avx512f amx_bf16 amx_tile", "bfloat16"), ("avx512_bf16", "bfloat16"), ("avx512f avx512_fp16", None)],
)
def test_a_processor_is_asked_by_its_flags(monkeypatch, tmp_path, flags, found):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t:\n")
    monkeypatch.setattr(native, "Path", lambda path: tmp_path / path.rpartition("/")[2])
    assert native.native("cpu") == found
    (tmp_path / "cpuinfo").unlink()  # no Linux
    assert native.native("cpu") is None


def test_the_comparison_allows_rounding_and_nothing_else():
    open_choice, random = Choice("bfloat16", "native here", open=True), np.random.default_rng(0)
    values = random.normal(size=(8, 4, 50))
    near = values * (1 + random.normal(size=values.shape) * 0.003)
    assert compared(open_choice, [values], [near]).precision == "bfloat16"
    assert not compared(open_choice, [values], [near]).open
    far = values.copy()
    far[3, 2, 1] += 0.03 * np.abs(values).max()
    for wrong in (far, values[::-1], np.where(values > 3, np.nan, values), np.full_like(values, np.inf)):
        found = compared(open_choice, [values, values], [values, wrong])
        assert found.precision == "float32", found
        assert found.why.startswith(
            "bfloat16 is" if np.isfinite(wrong).all() else "bfloat16 gives values that are not finite"
        )


# --- training ------------------------------------------------------------------------------------------------------


def test_transfer_values_are_computed_in_what_is_native(job, tmp_path, bfloat16_here):
    line, record, tensors = run(job, tmp_path / "auto")
    assert line[0].startswith("precision      bfloat16: native here, within 0.")
    assert "of the images, cosine 0.99" in line[0]
    assert record["training"] == "float32"
    assert record["features"] == "bfloat16"
    assert 0 < record["largest_difference"] < native.DIFFERENCE
    _, _, exact = run(job, tmp_path / "float32", precision="float32")
    (name,) = [name for name in tensors if name.endswith("1c_1x1/weights")]
    assert (tensors[name].load() != exact[name].load()).any()  # other values were cached
    np.testing.assert_allclose(tensors[name].load(), exact[name].load(), atol=0.01)

    line, again, _ = run(job, tmp_path / "again", learning_rate=0.01)  # all values are there: nothing is compared
    assert line == ["precision      bfloat16: native here"]
    assert again == {"training": "float32", "features": "bfloat16"}


def test_where_it_is_not_the_same_float32_is_taken_bit_for_bit(job, tmp_path, bfloat16_here, monkeypatch):
    monkeypatch.setattr(native, "DIFFERENCE", 1e-9)
    cache = str(tmp_path / "cache")
    line, record, tensors = run(job, tmp_path / "auto", cache_dir=cache)
    assert line[0].startswith("precision      float32: bfloat16 is within 0.")
    assert record["features"] == "float32"
    _, _, exact = run(job, tmp_path / "float32", precision="float32", cache_dir=str(tmp_path / "other"))
    assert changed_tensors(tensors, exact) == []


def test_a_run_goes_on_in_the_precision_that_it_began_in(job, tmp_path, bfloat16_here, monkeypatch):
    whole = run(job, tmp_path / "whole", cache_dir=str(tmp_path / "cache"))
    run(job, tmp_path / "parts", cache_dir=str(tmp_path / "cache"), steps=3)
    plan = tmp_path / "parts" / "plan.json"  # as a run of an earlier version says it
    plan.write_text(plan.read_text().replace('"features": "bfloat16"', '"transfer_values": "bfloat16"'))
    assert '"transfer_values": "bfloat16"' in plan.read_text()
    monkeypatch.setattr(native, "native", lambda device: None)  # on another machine, where nothing is cached either
    line, record, tensors = run(job, tmp_path / "parts", cache_dir=str(tmp_path / "elsewhere"))
    assert line == ["precision      bfloat16: as the run began"]
    assert record["features"] == "bfloat16"
    assert changed_tensors(whole[2], tensors) == []


def test_the_upper_part_of_a_net_is_fed_as_well(job, tmp_path, bfloat16_here):
    _, record, _ = run(job, tmp_path / "auto", trainable=("Conv_3,Logits",), log_steps=1)
    assert record["features"] == "bfloat16"
    run(job, tmp_path / "float32", trainable=("Conv_3,Logits",), log_steps=1, precision="float32")
    losses = [
        [float(row.split(",")[3]) for row in (tmp_path / name / "metrics.csv").read_text().splitlines()[1:]]
        for name in ("auto", "float32")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


@pytest.fixture
def built(monkeypatch):
    """Counts nets that are built whole, heads that are built alone, and folded nets."""
    found, build_net, on = Counter(), towers.build_net, folded.Folded.on

    def counted(net, images, **how):
        found["whole" if images is not None else "head"] += 1
        return build_net(net, images, **how)

    monkeypatch.setattr(towers, "build_net", counted)
    monkeypatch.setattr(folded.Folded, "on", lambda self, images: found.update(["folded"]) or on(self, images))
    return found


def test_a_run_builds_a_net_for_each_precision_and_only_to_compute_by_it(job, tmp_path, bfloat16_here, built):
    """It folded twice, and built the net in front of what is cached for training as well, and again when all was
    there."""
    options = {**job, "cache_dir": str(tmp_path / "cache")}
    counts = {}
    for name, trainable in (("head", "Logits"), ("head again", "Logits"), ("upper", "Conv_3,Logits"),
                            ("upper again", "Conv_3,Logits")):  # fmt: skip
        built.clear()
        run(options, tmp_path / name, trainable=tuple(trainable.split(",")))
        counts[name] = dict(built)
    assert counts == {
        "head": {"whole": 2, "head": 1, "folded": 1},
        "head again": {"head": 1},
        "upper": {"whole": 4, "folded": 1},  # two are for training: a batch norm trains, so that evaluation has its own
        "upper again": {"whole": 2},
    }


def test_an_evaluation_goes_on_with_the_nets_that_were_compared(tmp_path, job, bfloat16_here, built):
    source = {"checkpoint": tiny_net.write_source(tmp_path / "three.ckpt", classes=3), "net": "tiny", "device": "cpu"}
    evaluate(EvaluateOptions(**source, data=job["data"], precision="auto"))
    assert built == {"whole": 2, "folded": 1}


# --- features, prediction, evaluation, export ----------------------------------------------------------------------


def test_features(job, tmp_path, bfloat16_here):
    def values(name, **options):
        said, source = [], {"checkpoint": job["checkpoint"], "net": "tiny", "data": job["data"], "device": "cpu"}
        _, found = write_features(FeatureOptions(**source, output=str(tmp_path / name), **options), lines_to(said))
        return [line for line in said if line.startswith("precision")], found

    line, lower = values("auto")
    assert line[0].startswith("precision      bfloat16: native here, ")
    assert json.loads((tmp_path / "auto.json").read_text())["precision"] == "bfloat16"
    line, exact = values("float32", precision="float32")
    assert line == ["precision      float32: as asked for"]
    assert lower.values.dtype == exact.values.dtype == np.float32
    assert 0 < np.abs(lower.values - exact.values).max() < native.DIFFERENCE * np.abs(exact.values).max()
    line, part = values("part", shards=2)
    assert line == ["precision      float32: the same for every part; --precision gives another"]
    np.testing.assert_array_equal(part.values, exact.values[::2])
    line, upper = values("upper", trainable=("Conv_3,Logits",), pool="none")
    assert upper.values.dtype == np.float32
    assert line[0].startswith("precision      bfloat16")


def test_predictions_and_evaluation(job, tmp_path, bfloat16_here):
    said = []
    source = {"checkpoint": tiny_net.write_source(tmp_path / "three.ckpt", classes=3), "net": "tiny", "device": "cpu"}
    lower, exact = (
        predict(PredictOptions(**source, precision=each), [job["data"]], lines_to(said)) for each in ("auto", "float32")
    )
    assert (lower.precision, exact.precision) == ("bfloat16", "float32")
    assert [line.partition(",")[0] for line in said] == ["precision      bfloat16: native here"]
    pairs = [(a["predictions"][0], b["predictions"][0]) for a, b in zip(lower.rows, exact.rows, strict=True)]
    assert all(a["probability"] == pytest.approx(b["probability"], abs=0.05) for a, b in pairs)
    figures = [evaluate(EvaluateOptions(**source, data=job["data"], precision=p)).summary for p in ("auto", "float32")]
    assert [each["precision"] for each in figures] == ["bfloat16", "float32"]
    assert evaluate(EvaluateOptions(**source, data=job["data"])).summary == figures[1]  # as an audit wants it
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], rel=0.05)
    assert figures[0]["loss"] != figures[1]["loss"]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_export(job, tmp_path, precision):
    formats = ("saved_model,graphdef",) if precision == "bfloat16" else ("graphdef,tflite",)
    source = {"checkpoint": tiny_net.write_source(tmp_path / "three.ckpt", classes=3), "net": "tiny"}
    made = export(ExportOptions(**source, output=str(tmp_path / "lower"), format=formats, precision=precision))
    assert all(0 < row["largest_difference"] < 0.02 for row in made.rows)
    assert json.loads((tmp_path / "lower/export.json").read_text())["precision"] == precision


def test_tflite_has_no_bfloat16():
    with pytest.raises(RecipeError, match="--format tflite with --precision bfloat16: TFLite has none"):
        ExportOptions(checkpoint="a", output="b", format=("tflite",), precision="bfloat16")
    with pytest.raises(RecipeError, match="--precision auto: must be one of float32, bfloat16, float16"):
        ExportOptions(checkpoint="a", output="b", precision="auto")
