"""Names that are not UTF-8, such as folders made under GBK: every command works, and prints them escaped."""

import csv
import json
import subprocess
from pathlib import Path

import pytest

tf = pytest.importorskip("tensorflow")

import tiny_net  # noqa: E402

from ckpt_tools.cli import evaluate as evaluate_command  # noqa: E402
from ckpt_tools.cli import export as export_command  # noqa: E402
from ckpt_tools.cli import features as features_command  # noqa: E402
from ckpt_tools.cli import finetune as finetune_command  # noqa: E402
from ckpt_tools.cli import inspect as inspect_command  # noqa: E402
from ckpt_tools.cli import predict as predict_command  # noqa: E402
from ckpt_tools.train.options.configuration import read_config  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402
from ckpt_tools.train.pages import report  # noqa: E402

DOG, PHOTOS = (text.encode("gbk").decode("utf-8", "surrogateescape") for text in ("狗", "照片"))
SPELT = r"\xb9\xb7"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder of such a name with photos of such classes, and a run on them in another such folder."""
    root = tmp_path_factory.mktemp("names") / PHOTOS
    try:
        root.mkdir()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    tiny_net.write_photos(root / "photos", classes=("cat", DOG, "frog"))
    flags = ["--net", "tiny", "--data", str(root / "photos"), "--train-dir", str(root / "run"), "--steps", "4"]
    assert finetune_command.main([*flags, "--device", "cpu"]) == 0
    return root


def test_the_run_can_be_read_and_goes_on(home, capsys):
    assert (home / "run" / "labels.txt").read_text(encoding="utf-8") == f"0:cat\n1:frog\n2:{SPELT}\n"
    options = Options(**read_config(home / "run" / "config.yaml", Options))
    assert options.data == str(home / "photos")
    assert any(path.name.startswith("events.out.tfevents") for path in (home / "run").iterdir())
    assert finetune_command.main(["--config", str(home / "run" / "config.yaml"), "--steps", "5"]) == 0
    assert "continuing     after step 4 of 5" in capsys.readouterr().err
    page = (home / "run" / "report.html").read_text(encoding="utf-8")
    assert SPELT in page
    assert r"\xd5\xd5" in page


def test_text_csv_json_and_pictures(home, capsys, tmp_path):
    out = home / "evaluation"
    assert evaluate_command.main(["--train-dir", str(home / "run"), "--output", str(out), "--report"]) == 0
    assert SPELT in capsys.readouterr().out
    assert SPELT in json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["summary"]["labels"]
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        assert SPELT in {row["true"] for row in csv.DictReader(file)}
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert predict_command.main(["--train-dir", str(home / "run"), str(home / "photos" / "train" / DOG)]) == 0
    assert rf"{SPELT}/0.png" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert inspect_command.main([str(home / "run" / "best.ckpt"), "--html", str(page)]) == 0
    assert "best.ckpt" in page.read_text(encoding="utf-8")


def test_features_and_a_run_on_them(home):
    prefix = str(home / "features")
    flags = ["--train-dir", str(home / "run"), "--output", prefix, "--projector", str(home / "projector")]
    assert features_command.main(flags) == 0
    assert f"{SPELT}\ttrain/{SPELT}/0.png\ttrain" in Path(f"{prefix}.tsv").read_text(encoding="utf-8").splitlines()
    assert f"{SPELT}\ttrain/{SPELT}/0.png" in (home / "projector" / "metadata.tsv").read_text(encoding="utf-8")
    flags = ["--data", f"{prefix}.npz", "--train-dir", str(home / "small"), "--steps", "2", "--device", "cpu"]
    assert finetune_command.main(flags) == 0


def test_exports(home):
    flags = ["--train-dir", str(home / "run"), "--output", str(home / "exported"), "--format", "saved_model,graphdef"]
    assert export_command.main(flags) == 0
    assert SPELT in (home / "exported" / "labels.txt").read_text(encoding="utf-8").splitlines()


def test_a_word_that_a_shell_can_take_back():
    word = f"my {PHOTOS}'s"
    printed = subprocess.run(["bash", "-c", f"printf %s {report.quoted(word)}"], capture_output=True, check=True).stdout
    assert printed.decode("utf-8", "surrogateescape") == word
