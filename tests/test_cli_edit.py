"""ckpt-edit: flags in order, output, written files, exit codes."""

import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.cli.edit import main, make_parser, operations_of
from ckpt_tools.errors import RecipeError
from ckpt_tools.surgery import (
    OPERATIONS,
    Average,
    Background,
    Cast,
    Drop,
    EmaToWeights,
    Graft,
    HeadResize,
    InputChannels,
    Keep,
    Rename,
    Strip,
)

ARRAYS = {
    "net/conv1/weights": np.full((3, 3, 3, 2), 1e-9, "float32"),
    "net/Logits/weights": np.float32([[1, 2, 3], [4, 5, 6]]),
    "net/Logits/biases": np.float32([7, 8, 1e9]),
    "net/Logits/biases/Momentum": np.float32([1, 1, 1]),
    "global_step": np.int64(3),
}


TABLE = """\
name                        action        from                before            after         detail
--------------------------  ------------  ------------------  ----------------  ------------  --------------------------
n/conv1/weights             rename        net/conv1/weights   float32[3,3,3,2]
n/Logits/weights            rename, head  net/Logits/weights  float32[2,3]      float32[2,2]  0 of 3 classes kept, 2 new
n/Logits/biases             rename, head  net/Logits/biases   float32[3]        float32[2]    0 of 3 classes kept, 2 new
net/Logits/biases/Momentum  strip                             float32[3]                      slot of net/Logits/biases

rename          1 tensor
rename, head    2 tensors
strip           1 tensor

            before     after
----------  ---------  ---------
tensors     5          4
parameters  67         61
bytes       272 bytes  248 bytes
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(from_arrays(ARRAYS), "model.npz", format="npz")
    return tmp_path


def values(path: str) -> dict[str, np.ndarray]:
    return {name: tensor.load() for name, tensor in open_checkpoint(path).tensors.items()}


def test_a_dry_run_shows_what_would_be_done(folder, capsys):
    assert main(["model.npz", "--dry-run", "--strip", "optimizer", "--rename", "net=n", "--head", "2"]) == 0
    out, err = capsys.readouterr()
    assert out == TABLE
    assert err == ""
    assert [path.name for path in folder.iterdir() if not path.name.startswith("model.npz")] == []


def test_what_is_written(folder, capsys):
    arguments = ["model.npz", "-o", "out.npz", "--keep", "Logits", "--keep", "!Momentum", "--cast", "float16"]
    assert main([*arguments, "--class-map", "2,_"]) == 0
    made = values("out.npz")
    assert list(made) == ["net/Logits/weights", "net/Logits/biases"]
    np.testing.assert_array_equal(made["net/Logits/weights"], np.float16([[3, 0], [6, 0]]))
    np.testing.assert_array_equal(made["net/Logits/biases"], np.float16([np.inf, 0]))
    out, err = capsys.readouterr()
    assert (
        out
        == """\
cast, head      2 tensors
drop            3 tensors

            before     after
----------  ---------  --------
tensors     5          2
parameters  67         6
bytes       272 bytes  12 bytes

name               values  overflow  underflow
-----------------  ------  --------  ---------
net/Logits/biases       2         1          0
"""
    )
    assert err == (
        "1 tensor not cast whole: values became infinite (overflow) or 0 (underflow)\n"
        "wrote out.npz, out.npz.provenance.json\n"
    )
    sidecar = json.loads((folder / "out.npz.provenance.json").read_text())
    assert sidecar["recipe"] == [
        {"keep": ["Logits", "!Momentum"]},
        {"cast": "float16"},
        {"head": {"class_map": [2, None]}},
    ]
    assert sidecar["tensors"]["net/Logits/biases"] == "cast, head (1 of 3 classes kept, 1 new)"
    assert sidecar["left_out"]["global_step"] == "drop"
    assert sidecar["losses"] == [{"net/Logits/biases": {"overflow": 1, "underflow": 0}}]
    assert sidecar["source"]["files"].keys() == {"model.npz"}


def test_the_recipe_of_the_sidecar_does_the_same_again(folder):
    assert main(["model.npz", "-o", "a.npz", "--rename", "net=n", "--strip", "step", "--input-channels", "1"]) == 0
    recipe = json.loads((folder / "a.npz.provenance.json").read_text())["recipe"]
    (folder / "again.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    assert main(["model.npz", "-o", "b.npz", "--recipe", "again.yaml"]) == 0
    assert (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()


def test_json(folder, capsys):
    assert main(["model.npz", "--dry-run", "--drop", "net/Logits", "--rename", "global_step=step", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "source": "model.npz",
        "format": "npz",
        "recipe": [{"drop": ["net/Logits"]}, {"rename": {"global_step": "step"}}],
        "rows": [
            {"name": "step", "action": "rename", "source": "global_step", "before": {"dtype": "int64", "shape": []},
             "after": {"dtype": "int64", "shape": []}, "detail": ""},
            *(
                {"name": f"net/Logits/{leaf}", "action": "drop", "source": f"net/Logits/{leaf}", "detail": "",
                 "before": {"dtype": "float32", "shape": shape}, "after": None}
                for leaf, shape in [("weights", [2, 3]), ("biases", [3]), ("biases/Momentum", [3])]
            ),
        ],
        "summary": {
            "before": {"tensors": 5, "parameters": 67, "bytes": 272},
            "after": {"tensors": 2, "parameters": 55, "bytes": 224},
        },
        "losses": {},
        "files": [],
    }  # fmt: skip


def test_nothing_to_do_is_said(folder, capsys):
    assert main(["model.npz", "--dry-run", "--strip", "ema"]) == 0
    assert capsys.readouterr().out.startswith("nothing changes\n")


FLAGS = {
    "--rename a=b --rename b=c": (Rename((("a", "b"),)), Rename((("b", "c"),))),
    "--rename a=b,b=a": (Rename((("a", "b"), ("b", "a"))),),
    "--rename re:x{1,2}=y": (Rename((("re:x{1,2}", "y"),)),),
    "--keep a,b --keep !c --drop d --drop e": (Keep(("a,b", "!c")), Drop(("d", "e"))),
    "--drop a --keep b --drop c": (Drop(("a",)), Keep(("b",)), Drop(("c",))),
    "--strip optimizer,ema --ema-to-weights": (Strip(("optimizer", "ema")), EmaToWeights()),
    "--cast bfloat16 --keep-statistics": (Cast("bfloat16", keep_statistics=True),),
    "--head 5 --head-in out --head-init normal": (HeadResize(5, select=("out",), init="normal"),),
    "--class-map 3-4,_ --strip ema --head 3": (HeadResize(3, (3, 4, None)), Strip(("ema",))),
    f"--class-map {','.join(map(str, range(200)))}": (HeadResize(class_map=tuple(range(200))),),
    "--class-map map.txt": (HeadResize(class_map=(1, None)),),
    "--labels-from old.txt --labels-to new.txt": (HeadResize(labels_from=("a", "b"), labels_to=("b",)),),
    "--background drop --input-channels 1": (Background("drop"), InputChannels(1)),
    "--head 5 --head-in a --head-in b,c": (HeadResize(5, select=("a", "b,c")),),
    "--background add --head-in a --head-in b": (Background("add", ("a", "b")),),
    "--background add --head-in out --head 3": (Background("add", ("out",)), HeadResize(3)),
    "--average a b --graft c Logits": (Average(("a", "b")), Graft("c", ("Logits",))),
    "--strip ema --recipe drop-background --strip step": (Strip(("ema",)), Background("drop"), Strip(("step",))),
}


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_are_operations_in_the_order_typed(flags, folder):
    (folder / "map.txt").write_text("1\n_\n")
    (folder / "old.txt").write_text("a\nb\n")
    (folder / "new.txt").write_text("b\n")
    assert operations_of(make_parser().parse_args(["SRC", *flags.split()]).steps) == FLAGS[flags]


def test_parameters_of_a_recipe(folder):
    steps = make_parser().parse_args(["SRC", "--recipe", "new-head"]).steps
    assert operations_of(steps, ["classes=5"])[1].classes == 5
    with pytest.raises(RecipeError, match="--set classes is not NAME=VALUE"):
        operations_of(steps, ["classes"])
    with pytest.raises(RecipeError, match="there is none"):
        operations_of([], ["classes=5"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("model.npz --strip ema", "no output given. Add -o DST, or --dry-run."),
        ("model.npz -o out.npz --keep Logitz", "keep: Logitz selects nothing of 5 tensors; did you mean net/Logits"),
        ("model.npz -o out.npz --drop ,", "model.npz: drop: ',' is not a pattern"),
        ("model.npz -o out.npz --drop **", "model.npz: nothing is left: every tensor was dropped"),
        ("model.npz -o out.npz --rename net=a,net=b", "rename: net is renamed twice"),
        ("model.npz -o out.npz --keep-statistics", "--keep-statistics must follow --cast"),
        ("model.npz -o out.npz --recipe new-head", "${classes} has no value; give --set classes=VALUE"),
        ("model.npz -o model.npz --drop net", "model.npz: exists already (model.npz). Use --force"),
        ("model.npz -o out.npz --average other.npz", "other.npz: there is no such file"),
        ("nothing.ckpt -o out.npz --strip ema", "nothing.ckpt"),
        ("model.npz -o out.npz --labels-from none.txt --labels-to none.txt", "none.txt: cannot be read as labels"),
        ("model.npz -o out.npz --class-map 3,4", "head: the head has classes 0 to 2, the class map asks for 3, 4"),
        ("model.npz -o out.ckpt --shards 0", "out.ckpt: a checkpoint has 1 data file or more, not 0"),
        ("model.npz -o out.npz --shards 2", "--shards is for V2 checkpoints; a npz file is written as one"),
        ("model.npz -o out.npz --link", "--link is for V2 checkpoints"),
        ("model.npz -o out.npz --cast int8", "in a recipe, `select` says which tensors to cast"),
        ("model.npz -o no/out.npz --drop net", "there is no folder no"),
        ("model.npz -o out.keras --drop net", "cannot write .keras files"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence_and_writes_nothing(arguments, said, folder, capsys):
    before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.startswith("ckpt-edit: ")
    assert err.count("\n") == 1
    assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == before


def test_over_the_source_itself(folder):
    assert main(["model.npz", "-o", "model.npz", "--force", "--drop", "conv1"]) == 0
    np.testing.assert_array_equal(values("model.npz")["net/Logits/weights"], ARRAYS["net/Logits/weights"])


def test_average_and_graft_of_files(folder):
    other = {name: array * 3 for name, array in ARRAYS.items()}
    save_checkpoint(from_arrays(other), "other.npz", format="npz")
    assert main(["model.npz", "-o", "mean.npz", "--average", "other.npz"]) == 0
    np.testing.assert_array_equal(values("mean.npz")["net/Logits/weights"], ARRAYS["net/Logits/weights"] * 2)
    assert values("mean.npz")["global_step"] == 3
    told = json.loads((folder / "mean.npz.provenance.json").read_text())["source"]
    assert [list(each["files"]) for each in told] == [["model.npz"], ["other.npz"]]
    assert main(["model.npz", "-o", "mixed.npz", "--graft", "other.npz", "Logits"]) == 0
    mixed = values("mixed.npz")
    np.testing.assert_array_equal(mixed["net/Logits/weights"], other["net/Logits/weights"])
    np.testing.assert_array_equal(mixed["net/conv1/weights"], ARRAYS["net/conv1/weights"])


def test_average_and_graft_of_an_archive(folder):
    save_checkpoint(from_arrays({name: array * 3 for name, array in ARRAYS.items()}), "other.ckpt")
    with tarfile.open("other.tar.gz", "w:gz") as archive:
        for file in ("other.ckpt.index", "other.ckpt.data-00000-of-00001"):
            archive.add(file)
    assert main(["model.npz", "-o", "mean.npz", "--average", "other.tar.gz"]) == 0
    np.testing.assert_array_equal(values("mean.npz")["net/Logits/weights"], ARRAYS["net/Logits/weights"] * 2)
    assert main(["model.npz", "-o", "mixed.ckpt", "--graft", "other.tar.gz", "Logits"]) == 0
    np.testing.assert_array_equal(values("mixed.ckpt")["net/Logits/weights"], ARRAYS["net/Logits/weights"] * 3)


def test_only_the_worst_losses_are_listed(folder, capsys):
    arrays = {f"layer{place}": np.full(place, 1e9, "float32") for place in range(1, 15)}
    save_checkpoint(from_arrays(arrays), "many.npz", format="npz")
    assert main(["many.npz", "-o", "half.npz", "--cast", "float16"]) == 0
    out, err = capsys.readouterr()
    listed = out.partition("underflow\n")[2].splitlines()[1:]
    assert [line.split()[0] for line in listed[:-1]] == [f"layer{place}" for place in range(14, 4, -1)]
    assert listed[-1] == "... and 4 tensors with fewer"
    assert err.startswith("14 tensors not cast whole")


def test_part_of_a_source(folder):
    assert main(["model.npz:net/Logits", "-o", "head.npz", "--strip", "optimizer"]) == 0
    assert list(values("head.npz")) == ["weights", "biases"]


def test_help_names_every_operation_that_needs_no_recipe(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    in_recipes_alone = {"reshape", "transpose", "slice", "pad", "fill"}
    for command in {"num_classes", *OPERATIONS} - {"head"} - in_recipes_alone:
        assert f"--{command.replace('_', '-')} " in text or f"--{command.replace('_', '-')}\n" in text


def test_a_rename_of_a_v2_checkpoint_needs_no_numpy(folder, GOLDEN):
    source = GOLDEN / "tf115_v2_training" / "model.ckpt-2"
    program = (
        "import sys; from ckpt_tools.cli.edit import main;"
        f"main([{str(source)!r}, '-o', 'out.ckpt', '--rename', 'net=n', '--strip', 'optimizer']);"
        "print(sorted({'numpy', 'yaml', 'tensorflow', 'h5py'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
