"""Laws that hold for any checkpoint, tried on checkpoints that hypothesis makes up."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.diff import diff_tensors
from ckpt_tools.dtypes import BY_NAME, numpy_dtype
from ckpt_tools.formats import npz, representable, safetensors_file, typed_values
from ckpt_tools.recipe import as_data, parse_recipe
from ckpt_tools.surgery import Average, Cast, Keep, Pad, Rename, Reshape, SliceOf, Strip, Transpose, operate
from ckpt_tools.tensors import Tensors, from_array

LAWS = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
EVERY_TYPE = frozenset(BY_NAME) - {"variant"}
TYPES = {
    "v1": frozenset(typed_values.WRITABLE),
    "v2": EVERY_TYPE,
    "npz": npz.TYPES,
    "safetensors": frozenset(safetensors_file._FROM_TENSORFLOW),
    "keras_h5": representable.NUMPY_TYPES,
}
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # fsync is what takes the time elsewhere
ENDINGS = {"npz": ".npz", "safetensors": ".safetensors", "keras_h5": ".h5"}

words = st.text("abcdefgXYZ0123456789_.-", min_size=1, max_size=6).filter(lambda word: word.strip("."))
names = st.lists(words, min_size=1, max_size=4).map("/".join)
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def tensors(draw, types=EVERY_TYPE):
    """One tensor: any bit pattern of its type that the type allows, NaN with payload included."""
    dtype, shape = draw(st.sampled_from(sorted(types))), draw(shapes)
    count = int(np.prod(shape, dtype=int))
    if dtype == "string":
        texts = draw(
            st.lists(st.binary(max_size=9).map(lambda text: text.rstrip(b"\0")), min_size=count, max_size=count)
        )
        array = np.empty(count, object)
        array[:] = texts
        return from_array(array.reshape(shape), dtype)
    kind = numpy_dtype(dtype)
    raw = np.frombuffer(draw(st.binary(min_size=count * kind.itemsize, max_size=count * kind.itemsize)), "uint8")
    if dtype == "bool":
        raw = raw & 1
    elif dtype in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn"):
        bits = int(dtype.removeprefix("float").removeprefix("uint").removeprefix("int")[0])
        raw = raw & (2**bits - 1)
    return from_array(raw.view(kind).reshape(shape), dtype)


def checkpoints(types=EVERY_TYPE, names=names):
    """Some tensors under names of which none is a scope of another, as HDF5 wants it."""
    made = st.dictionaries(names, tensors(types), min_size=1, max_size=6)
    return made.filter(lambda found: not any(b.startswith(a + "/") for a in found for b in found)).map(Tensors)


def same(here: Tensors, there: Tensors) -> bool:
    """Whether names, specs and every byte agree."""
    return here.specs() == there.specs() and all(equal_bytes(here[name].load(), there[name].load()) for name in here)


def equal_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()


@pytest.mark.parametrize("format", TYPES)
def test_what_is_written_is_read(format):
    @LAWS
    @given(source=checkpoints(TYPES[format]))
    def law(source):
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            path = str(Path(folder) / f"model{ENDINGS.get(format, '.ckpt')}")
            save_checkpoint(source, path, format=format)
            made = open_checkpoint(path)
            assert made.format == format
            assert made.tensors.specs() == source.specs()
            assert same(source, Tensors((name, made.tensors[name]) for name in source))

    law()


@LAWS
@given(source=checkpoints(), shards=st.integers(1, 5))
def test_shards_make_no_difference(source, shards):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        save_checkpoint(source, f"{folder}/m", shards=shards)
        made = open_checkpoint(f"{folder}/m").tensors
        assert same(source, Tensors((name, made[name]) for name in source))


@LAWS
@given(source=checkpoints())
def test_writing_again_gives_the_same_bytes(source):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        save_checkpoint(source, f"{folder}/a")
        save_checkpoint(source, f"{folder}/b")
        save_checkpoint(open_checkpoint(f"{folder}/a"), f"{folder}/c")
        files = {ending: [Path(f"{folder}/{name}.{ending}").read_bytes() for name in "abc"]
                 for ending in ("index", "data-00000-of-00001")}  # fmt: skip
        assert all(a == b for a, b, _ in files.values())
        assert files["data-00000-of-00001"][2] == files["data-00000-of-00001"][0]
        assert files["index"][2] == files["index"][0]


@LAWS
@given(source=checkpoints(), scope=words)
def test_rename_is_invertible(source, scope):
    there = Rename((("", scope),))
    back = Rename(((scope, ""),))
    assert list(back(there(source)).items()) == list(source.items())


@LAWS
@given(source=checkpoints(), order=st.randoms())
def test_any_permutation_of_names_is_a_rename_and_its_inverse_undoes_it(source, order):
    old = list(source)
    new = order.sample(old, len(old))
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assume(pairs)
    made = Rename(tuple(pairs))(source)
    assert [made[b] for b in new] == [source[a] for a in old]
    assert list(Rename(tuple((b, a) for a, b in pairs))(made).items()) == list(source.items())


slots = st.sampled_from(["", "/Adam", "/Adam_1", "/Momentum", "/ExponentialMovingAverage", "/RMSProp"])


@LAWS
@given(
    variables=st.lists(names, min_size=1, max_size=5, unique=True),
    found=st.lists(slots, unique=True),
    what=st.lists(st.sampled_from(["optimizer", "ema", "step"]), min_size=1, unique=True).map(tuple),
)
def test_strip_twice_is_strip_once(variables, found, what):
    arrays = {f"{name}{slot}": np.float32([1]) for name in variables for slot in found} | {"global_step": np.int64(1)}
    once = Strip(what)(from_arrays(arrays))
    assert list(Strip(what)(once).items()) == list(once.items())


@LAWS
@given(source=checkpoints(), others=st.integers(1, 6))
def test_the_average_of_equal_checkpoints_is_the_checkpoint(source, others):
    with np.errstate(all="ignore"):
        made = Average((source,) * others)(source)
        assert made.specs() == source.specs()
        for name in source:
            a, b = source[name].load(), made[name].load()
            if a.dtype == object or a.dtype.kind in "iub" or not is_number(source[name].spec.dtype):
                assert equal_bytes(a, b)
            else:  # NaN stays NaN, whatever its payload; -0.0 becomes 0.0, which is equal
                wide = "complex128" if a.dtype.kind == "c" else "float64"
                np.testing.assert_array_equal(a.astype(wide), b.astype(wide))


def is_number(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat", "complex"))


@LAWS
@given(source=checkpoints(frozenset(["float16", "bfloat16", "float8_e5m2", "float8_e4m3fn"])))
def test_a_wider_type_and_back_loses_nothing(source):
    for name, tensor in source.items():
        made = Cast(tensor.spec.dtype, (f"/{name}",))(Cast("float32", (f"/{name}",))(Tensors({name: tensor})))
        a, b = tensor.load().astype("float32"), made[name].load().astype("float32")
        np.testing.assert_array_equal(a, b)


@LAWS
@given(data=st.data())
def test_shapes_that_are_announced_are_those_that_come(data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple))
    array = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    axes = tuple(data.draw(st.permutations(range(len(shape)))))
    before, after = data.draw(st.integers(0, 2)), data.draw(st.integers(1, 2))
    source = from_arrays({"w": array})
    padded = Pad(("w",), before, after, axis, 7.0)(source)
    length = shape[axis]
    for operation, start in [
        (Transpose(("w",), axes), source),
        (Reshape(("w",), (-1,)), source),
        (SliceOf(("w",), 0, max(1, length - 1), axis), source),
        (SliceOf(("w",), before, before + length, axis), padded),
    ]:
        made = operation(start)["w"]
        assert made.load().shape == made.spec.shape
    np.testing.assert_array_equal(SliceOf(("w",), before, before + length, axis)(padded)["w"].load(), array)
    back = Transpose(("w",), tuple(np.argsort(axes).tolist()))(Transpose(("w",), axes)(source))
    np.testing.assert_array_equal(back["w"].load(), array)


@LAWS
@given(source=checkpoints())
def test_nothing_differs_from_itself(source):
    assert diff_tensors(source, source) == []
    # Nor from a copy of which nothing is known to be the same.
    copied = Tensors((name, from_array(tensor.load().copy(), tensor.spec.dtype)) for name, tensor in source.items())
    assert diff_tensors(source, copied) == []
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        save_checkpoint(source, f"{folder}/m")
        assert [change for change in diff_tensors(source, open_checkpoint(f"{folder}/m")) if change] == []


@LAWS
@given(source=checkpoints(), scope=words)
def test_what_was_renamed_is_all_that_differs(source, scope):
    assume(not any(name == scope or name.startswith(scope + "/") for name in source))
    changes = diff_tensors(source, Rename((("", scope),))(source))
    assert {change.change for change in changes} <= {"renamed", "removed", "added"}
    assert {change.name for change in changes if change.change != "added"} == set(source)


@LAWS
@given(source=checkpoints(), data=st.data())
def test_keep_and_its_complement_make_the_whole(source, data):
    chosen = data.draw(st.lists(st.sampled_from(list(source)), min_size=1, unique=True))
    patterns = tuple(f"/{name}" for name in chosen)
    kept = Keep(patterns)(source)
    rows = operate(source, [Keep(patterns)]).rows
    assert sorted([*kept, *(row.name for row in rows)]) == sorted(source)


@LAWS
@given(
    rules=st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), min_size=1, max_size=4),
    patterns=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3),
)
@example(rules=[("a", "next\x85line \u2028")], patterns=["\x85"])
@example(rules=[("$${", "${b}"), ("${b:-", "$$${c}")], patterns=["${", "$${x}", "${x:-1}$"])
def test_a_recipe_written_down_is_the_recipe(rules, patterns):
    made = {old: new for old, new in rules if old.strip("/") != new.strip("/") and not old.startswith("re:")}
    assume(made)
    operations = (Rename(tuple(made.items())), Keep(tuple(patterns)))
    assert parse_recipe(yaml.safe_dump(as_data(operations), sort_keys=False)) == operations


def test_the_comparison_can_fail():
    one = from_arrays({"a": np.float32([1, np.nan])})
    assert same(one, one)
    assert not same(one, from_arrays({"a": np.float32([2, np.nan])}))
    assert not same(one, from_arrays({"b": np.float32([1, np.nan])}))
    assert not same(one, from_arrays({"a": np.float64([1, np.nan])}))
