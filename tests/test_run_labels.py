"""Labels and the width of the head are part of a run: a change is reported before anything is built."""

import pytest
from small_run import held, opened, plan, tensors, write_run

from ckpt_tools.errors import TrainingError
from ckpt_tools.plan import Variable, make_plan
from ckpt_tools.tensors import Spec

SAME_NAME = "A new run that knows the classes that have the same name: {} --labels-of-source FOLDER/labels.txt\n"


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def test_a_renamed_class_stops_with_both_lists_and_what_to_type(tmp_path):
    labels = ["cat", "dog", "ship"]
    directory = write_run(tmp_path, labels, steps=[5])
    directory.save_best(tensors(5, classes=3), {}, {"step": 5})
    before = held(tmp_path)
    for how in ({}, {"resume": True}, {"exclude": ("logits",)}):
        with pytest.raises(TrainingError) as caught:
            opened(tmp_path, plan(3), ["boat", "cat", "dog"], **how)
        assert str(caught.value) == (
            f"{tmp_path}: the data has other labels than the run in this folder\n"
            "  class  the run  the data\n"
            "  -----  -------  --------\n"
            "      0  cat      boat\n"
            "      1  dog      cat\n"
            "      2  ship     dog\n"
            "  => The run continues once the data has the run's labels again.\n"
            "  => --fresh deletes that run and starts over with the labels of the data.\n"
            "  => A new run that knows all classes, boat being what ship was: "
            f"--train-dir NEW --checkpoint {tmp_path}/best.ckpt --class-map 2,0,1\n"
            "     without --exclude of the head"
        )
    assert held(tmp_path) == before
    assert opened(tmp_path, plan(3), labels, resume=True)[1] == 5
    assert opened(tmp_path, plan(3), ["boat", "cat", "dog"], fresh=True)[1] is None


@pytest.mark.parametrize(
    ("now", "advice"),
    [
        (
            ["cat", "cow", "dog"],
            SAME_NAME,
        ),
        (
            ["dog", "cat"],
            SAME_NAME,
        ),
        (["cow", "hen"], "A new run with a new head: {} --exclude net/logits"),
        (
            ["dog"],
            SAME_NAME,
        ),
    ],
)
def test_classes_that_were_added_taken_away_or_put_in_another_order(run, now, advice):
    """A head of another width is not said to fit with --resume, and not left to a message about shapes."""
    directory = run
    for how in ({}, {"resume": True}):
        with pytest.raises(TrainingError) as caught:
            opened(directory.path, plan(len(now)), now, **how)
        said = str(caught.value)
        assert "the data has other labels than the run in this folder" in said
        new = f"--train-dir NEW --checkpoint {directory.path}/model.ckpt-15"
        assert advice.format(new).replace("FOLDER", str(directory.path)) in said
        assert "--resume" not in said


def test_of_many_labels_those_are_shown_that_differ(tmp_path):
    before = [f"class {i}" for i in range(1000)]
    write_run(tmp_path, before, steps=[5])
    with pytest.raises(TrainingError) as caught:
        opened(tmp_path, plan(1000), [*before[:700], "new", *before[701:]])
    said = str(caught.value).splitlines()
    assert said[3].split(maxsplit=1) == ["700", "class 700  new"]
    assert len(said) == 8
    with pytest.raises(TrainingError) as caught:
        opened(tmp_path, plan(1000), before[::-1])
    assert "  and 980 more that differ" in str(caught.value).splitlines()


def test_a_checkpoint_of_another_net_is_said_before_anything_is_built(run):
    directory = run
    other = [Variable("net/conv/weights", Spec("float32", (4,))), Variable("net/fc/weights", Spec("float32", (2,)))]
    made = make_plan({each.name: each.spec for each in other}, other)
    for how in ({}, {"resume": True}):
        with pytest.raises(TrainingError) as caught:
            opened(directory.path, made, head="dense(4)", **how)
        said = str(caught.value)
        assert (
            "the checkpoint of step 15 is not of this net: net/conv/weights is float32[4] here and float32[3] in"
            in said
        )
        assert "net/fc/weights is float32[2] here and not there in the checkpoint" in said
        assert "--head was not given, is dense(4)" in said
        assert said.endswith("--fresh deletes that run, or name another folder.")
