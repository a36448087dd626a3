"""ckpt-evaluate on a tiny net: figures, pictures, labels that do not fit, batch norm that was never warmed up."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import tiny_net  # noqa: E402
from telling import lines_to  # noqa: E402

from ckpt_tools import open_checkpoint, save_checkpoint  # noqa: E402
from ckpt_tools.cli import evaluate as command  # noqa: E402
from ckpt_tools.errors import DataError, RecipeError, SelectionError, TrainingError  # noqa: E402
from ckpt_tools.tensors import from_array  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402
from ckpt_tools.train.run.finetune import finetune  # noqa: E402
from ckpt_tools.train.use.classifier import SourceOptions, load_classifier  # noqa: E402
from ckpt_tools.train.use.evaluate import EvaluateOptions, evaluate  # noqa: E402
from ckpt_tools.train.use.running import logits_of  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the tiny net on photos of three colours: (train directory, data, result)."""
    root = tmp_path_factory.mktemp("run")
    data = tiny_net.write_photos(root / "photos")
    source = tiny_net.write_source(root / "tiny.ckpt")
    options = Options(
        checkpoint=source, data=data, train_dir=str(root / "run"), exclude=("Logits",), steps=60, learning_rate=0.01
    )
    return root / "run", data, finetune(options)


def test_a_run_is_evaluated_as_it_evaluated_itself(run):
    folder, _, result = run
    evaluation = evaluate(EvaluateOptions(train_dir=str(folder)))
    summary = evaluation.summary
    assert summary["accuracy"] == pytest.approx(result.best["validation_accuracy"])
    assert summary["loss"] == pytest.approx(result.best["validation_loss"], rel=1e-4)
    assert (summary["images"], summary["classes"], summary["labels"]) == (18, 3, ["cat", "dog", "frog"])
    assert [row["images"] for row in evaluation.rows] == [6, 6, 6]
    assert np.array(summary["confusion"]).sum() == 18
    assert sum(row["correct"] for row in evaluation.rows) == round(summary["accuracy"] * 18)


def test_records_that_somebody_edited_and_copies_that_somebody_made(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    shutil.copy(folder / "model.ckpt-60.index", folder / "model.ckpt-60-copy.index")
    last = load_classifier(SourceOptions(train_dir=str(folder), use="last"))
    assert Path(last.path).name == "model.ckpt-60"
    record = json.loads((folder / "plan.json").read_text())
    for edited in ([], {**record, "labels": None}, {**record, "rows": 3}, {**record, "conflicts": [{"of": 1}]}):
        (folder / "plan.json").write_text(json.dumps(edited))
        with pytest.raises(TrainingError, match=r"plan.json: not the record of a run \("):
            load_classifier(SourceOptions(train_dir=str(folder)))


def test_any_checkpoint_of_the_run_and_any_split(run):
    folder, data, _ = run
    last = evaluate(EvaluateOptions(train_dir=str(folder), use="last", split="all"))
    assert last.summary["images"] == 60
    assert last.summary["source"].endswith("model.ckpt-60")
    named = evaluate(EvaluateOptions(checkpoint=str(folder / "model.ckpt-60"), data=data, split="all"))
    assert named.summary["accuracy"] == last.summary["accuracy"]
    assert named.labels == ("cat", "dog", "frog")
    with pytest.raises(TrainingError, match="no checkpoint of step 7; there are 60"):
        load_classifier(SourceOptions(train_dir=str(folder), use="7"))


def test_nothing_is_dropped_where_batch_norm_is_looked_at_in_training_mode(run, tmp_path):
    """The gap between stored and batch statistics is theirs alone, also with a head that drops."""
    _, data, _ = run
    source = tiny_net.write_source(tmp_path / "tiny.ckpt")
    how = {"data": data, "exclude": ("Logits",), "steps": 1, "head": "dense(8)|dropout(0.9)", "dropout": 0.5}
    finetune(Options(checkpoint=source, train_dir=str(tmp_path / "run"), **how))
    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.float32, [None, 32, 32, 3])
        logits_of(load_classifier(SourceOptions(train_dir=str(tmp_path / "run"))), images, training_batch_norm=True)
        kinds = {op.type for op in graph.get_operations()}
    assert "FusedBatchNormV3" in kinds
    assert not [kind for kind in kinds if kind.startswith("StatelessRandom")]  # initializers draw from others


def test_labels_are_compared_by_name(run, tmp_path):
    folder, _, _ = run
    data = tiny_net.write_photos(tmp_path / "two", classes=("frog", "cat"))  # colours of cat and dog
    summary = evaluate(EvaluateOptions(train_dir=str(folder), data=data)).summary
    confusion = np.array(summary["confusion"])
    assert confusion.sum(axis=1).tolist() == [6, 0, 6]
    assert summary["accuracy"] < 0.5  # frogs with the colour of cats
    strange = tiny_net.write_photos(tmp_path / "strange", classes=("cat", "horse"))
    with pytest.raises(DataError, match="the net has no class horse"):
        evaluate(EvaluateOptions(train_dir=str(folder), data=strange))


def test_json_and_files_of_the_command(run, tmp_path, capsys):
    folder, _, _ = run
    assert command.main(["--train-dir", str(folder), "--json", "--output", str(tmp_path / "out"), "--use", "last"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"rows", "summary"}
    assert set(shown["rows"][0]) == {"label", "images", "correct", "precision", "recall", "f1"}
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == shown
    lines = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert lines[0] == "file,true,predicted,probability"
    assert len(lines) == 19
    assert (tmp_path / "out" / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_ends_with_the_accuracy(run, capsys):
    folder, _, _ = run
    assert command.main(["--train-dir", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["label", "images", "correct", "precision", "recall", "f1"]
    assert "(2) frog" in out
    assert out.rstrip().endswith("on 18 images")
    assert "net            Tiny, 3 classes" in err


def test_figures_are_printed_where_their_files_cannot_be_written(run, tmp_path, capsys):
    folder, _, _ = run
    (tmp_path / "file").write_text("")
    assert command.main(["--train-dir", str(folder), "--output", str(tmp_path / "file" / "below")]) == 2
    out, err = capsys.readouterr()
    assert out.rstrip().endswith("on 18 images")
    assert "below: cannot write here (Not a directory)" in err


def test_surest_errors_come_first_with_their_photos(run, tmp_path, capsys):
    folder, _, _ = run
    data = tiny_net.write_photos(tmp_path / "swapped", classes=("dog", "frog", "cat"))  # each with another's colour
    out = tmp_path / "out"
    assert (
        command.main(["--train-dir", str(folder), "--data", data, "--json", "--output", str(out), "--worst", "4"]) == 0
    )
    worst = json.loads(capsys.readouterr().out)["summary"]["worst"]
    chances = [error["probability"] for error in worst]
    assert len(worst) == 4
    assert chances == sorted(chances, reverse=True)
    assert all(error["true"] != error["predicted"] for error in worst)
    assert all(error["file"].startswith("validation/" + error["true"]) for error in worst)
    assert (out / "worst.png").read_bytes().startswith(b"\x89PNG")


def test_statistics_that_were_never_updated_are_noticed(run, tmp_path):
    folder, data, _ = run
    tensors = dict(open_checkpoint(folder / "best.ckpt").tensors)
    lines = []
    for name, tensor in tensors.items():
        if name.endswith("/moving_mean"):
            tensors[name] = from_array(np.zeros(tensor.spec.shape, np.float32))
        if name.endswith("/moving_variance"):
            tensors[name] = from_array(np.ones(tensor.spec.shape, np.float32))
    from ckpt_tools import Tensors

    save_checkpoint(Tensors(tensors), tmp_path / "stale.ckpt")
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nfrog\n")
    options = EvaluateOptions(
        checkpoint=str(tmp_path / "stale.ckpt"), data=data, labels=str(labels), batch_norm_gap=True
    )
    evaluation = evaluate(options, lines_to(lines))
    assert any("moving statistics of 3 batch norms (Tiny/Conv_1/BatchNorm, ...) were never updated" in x for x in lines)
    gap = evaluation.summary["batch_norm_gap"]
    assert gap["stored"] == evaluation.summary["accuracy"]
    assert 0 <= gap["batch"] <= 1
    fine: list[str] = []
    evaluate(EvaluateOptions(train_dir=str(folder)), lines_to(fine))
    assert not any("never updated" in line for line in fine)


def test_a_broken_photo_is_named_and_left_out(run, tmp_path):
    folder, _, _ = run
    data = tiny_net.write_photos(tmp_path / "photos", validation=20)
    broken = tmp_path / "photos" / "validation" / "dog" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    lines: list[str] = []
    how = {"batch_norm_gap": True, "batch_size": 60}
    summary = evaluate(EvaluateOptions(train_dir=str(folder), data=data, **how), lines_to(lines)).summary
    assert summary["images"] == summary["batch_norm_gap"]["images"] == 59
    assert list(summary["unreadable"]) == ["validation/dog/3.png"]
    assert any("could not be decoded and were left out: image validation/dog/3.png" in line for line in lines)


def test_a_net_with_a_background_class(tmp_path):
    data = tiny_net.write_photos(tmp_path / "photos")
    source = tiny_net.write_source(tmp_path / "four.ckpt", classes=4)
    lines: list[str] = []
    evaluation = evaluate(EvaluateOptions(checkpoint=source, data=data), lines_to(lines))
    assert sorted(set(evaluation.true.tolist())) == [1, 2, 3]
    assert any("background" in line for line in lines)
    other = tiny_net.write_source(tmp_path / "nine.ckpt", classes=9)
    with pytest.raises(DataError, match="the data has 3 classes, the net 9"):
        evaluate(EvaluateOptions(checkpoint=other, data=data))


def test_what_cannot_be_evaluated(tmp_path, capsys):
    with pytest.raises(RecipeError, match="must be given"):
        EvaluateOptions()
    with pytest.raises(RecipeError, match="--train-dir or --checkpoint must be given, not both"):
        EvaluateOptions(train_dir="a", checkpoint="b")
    found = "--image-size 0: must be at least 1; --split tests: must be one of .*; --worst -2: .*; --use bets: must be"
    with pytest.raises(RecipeError, match=found):
        EvaluateOptions(train_dir="a", image_size=0, split="tests", worst=-2, use="bets")
    np.savez(tmp_path / "other.npz", w=np.zeros(3, np.float32))
    with pytest.raises(SelectionError, match="cannot tell which net this is"):
        load_classifier(SourceOptions(checkpoint=str(tmp_path / "other.npz")))
    assert command.main(["--checkpoint", str(tmp_path / "other.npz"), "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("ckpt-evaluate: ")


# --- what nobody named, and what says nothing --------------------------------------------------------------------


@pytest.fixture
def slim_folder(tmp_path):
    """A train directory of slim's own, with a checkpoint and the file that names it."""
    folder = tmp_path / "slim"
    folder.mkdir()
    tiny_net.write_source(folder / "model.ckpt-1000", classes=3)
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1000"\n')
    return folder


def test_no_data_is_not_the_current_directory(run, slim_folder, monkeypatch, capsys):
    from ckpt_tools.cli import features

    monkeypatch.chdir(run[1])  # photos, which it took
    assert command.main(["--train-dir", str(slim_folder)]) == 2
    output = str(slim_folder / "features")
    assert features.main(["--train-dir", str(slim_folder), "--output", output]) == 2
    fact = "--data must be given: no run of ckpt-finetune says what this was trained on"
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{name}: {slim_folder}/model.ckpt-1000: {fact}" for name in ("ckpt-evaluate", "ckpt-features")]
    assert command.main(["--train-dir", str(slim_folder), "--data", run[1]]) == 0


def test_options_that_say_nothing_are_refused(run, slim_folder):
    folder, data, _ = run
    with pytest.raises(
        RecipeError, match="--use last chooses a checkpoint of --train-dir; --checkpoint names one itself"
    ):
        EvaluateOptions(checkpoint="a", data="b", use="last")
    with pytest.raises(RecipeError, match="slim: --use 500: this is not a run of ckpt-finetune. Give one by"):
        evaluate(EvaluateOptions(train_dir=str(slim_folder), data=data, use="500"))
    for source, net in ((folder, "tiny"), (folder, "vgg_16"), (folder / "best.ckpt", "vgg_16")):
        with pytest.raises(RecipeError, match=f"--net {net} has no effect: the run says that it is tiny"):
            load_classifier(SourceOptions(checkpoint=str(source), net=net))
    assert load_classifier(SourceOptions(checkpoint=folder / "best.ckpt", net="tiny")).net.name == "tiny"
    assert load_classifier(SourceOptions(train_dir=slim_folder, net="tiny")).net.name == "tiny"


def test_a_batch_norm_gap_without_batch_norm_is_said_before_anything_is_computed(run, tmp_path, monkeypatch):
    from ckpt_tools.train.use import evaluate as module

    source = tiny_net.write_source(tmp_path / "tiny.ckpt", classes=3)
    found = load_classifier(SourceOptions(checkpoint=source))
    bare = replace(found, plan=replace(found.plan, batch_norm={}))
    monkeypatch.setattr(EvaluateOptions, "open", lambda self, **how: bare)
    monkeypatch.setattr(module, "run_on", None)
    with pytest.raises(RecipeError, match="--batch-norm-gap has no effect: Tiny has no batch norm"):
        evaluate(EvaluateOptions(checkpoint=source, data=run[1], batch_norm_gap=True))
