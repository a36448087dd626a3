"""slim's own flags, other spellings and typos: each command names the option to use."""

import importlib

import pytest

from ckpt_tools.__main__ import COMMANDS
from ckpt_tools.errors import RecipeError
from ckpt_tools.train.options.configuration import read_config
from ckpt_tools.train.options.slim_flags import SLIM
from ckpt_tools.train.options.training import Options


def parser(name):
    return importlib.import_module(f"ckpt_tools.cli.{name}").make_parser()


def refused(name, argv, capsys):
    """What the command says of the arguments: one line, exit code 2."""
    with pytest.raises(SystemExit) as end:
        parser(name).parse_args(argv)
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    return said.err


# The command line of slim's README: "Fine-tuning a model from an existing checkpoint".
README = [
    "--train_dir=/tmp/run",
    "--dataset_dir=/tmp/flowers",
    "--dataset_name=flowers",
    "--dataset_split_name=train",
    "--model_name=inception_v3",
    "--checkpoint_path=/tmp/inception_v3.ckpt",
    "--checkpoint_exclude_scopes=InceptionV3/Logits,InceptionV3/AuxLogits",
    "--trainable_scopes=InceptionV3/Logits,InceptionV3/AuxLogits",
    "--max_number_of_steps=1000",
    "--batch_size=32",
    "--learning_rate=0.01",
    "--learning_rate_decay_type=fixed",
    "--save_interval_secs=60",
    "--save_summaries_secs=60",
    "--log_every_n_steps=100",
    "--optimizer=rmsprop",
    "--weight_decay=0.00004",
]


def test_the_command_line_of_slim_s_readme(capsys):
    said = refused("finetune", README, capsys)
    for slim, ours in (
        ("train_dir", "--train-dir here"), ("dataset_dir", "--data here"), ("model_name", "--net here"),
        ("checkpoint_path", "--checkpoint here"), ("checkpoint_exclude_scopes", "--exclude here"),
        ("trainable_scopes", "--trainable here"), ("max_number_of_steps", "--steps here"),
        ("batch_size", "--batch-size here"), ("learning_rate", "--learning-rate here"),
        ("dataset_name", "not needed: the kind of data is recognised"), ("weight_decay", "--weight-decay here"),
        ("learning_rate_decay_type", "--schedule here"), ("log_every_n_steps", "--log-steps here"),
    ):  # fmt: skip
        assert f"--{slim} is {ours}" in said
    assert "--optimizer" not in said
    assert said.count("\n") == 1


def test_what_it_says_is_what_works(capsys):
    """Typed with the names that are named, the command line is taken."""
    typed = []
    for word in README:
        flag, _, value = word.partition("=")
        named = flag if flag == "--optimizer" else ""
        for told in refused("finetune", README, capsys).removeprefix("ckpt-finetune: ").split("; "):
            if told.startswith(f"{flag} is --"):
                named = told.removeprefix(f"{flag} is ").partition(" ")[0]
        typed += [named, value] if named else []
    options = parser("finetune").parse_args(typed)
    assert (options.exclude, options.steps) == (["InceptionV3/Logits,InceptionV3/AuxLogits"], "1000")


@pytest.mark.parametrize("slim", SLIM)
def test_every_flag_of_slim_s_has_an_answer(slim, capsys):
    flags = {flag for name in ("finetune", "evaluate", "features") for flag in parser(name)._option_string_actions}
    assert all(each in flags or not each.startswith("--") for each in SLIM[slim])
    assert refused("finetune", [f"--{slim}=1"], capsys).startswith(f"ckpt-finetune: --{slim} is ")


def test_another_command_says_where_the_option_is(capsys):
    assert refused("evaluate", ["--eval_dir", "x", "--trainable_scopes=a", "--dataset_split_name=test"], capsys) == (
        "ckpt-evaluate: --eval_dir is --output here; --trainable_scopes is not an option of this command, but "
        "--trainable of ckpt-finetune; --dataset_split_name is --split here\n"
    )


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("diff", "verify")])  # of one word each
def test_underscores_are_named_in_every_command(name, capsys):
    made = parser(name)
    flags = [each for each in sorted(made._option_string_actions) if "-" in each[2:] and each.startswith("--")]
    if not flags:
        pytest.skip("no option of two words")
    flag = flags[0]
    spelt = "--" + flag[2:].replace("-", "_")
    assert refused(name, [spelt, "x"], capsys) == f"{made.prog}: {spelt} is {flag} here\n"


def test_slips_of_the_pen(capsys):
    said = refused("finetune", ["--trainabel", "Logits", "--exclud=a"], capsys)
    assert said.startswith("ckpt-finetune: there is no --trainabel; did you mean --trainable")
    assert "there is no --exclud; did you mean --exclude" in said
    assert "unrecognized arguments: --zzz" in refused("finetune", ["--zzz"], capsys)
    assert "did you mean" not in refused("finetune", ["--wat"], capsys)


def test_what_follows_two_dashes_is_no_option(capsys):
    options = parser("predict").parse_args(["--train-dir", "run", "--", "--train_dir.jpg"])
    assert options.images == ["--train_dir.jpg"]


def test_keys_of_a_file(tmp_path):
    (tmp_path / "run.yaml").write_text("max_number_of_steps: 10\n")
    with pytest.raises(RecipeError, match="no option 'max_number_of_steps'; it is steps here"):
        read_config(tmp_path / "run.yaml", Options)


def test_what_is_wrong_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").touch()
    (tmp_path / "-old.ckpt.index").touch()
    evaluate = "ckpt-evaluate: unrecognized arguments"
    assert refused("evaluate", ["cat"], capsys) == f"{evaluate}: cat; ckpt-evaluate --help shows all that it takes\n"
    assert refused("evaluate", ["run"], capsys) == (
        f"{evaluate}: run; the folder of a run is given with --train-dir run\n"
    )
    assert refused("inspect", ["-old.ckpt"], capsys) == (
        "ckpt-inspect: -old.ckpt begins like an option: write ./-old.ckpt\n"
    )
    inspect = "ckpt-inspect: unrecognized arguments: run; ckpt-inspect --help shows all that it takes\n"
    assert refused("inspect", ["old.ckpt", "run"], capsys) == inspect  # which takes no folder of a run
    (tmp_path / "-o").touch()
    assert parser("edit").parse_args(["m.ckpt", "-o", "out"]).output == "out"
