"""Options: flags and YAML keys from one dataclass, the command line over the file, error messages."""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from ckpt_tools.errors import RecipeError
from ckpt_tools.train.options.configuration import add_arguments, differences, from_arguments, read_config, to_config
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.plan import schedule
from ckpt_tools.train.use.classifier import SourceOptions
from ckpt_tools.train.use.export import ExportOptions


def parse(*argv):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser, Options)
    return from_arguments(Options, parser.parse_args(argv))


def test_flags_become_fields_of_their_types():
    options = parse(
        "--checkpoint", "a.ckpt", "--trainable", "Mixed_7c,Logits", "--trainable", "!Branch_1", "--steps", "20",
        "--learning-rate", "1e-3", "--cast", "--dropout", "0.2",
    )  # fmt: skip
    assert options == Options(
        checkpoint="a.ckpt", trainable=("Mixed_7c,Logits", "!Branch_1"), steps=20, learning_rate=0.001, cast=True,
        dropout=0.2,
    )  # fmt: skip


def test_the_command_line_wins_over_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("learning-rate: 1e-3\nbatch_size: 8\nexclude: Logits\ntrainable: [Mixed_7c, Logits]\n")
    options = parse("--config", str(path), "--batch-size", "16")
    assert options == Options(learning_rate=0.001, batch_size=16, exclude=("Logits",), trainable=("Mixed_7c", "Logits"))


def test_what_is_written_reads_back_and_holds_no_defaults(tmp_path):
    options = Options(checkpoint="ä b.ckpt", data="d", trainable=("Logits",), steps=5, weight_decay=0.0, cast=True)
    path = tmp_path / "config.yaml"
    path.write_text(to_config(options), encoding="utf-8")
    assert Options(**read_config(path, Options)) == options
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) == {
        "checkpoint", "data", "trainable", "steps", "weight_decay", "cast",
    }  # fmt: skip


def test_help_gives_each_default_once_as_it_is_typed():
    told = {}
    for kind in (ExportOptions, Options):
        parser = argparse.ArgumentParser(allow_abbrev=False)
        add_arguments(parser, kind)
        told |= {action.dest: action.help for action in parser._actions}
    assert told["format"] == "saved_model, graphdef, tflite, or several with commas (default: saved_model)"
    assert told["optimizer"] == "optimization algorithm (default: adam)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainabel: Logits", "no option 'trainabel'; did you mean trainable?"),
        ("steps: 2.5", "'steps' must be a whole number, not 2.5"),
        ("steps: many", "'steps' must be a whole number, not 'many'"),
        ("cast: 1", "'cast' must be true or false, not 1"),
        ("dropout: yes", "'dropout' must be a number, not True"),
        ("trainable: {a: b}", "'trainable' must be a pattern or a list of them, not {'a': 'b'}"),
        ("- steps", "must hold `option: value` lines"),
        ("a: [", "not YAML: line 1: expected the node content, but found '<stream end>'"),
        ("steps: 2\nseed: 1\nsteps: 3", "steps is given twice"),
        ("data: caf\xe9", "is not a text file in UTF-8"),
        ("data: a\0b", "is not a text file in UTF-8"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, text, said):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(RecipeError) as caught:
        read_config(path, Options)
    assert str(caught.value).startswith(f"{path}: {said}")
    assert "unicode string" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"schedule": "cosin"},
            "--schedule cosin: must be one of constant, exponential, step, cosine, one-cycle; did you mean cosine?",
        ),
        ({"batch_size": 0}, "--batch-size 0: must be at least 1"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0: must be above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate nan: must be above 0"),
        ({"dropout": 1.0}, "--dropout 1.0 leaves nothing; it must be below 1"),
        ({"steps": 1, "epochs": 1.0}, "--steps and --epochs cannot be combined"),
        ({"resume": True, "fresh": True, "keep": 0}, "--keep 0: must be at least 1; --resume and --fresh "
         "cannot be combined"),
    ],
)  # fmt: skip
def test_values_that_make_no_sense_are_refused(values, said):
    with pytest.raises(RecipeError) as caught:
        Options(**values)
    assert str(caught.value) == said


def test_paths_and_numbers_are_coerced_where_options_are_made(tmp_path):
    """What people have in Python: a Path, a number of numpy, a number as text, one pattern, a list of them."""
    given = Options(
        data=Path("photos"), train_dir=tmp_path / "run", epochs="1", batch_size=np.int64(8), dropout=np.float32(0.5),
        bn="Logits=train", exclude=["a", Path("b")], learning_rate=1, seed=3.0,
    )  # fmt: skip
    assert given == Options(
        data="photos", train_dir=str(tmp_path / "run"), epochs=1.0, batch_size=8, dropout=0.5, bn=("Logits=train",),
        exclude=("a", "b"), learning_rate=1.0, seed=3,
    )  # fmt: skip
    kinds = {found.name: type(getattr(given, found.name)) for found in dataclasses.fields(given)}
    assert (kinds["data"], kinds["batch_size"], kinds["epochs"], kinds["seed"]) == (str, int, float, int)
    (tmp_path / "config.yaml").write_text(to_config(given))
    assert Options(**read_config(tmp_path / "config.yaml", Options)) == given
    assert SourceOptions(train_dir=Path("run"), use=500, image_size="96").use == "500"


def test_what_cannot_be_coerced_is_named_together():
    with pytest.raises(RecipeError) as caught:
        Options(batch_size=Path("8"), epochs="many", cast="yes", data=["a"], trainable={"a": 1}, steps=2.5)
    assert str(caught.value) == (
        "--cast must be true or false, not 'yes'; --data must be text, not ['a']; "
        "--trainable must be a pattern or a list of them, not {'a': 1}; --steps must be a whole number, not 2.5; "
        f"--epochs must be a number, not 'many'; --batch-size must be a whole number, not {Path('8')!r}"
    )


def test_missing_options_are_named_together():
    with pytest.raises(RecipeError, match="^--checkpoint and --train-dir must be given$"):
        Options(data="d").require("checkpoint", "data", "train_dir")


def test_differences_name_what_makes_another_run_only():
    before = {"learning_rate": 0.1, "trainable": ("Logits",), "steps": 100, "train_dir": "a"}
    now = Options(trainable=("Logits", "Mixed_7c"), steps=200, train_dir="a")
    assert differences(before, now) == [
        "--trainable was Logits, is Logits,Mixed_7c",
        "--learning-rate was 0.1, is not given",
    ]
    assert differences({"steps": 100}, Options(steps=200, keep=1)) == []


def test_every_option_has_help_that_fits_a_line():
    for found in dataclasses.fields(Options):
        assert 10 < len(found.metadata["help"]) < 100, found.name


def test_learning_rates_of_the_schedules():
    def rates(options, steps):
        return [round(schedule.rate_at(options, 1.0, step, 100, 10), 4) for step in steps]

    assert rates(Options(), [0, 50, 99]) == [1.0, 1.0, 1.0]
    assert rates(Options(schedule="cosine"), [0, 25, 50, 100]) == [1.0, 0.8536, 0.5, 0.0]
    assert rates(Options(schedule="exponential", decay_rate=0.5, decay_epochs=2), [0, 20, 40]) == [1.0, 0.5, 0.25]
    assert rates(Options(warmup_steps=4), [0, 1, 3, 4]) == [0.25, 0.5, 1.0, 1.0]
    assert rates(Options(schedule="cosine", warmup_steps=20), [19, 20, 60]) == [1.0, 1.0, 0.5]


def test_the_default_rate_is_smaller_when_restored_layers_are_trained():
    assert schedule.base_rate(Options(), head_only=True) == 10 * schedule.base_rate(Options(), head_only=False)
    assert schedule.base_rate(Options(learning_rate=0.5), head_only=False) == 0.5
    assert schedule.total_steps(Options(), 32) == 320
    assert schedule.total_steps(Options(steps=7), 32) == 7
