"""--class-map, --labels-of-source and --adapt-input of ckpt-finetune: the initial values of variables."""

import numpy as np
import pytest
import tiny_net

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.errors import PlanError, RecipeError
from ckpt_tools.train.graph.restore import planned_tensors
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.plan.job import make_job

HEAD = "Tiny/Logits/Conv2d_1c_1x1/weights"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A source of ten classes, and photos of a cat, a dog and a frog."""
    folder = tmp_path_factory.mktemp("class_map")
    return {
        "net": "tiny",
        "checkpoint": tiny_net.write_source(folder / "source.ckpt"),
        "data": tiny_net.write_photos(folder / "photos"),
        "train_dir": str(folder / "run"),
    }


def start(options):
    """Every variable's first value."""
    made = make_job(options)
    return made, planned_tensors(made.plan, made.source.tensors, seed=0)


def test_classes_keep_their_weights(job):
    old = open_checkpoint(job["checkpoint"]).tensors[HEAD].load()
    _, values = start(Options(**job, class_map="3,_,7"))
    found = values[HEAD].load()
    np.testing.assert_array_equal(found[..., [0, 2]], old[..., [3, 7]])
    assert not np.isin(found[..., 1], old).any()


def test_labels_of_the_source_make_the_map_and_continue_without_their_file(job, tmp_path):
    labels = [f"class {i}" for i in range(10)]
    labels[3], labels[7] = "dog", "cat"
    (tmp_path / "old.txt").write_text("\n".join(labels), encoding="utf-8")
    made, values = start(Options(**job, labels_of_source=str(tmp_path / "old.txt")))
    assert (made.options.class_map, made.options.labels_of_source) == ("7,3,_", None)
    old = open_checkpoint(job["checkpoint"]).tensors[HEAD].load()
    np.testing.assert_array_equal(values[HEAD].load()[..., :2], old[..., [7, 3]])


def test_a_map_of_another_number_of_classes_is_a_conflict(job):
    with pytest.raises(PlanError, match="--class-map has 2 classes, the net 3"):
        make_job(Options(**job, class_map="3,7"))
    with pytest.raises(RecipeError, match="--class-map and --labels-of-source cannot be combined"):
        Options(**job, class_map="3,7", labels_of_source="old.txt")


def test_a_source_for_grey_pictures(job, tmp_path):
    source = open_checkpoint(job["checkpoint"]).tensors
    arrays = {name: source[name].load() for name in source}
    first = "Tiny/Conv_1/weights"
    arrays[first] = arrays[first].sum(axis=2, keepdims=True)
    save_checkpoint(from_arrays(arrays), tmp_path / "grey.ckpt")
    options = {**job, "checkpoint": str(tmp_path / "grey.ckpt"), "exclude": ("Logits",)}
    with pytest.raises(PlanError, match="input channels"):
        make_job(Options(**options))
    _, values = start(Options(**options, adapt_input=True))
    np.testing.assert_allclose(values[first].load().sum(axis=2, keepdims=True), arrays[first], rtol=1e-5, atol=1e-6)
