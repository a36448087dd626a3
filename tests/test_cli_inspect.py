"""ckpt-inspect as a user runs it: its exact output, its exit codes, its imports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import Tensors, __version__, cli, from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.__main__ import main as main_of_all
from ckpt_tools.cli import inspect
from ckpt_tools.cli.inspect import main
from ckpt_tools.formats import Checkpoint

INCEPTION = Path(__file__).parents[2] / "shared" / "checkpoints" / "inception_v3.ckpt"
ARRAYS = {
    "global_step": np.int64(1000),
    "labels": np.array([b"cat", b"d\xc3\xb6g"], object),
    "net/Logits/biases": np.float32([0.5, -1.5]),
    "net/Logits/weights": np.float32([[1, 0], [0, 2], [-3, 4]]),
    "net/Logits/weights/Momentum": np.zeros((3, 2), "float32"),
    "net/bn/beta": np.float32([1, 2, 3]),
    "net/bn/moving_mean": np.float32([np.nan, np.inf, 7]),
}
HEAD = "model.ckpt: V2 checkpoint, 7 tensors, 23 parameters, 101 bytes\n"


@pytest.fixture(autouse=True)
def in_a_folder_with_a_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(from_arrays(ARRAYS), tmp_path / "model.ckpt")
    monkeypatch.chdir(tmp_path)


def stdout(capsys, *argv, code=0, stderr=""):
    assert main(["model.ckpt", *argv]) == code
    captured = capsys.readouterr()
    assert captured.err == stderr
    return captured.out


def test_listing(capsys):
    assert stdout(capsys) == HEAD + (
        "\n"
        "name                         dtype    shape  parameters  bytes  kind       of\n"
        "---------------------------  -------  -----  ----------  -----  ---------  ------------------\n"
        "global_step                  int64    []              1      8  step\n"
        "labels                       string   [2]             2     13  other\n"
        "net/Logits/biases            float32  [2]             2      8  weight\n"
        "net/Logits/weights           float32  [3,2]           6     24  weight\n"
        "net/Logits/weights/Momentum  float32  [3,2]           6     24  slot       net/Logits/weights\n"
        "net/bn/beta                  float32  [3]             3     12  weight\n"
        "net/bn/moving_mean           float32  [3]             3     12  statistic\n"
        "\n"
        "kind       tensors  parameters  bytes       size\n"
        "---------  -------  ----------  -----  ---------\n"
        "weight           3          11     44   44 bytes\n"
        "statistic        1           3     12   12 bytes\n"
        "slot             1           6     24   24 bytes\n"
        "step             1           1      8    8 bytes\n"
        "other            1           2     13   13 bytes\n"
        "total            7          23    101  101 bytes\n"
    )


def test_scope_and_sort(capsys):
    lines = stdout(capsys, "--scope", "Logits", "--scope", "!Momentum", "--sort", "size").splitlines()
    assert lines[1:6] == [
        "selected by --scope Logits,!Momentum: 2 of 7 tensors",
        "",
        "name                dtype    shape  parameters  bytes  kind",
        "------------------  -------  -----  ----------  -----  ------",
        "net/Logits/weights  float32  [3,2]           6     24  weight",
    ]
    assert stdout(capsys, "--scope", "bn", "--names") == "net/bn/beta\nnet/bn/moving_mean\n"


def test_tree(capsys):
    assert stdout(capsys, "--tree=2").splitlines()[2:8] == [
        "scope        tensors  parameters      size  share",
        "-----------  -------  ----------  --------  -----",
        "global_step        1           1   8 bytes   7.9%",
        "labels             1           2  13 bytes  12.9%",
        "net/               5          20  80 bytes  79.2%",
        "  Logits/          3          14  56 bytes  55.4%",
    ]
    deep = [line.split() for line in stdout(capsys, "--tree").splitlines()]
    assert ["weights/", "2", "12", "48", "bytes", "47.5%"] in deep and [
        "Momentum",
        "1",
        "6",
        "24",
        "bytes",
        "23.8%",
    ] in deep
    tree = json.loads(stdout(capsys, "--json", "--tree", "1"))["tree"]
    assert [each["path"] for each in tree] == ["", "global_step", "labels", "net"]


def test_statistics(capsys):
    lines = stdout(capsys, "--stats", "--scope", "biases,moving_mean,labels").splitlines()[3:8]
    assert [line[55:] for line in lines] == [
        "kind        min  max  mean  std  zeros  nan  inf",
        "---------  ----  ---  ----  ---  -----  ---  ---",
        "other                                0    0    0",
        "weight     -1.5  0.5  -0.5    1      0    0    0",
        "statistic     7    7     7    0      0    1    1",
    ]


def test_values(capsys):
    assert stdout(capsys, "--tensor", "net/Logits/weights", "--tensor", "labels", "--tensor", "global_step") == (
        "net/Logits/weights: float32[3,2]\n[[ 1.,  0.],\n [ 0.,  2.],\n [-3.,  4.]]\n"
        "labels: string[2]\n[b'cat', b'd\\xc3\\xb6g']\n"
        "global_step: int64[]\n1000\n"
    )
    assert json.loads(stdout(capsys, "--json", "--tensor", "labels")) == [
        {"name": "labels", "dtype": "string", "shape": [2], "values": ["cat", "dög"]}
    ]


def test_json_holds_no_number_that_is_none_in_json(capsys, tmp_path):
    values = {"f": np.array([1.5, np.nan, -np.inf], "float32"), "c": np.array([complex(np.inf, 2)], "complex64")}
    save_checkpoint(from_arrays(values), tmp_path / "m.ckpt")
    assert main([str(tmp_path / "m.ckpt"), "--tensor", "f", "--tensor", "c", "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [each["values"] for each in found] == [[1.5, "nan", "-inf"], [["inf", 2.0]]]


def test_long_tensors_are_summarised_unless_asked_for(capsys, tmp_path):
    save_checkpoint(from_arrays({"long": np.arange(3000)}), tmp_path / "long.ckpt")
    assert main(["long.ckpt", "--tensor", "long"]) == 0
    assert capsys.readouterr().out == "long: int64[3000]\n[   0,    1,    2, ..., 2997, 2998, 2999]\n"
    assert main(["long.ckpt", "--tensor", "long", "--all-values"]) == 0
    assert "1234, " in capsys.readouterr().out


def test_json(capsys):
    found = json.loads(stdout(capsys, "--json"))
    assert list(found) == ["source", "format", "net", "tensors", "totals"]
    assert (found["source"], found["format"], found["net"]) == ("model.ckpt", "v2", None)
    assert found["tensors"][3:5] == [
        {
            "name": "net/Logits/weights",
            "dtype": "float32",
            "shape": [3, 2],
            "parameters": 6,
            "bytes": 24,
            "kind": "weight",
        },
        {
            "name": "net/Logits/weights/Momentum",
            "dtype": "float32",
            "shape": [3, 2],
            "parameters": 6,
            "bytes": 24,
            "kind": "slot",
            "of": "net/Logits/weights",
        },
    ]
    assert found["totals"]["tensors"] == 7
    assert found["totals"]["kinds"]["slot"] == {"tensors": 1, "parameters": 6, "bytes": 24}
    with_values = json.loads(stdout(capsys, "--json", "--stats", "--scope", "moving_mean"))
    assert with_values["tensors"][0]["nan"] == 1 and with_values["tensors"][0]["max"] == 7.0


def test_fail_on(capsys):
    found = "ckpt-inspect: 1 tensor with NaN or Inf: net/bn/moving_mean (1 NaN, 1 Inf)\n"
    assert stdout(capsys, "--fail-on", "nan,inf", code=1, stderr=found).startswith(HEAD)
    stdout(capsys, "--fail-on", "nan", "--scope", "Logits")
    stdout(capsys, "--fail-on", "inf", "--json", code=1, stderr=found.replace("NaN or ", "").replace("1 NaN, ", ""))


@pytest.mark.parametrize("options", [["--html", "page.html"], ["--tensor", "net/bn/moving_mean"]], ids=str)
def test_fail_on_beside_a_page_or_values(capsys, options):
    assert main(["model.ckpt", *options, "--fail-on", "nan"]) == 1
    assert capsys.readouterr().err.endswith("ckpt-inspect: 1 tensor with NaN: net/bn/moving_mean (1 NaN)\n")
    good = [options[0], options[1].replace("moving_mean", "beta"), "--scope", "Logits"]
    assert main(["model.ckpt", *good, "--fail-on", "nan"]) == 0


def test_json_of_names_and_beside_a_page(capsys):
    assert json.loads(stdout(capsys, "--names", "--scope", "bn", "--json")) == ["net/bn/beta", "net/bn/moving_mean"]
    assert main(["model.ckpt", "--html", "page.html", "--stats", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("ckpt-inspect: wrote page.html, ")
    assert json.loads(out) == json.loads(stdout(capsys, "--stats", "--json"))


@pytest.mark.parametrize("read", [20_000, 2], ids=["all in the page", "two in the page"])
@pytest.mark.parametrize(
    "options",
    [["--html", "page.html"], ["--tensor", "net/bn/moving_mean"], ["--stats"], ["--json", "--stats"]],
    ids=str,
)
def test_values_are_read_once(capsys, monkeypatch, options, read):
    """A second reading doubles the time of a check on a file of many gigabytes."""
    loaded = []

    def counted(source, **how):
        opened = open_checkpoint(source, **how)

        def counting(name, tensor):
            return tensor._replace(load=lambda: loaded.append(name) or tensor.load())

        return opened._replace(tensors=Tensors((n, counting(n, t)) for n, t in opened.tensors.items()))

    monkeypatch.setattr(inspect, "open_checkpoint", counted)
    monkeypatch.setattr("ckpt_tools.explorer.READ", read)
    assert main(["model.ckpt", *options, "--fail-on", "nan"]) == 1
    assert capsys.readouterr().err.endswith("ckpt-inspect: 1 tensor with NaN: net/bn/moving_mean (1 NaN)\n")
    assert sorted(loaded) == (["net/bn/moving_mean"] if options[0] == "--tensor" else sorted(ARRAYS))


def test_what_cannot_be_done(capsys):
    assert "--scope Logitz selects nothing of 7 tensors; did you mean net/Logits (3 variables)?\n" in fails(
        capsys, "model.ckpt", "--scope", "Logitz"
    )
    assert "no tensor is named net/Logits/weight; did you mean net/Logits/weights (" in fails(
        capsys, "model.ckpt", "--tensor", "net/Logits/weight"
    )
    assert "mode.ckpt" in fails(capsys, "mode.ckpt")
    for scope in ("", ",", "Logits,!net"):
        assert f"--scope '{scope}' leaves nothing of 7 tensors\n" in fails(capsys, "model.ckpt", "--scope", scope)


def fails(capsys, *argv):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--tree", "model.ckpt"], "'model.ckpt' is not a depth; write --tree=2, or give SRC before --tree"),
        (["model.ckpt", "--fail-on", "nans"], "'nans' is not one of nan, inf"),
        (["model.ckpt", "--sort", "length"], "invalid choice: 'length'"),
        (["model.ckpt", "--names", "--tree"], "argument --tree: not allowed with argument --names"),
    ],
)
def test_wrong_arguments(capsys, argv, message):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_an_empty_checkpoint_is_no_success(capsys, monkeypatch):
    empty = Checkpoint(Tensors(), "v2", "model.ckpt")
    monkeypatch.setattr("ckpt_tools.cli.inspect.open_checkpoint", lambda source, names: empty)
    assert stdout(capsys, code=1, stderr="ckpt-inspect: model.ckpt holds no tensors\n") == (
        "model.ckpt: V2 checkpoint, 0 tensors, 0 parameters, 0 bytes\n"
    )
    assert (
        json.loads(stdout(capsys, "--json", code=1, stderr="ckpt-inspect: model.ckpt holds no tensors\n"))["tensors"]
        == []
    )


def test_a_member_of_a_checkpoint_is_enough(capsys):
    assert main(["model.ckpt.index"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "note: model.ckpt.index belongs to the V2 checkpoint model.ckpt"


def test_damage_names_the_tensor(capsys, tmp_path):
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[content.index(np.float32([1, 2, 3]).tobytes())] ^= 1
    data.write_bytes(content)
    text = fails(capsys, "model.ckpt", "--stats")
    assert "net/bn/beta" in text
    assert text.endswith(f"ckpt-verify {data.name} --salvage DST saves the tensors that are good.\n")
    assert main(["model.ckpt", "--tensor", "net/bn/beta"]) == 2
    assert capsys.readouterr().err == text
    assert main(["model.ckpt"]) == 0  # the listing reads no values


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "examples:\n  ckpt-inspect inception_v3.ckpt\n" in capsys.readouterr().out


LISTING = """
import sys
from ckpt_tools.cli.inspect import main
code = main(sys.argv[1:])
heavy = {"numpy", "tensorflow", "tabulate", "yaml", "h5py", "ml_dtypes"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""


@pytest.mark.parametrize("options", [[], ["--json"], ["--tree"], ["--scope", "Logits", "--sort", "size"]])
def test_a_listing_imports_neither_numpy_nor_tensorflow(options):
    done = subprocess.run([sys.executable, "-c", LISTING, "model.ckpt", *options], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_import_check_can_fail():
    argv = [sys.executable, "-c", LISTING, "model.ckpt", "--stats"]
    assert "imported {'numpy'" in subprocess.run(argv, capture_output=True, text=True).stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "a.ckpt"), "a.ckpt: permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("timed out"), "timed out"),
    ],
)
def test_what_the_system_says_is_told_without_its_number(capsys, error, said):
    def command(args):
        raise error

    assert cli.run(cli.parser("ckpt-x", "does it", "ckpt-x"), command, []) == 2
    assert capsys.readouterr().err == f"ckpt-x: {said}\n"


def test_memory_that_runs_out_is_no_traceback(capsys):
    def command(args):
        raise MemoryError("Unable to allocate 93.1 GiB for an array")

    made = cli.parser("ckpt-x", "does it", "ckpt-x")
    assert cli.run(made, command, []) == 2
    assert capsys.readouterr().err == "ckpt-x: out of memory: Unable to allocate 93.1 GiB for an array\n"
    made.add_argument("--batch-size")
    assert cli.run(made, command, []) == 2
    assert capsys.readouterr().err == "ckpt-x: out of memory; try a smaller --batch-size\n"
    with pytest.raises(MemoryError):
        cli.run(made, command, ["--debug"])


@pytest.mark.parametrize("buffered", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("words", ["inspect model.ckpt", "inspect --help", "--help"])
def test_output_that_nobody_reads(words, buffered):
    """A closed pipe is no error, a full disk is one; neither shows what Python says of it at its exit."""
    command = f"{sys.executable} -m ckpt_tools {words} | true; exit ${{PIPESTATUS[0]}}"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | buffered
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    if words == "inspect model.ckpt":
        with Path("/dev/full").open("w") as full:
            done = subprocess.run([sys.executable, "-m", "ckpt_tools", *words.split()], stdout=full, stderr=-1, env=env)
        assert (done.returncode, done.stderr) == (2, b"ckpt-inspect: No space left on device\n")


def test_output_into_a_closed_pipe():
    command = f"{sys.executable} -m ckpt_tools inspect model.ckpt | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=os.environ)
    assert (done.stdout, done.stderr) == (HEAD, "")


@pytest.mark.parametrize(
    ("closed", "command", "code"),
    [("2>&-", "nothing.ckpt", 2), (">&-", "model.ckpt", 0), (">&-", "model.ckpt --json", 0), (">&- 2>&- <&-", "x", 2)],
)
def test_a_stream_that_is_closed_is_not_replaced_by_another(closed, command, code):
    command = f"{sys.executable} -m ckpt_tools inspect {command} {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=os.environ)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", code)


def test_a_folder_that_was_deleted_under_the_command():
    source = Path("model.ckpt").absolute()
    command = f"mkdir d && cd d && rmdir ../d; {sys.executable} -m ckpt_tools edit {source} -o x.npz --keep net"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=env)
    said = "ckpt-edit: the current folder was deleted. Change to one that is there.\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("words", [["--version"], ["inspect", "--version"], ["finetune", "--version"]])
def test_the_version(words, capsys):
    try:
        assert main_of_all(words) == 0
    except SystemExit as ended:
        assert ended.code == 0
    name = "-".join(["ckpt", words[0]]) if len(words) > 1 else "ckpt-tools"
    assert capsys.readouterr().out == f"{name} {__version__}\n"


def test_what_is_said_of_a_missing_command_is_a_message(capsys):
    assert main_of_all([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "inspect    what a checkpoint holds" in err


@pytest.mark.skipif(not INCEPTION.exists(), reason="needs ../shared/checkpoints/inception_v3.ckpt")
def test_the_trained_inception_v3(capsys):
    assert main([str(INCEPTION)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].removeprefix(str(INCEPTION)) == (
        ": V1 checkpoint, 388 tensors, 27,182,194 parameters, 108.7 MB; slim InceptionV3, 1001 classes, with AuxLogits"
    )
    assert lines[-1].split() == ["total", "388", "27,182,194", "108,728,776", "108.7", "MB"]
    assert main([str(INCEPTION), "--json", "--scope", "Logits"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["net"] == "inception_v3"
    assert [each["shape"] for each in found["tensors"]] == [[1001], [1, 1, 2048, 1001]]


TRAINED = """\
model.ckpt-2: V1 checkpoint, 17 tensors, 73 parameters, 296 bytes

name                                  dtype    shape  parameters  bytes  kind     of
------------------------------------  -------  -----  ----------  -----  -------  -----------
beta1_power                           float32  []              1      4  slot
beta2_power                           float32  []              1      4  slot
global_step                           int64    []              1      8  step
net/biases                            float32  [2]             2      8  weight
net/biases/Adam                       float32  [2]             2      8  slot     net/biases
net/biases/Adam_1                     float32  [2]             2      8  slot     net/biases
net/biases/ExponentialMovingAverage   float32  [2]             2      8  average  net/biases
net/biases/Momentum                   float32  [2]             2      8  slot     net/biases
net/biases/RMSProp                    float32  [2]             2      8  slot     net/biases
net/biases/RMSProp_1                  float32  [2]             2      8  slot     net/biases
net/weights                           float32  [4,2]           8     32  weight
net/weights/Adam                      float32  [4,2]           8     32  slot     net/weights
net/weights/Adam_1                    float32  [4,2]           8     32  slot     net/weights
net/weights/ExponentialMovingAverage  float32  [4,2]           8     32  average  net/weights
net/weights/Momentum                  float32  [4,2]           8     32  slot     net/weights
net/weights/RMSProp                   float32  [4,2]           8     32  slot     net/weights
net/weights/RMSProp_1                 float32  [4,2]           8     32  slot     net/weights

kind     tensors  parameters  bytes       size
-------  -------  ----------  -----  ---------
weight         2          10     40   40 bytes
slot          12          52    208  208 bytes
average        2          10     40   40 bytes
step           1           1      8    8 bytes
total         17          73    296  296 bytes
"""


@pytest.mark.parametrize("version", ["tf012_v1", "tf115_v1", "tf221_v1", "tf012_v2", "tf115_v2", "tf221_v2"])
def test_what_every_tensorflow_writes_is_listed_alike(capsys, monkeypatch, GOLDEN, version):
    monkeypatch.chdir(GOLDEN / f"{version}_training")
    assert main(["model.ckpt-2"]) == 0
    assert capsys.readouterr().out == TRAINED.replace("V1", version[-2:].upper())


def test_object_based_names_and_stored_keys(capsys, monkeypatch, GOLDEN):
    monkeypatch.chdir(GOLDEN / "tf221_object")
    assert main(["ckpt-1", "--names"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["model/blocks/0/b", "model/blocks/0/w"]
    assert main(["ckpt-1", "--names", "--stored-names", "--scope", "re:^model/blocks/0/b"]) == 0
    assert capsys.readouterr().out == "model/blocks/0/b/.ATTRIBUTES/VARIABLE_VALUE\n"
    assert main(["ckpt-1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ckpt-1: object-based V2 checkpoint, 9 tensors, 29 parameters, 104 bytes"
    assert "Variable          int64          []              1      8  step" in lines  # its key is step/.ATTRIBUTES/...


def test_options_about_tensors_are_not_for_a_graph(GOLDEN, capsys):
    assert main([str(GOLDEN / "tf221_graph" / "model.ckpt"), "--graph", "--stats", "--fail-on", "nan"]) == 2
    assert "--stats and --fail-on: these show tensors, not a graph. Leave out --graph." in capsys.readouterr().err
