"""Surgery on files of real TensorFlow releases: bytes are copied, never decoded, and TensorFlow's slices stay."""

import numpy as np
import pytest

from ckpt_tools import open_checkpoint, save_checkpoint
from ckpt_tools.cli.edit import main
from ckpt_tools.surgery import Drop, EmaToWeights, Keep, Rename, Strip, operate
from ckpt_tools.tensors import Slice, Tensor, Tensors

V2 = ["tf012_v2_training/model.ckpt-2", "tf115_v2_training/model.ckpt-2", "tf221_v2_training/model.ckpt-2"]
PARTITIONED = [f"{release}_v2_partitioned/model.ckpt" for release in ("tf012", "tf115", "tf221")]
RENAME = Rename(((r"re:^(\w+)", r"moved/\1"),))


class DecodedError(Exception):
    """A tensor was loaded that should have been copied."""


def sealed(tensors: Tensors) -> Tensors:
    """The same tensors, none of which can be loaded, their slices neither."""

    def refuse():
        raise DecodedError

    def seal(tensor: Tensor) -> Tensor:
        slices = tuple(Slice(each.extents, seal(each.tensor)) for each in tensor.slices)
        return tensor._replace(load=refuse, slices=slices)

    return Tensors((name, seal(tensor)) for name, tensor in tensors.items())


def values(path) -> dict[str, np.ndarray]:
    return {name: tensor.load() for name, tensor in open_checkpoint(path).tensors.items()}


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("source", V2)
@pytest.mark.parametrize(
    "operations",
    [[RENAME], [Keep(("net",))], [Drop(("Adam",))], [Strip()], [EmaToWeights(), Strip(("optimizer",)), RENAME]],
    ids=lambda each: "+".join(one.command for one in each),
)
def test_what_keeps_its_values_is_never_decoded(operations, source, link, GOLDEN, tmp_path):
    opened = open_checkpoint(GOLDEN / source)
    made = operate(sealed(opened.tensors), operations)
    save_checkpoint(made.tensors, tmp_path / "out.ckpt", link=link)
    expected = operate(opened.tensors, operations).tensors
    written = values(tmp_path / "out.ckpt")
    assert sorted(written) == sorted(expected)
    for name, array in written.items():
        np.testing.assert_array_equal(array, expected[name].load())


def test_the_seal_can_break(GOLDEN, tmp_path):
    opened = open_checkpoint(GOLDEN / V2[0])
    with pytest.raises(DecodedError):
        save_checkpoint(sealed(opened.tensors), tmp_path / "out.npz", format="npz")


@pytest.mark.parametrize("source", PARTITIONED)
def test_partitioned_variables_stay_in_their_slices(source, GOLDEN, tmp_path):
    opened = open_checkpoint(GOLDEN / source)
    parts = {name: [each.extents for each in tensor.slices] for name, tensor in opened.tensors.items()}
    assert any(len(each) > 1 for each in parts.values())
    save_checkpoint(operate(sealed(opened.tensors), [RENAME]).tensors, tmp_path / "out.ckpt")
    made = open_checkpoint(tmp_path / "out.ckpt").tensors
    assert {name: [each.extents for each in tensor.slices] for name, tensor in made.items()} == {
        f"moved/{name}": each for name, each in parts.items()
    }
    for name, array in values(GOLDEN / source).items():
        np.testing.assert_array_equal(made[f"moved/{name}"].load(), array)


@pytest.mark.parametrize("source", PARTITIONED)
def test_a_cast_keeps_the_slices_too(source, GOLDEN, tmp_path):
    assert main([str(GOLDEN / source), "-o", str(tmp_path / "half.ckpt"), "--cast", "float16"]) == 0
    made, old = open_checkpoint(tmp_path / "half.ckpt").tensors, open_checkpoint(GOLDEN / source).tensors
    for name, tensor in old.items():
        assert [each.extents for each in made[name].slices] == [each.extents for each in tensor.slices]
        np.testing.assert_array_equal(made[name].load(), tensor.load().astype("float16"))


@pytest.mark.parametrize("source", V2)
def test_there_and_back_is_the_same_file(source, GOLDEN, tmp_path):
    there, back = str(tmp_path / "there.ckpt"), str(tmp_path / "back.ckpt")
    assert main([str(GOLDEN / source), "-o", there, "--rename", "=deep/scope"]) == 0
    assert main([there, "-o", back, "--rename", "deep/scope="]) == 0
    for ending in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"back.ckpt{ending}").read_bytes() == (GOLDEN / f"{source}{ending}").read_bytes()


@pytest.mark.parametrize("release", ["tf012", "tf115", "tf221"])
def test_v1_stays_v1(release, GOLDEN, tmp_path):
    source = GOLDEN / f"{release}_v1_partitioned" / "model.ckpt"
    assert main([str(source), "-o", str(tmp_path / "out.ckpt"), "--rename", "=a", "--drop", "whole"]) == 0
    made = open_checkpoint(tmp_path / "out.ckpt")
    assert made.format == "v1"
    old = open_checkpoint(source).tensors
    for name, tensor in made.tensors.items():
        assert len(tensor.slices) == len(old[name[2:]].slices)
        np.testing.assert_array_equal(tensor.load(), old[name[2:]].load())


def test_an_object_based_source_is_written_by_the_names_of_its_variables(GOLDEN, tmp_path, capsys):
    source = next(path for path in sorted((GOLDEN / "tf221_object").glob("*.index")))
    assert main([str(source), "-o", str(tmp_path / "out.ckpt"), "--strip", "optimizer"]) == 0
    assert "the object graph is left out" in capsys.readouterr().err
    assert not any("OBJECT_GRAPH" in name or ".ATTRIBUTES" in name for name in values(tmp_path / "out.ckpt"))
