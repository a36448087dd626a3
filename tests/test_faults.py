"""Faults in a run's environment give one sentence without a traceback, and nothing saved is lost."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_net

from ckpt_tools import open_checkpoint
from ckpt_tools.cli import finetune as command
from ckpt_tools.cli import verify
from ckpt_tools.formats import output
from ckpt_tools.train.run import finetune
from ckpt_tools.train.run.run_directory import RunDirectory

ERROR = 2


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    tiny_net.write_source(folder / "source.ckpt")
    tiny_net.write_photos(folder / "photos")
    return folder


@pytest.fixture
def photos(files, tmp_path):
    """A copy of the photos, to be spoilt."""
    return Path(shutil.copytree(files / "photos", tmp_path / "photos"))


def arguments(files, train_dir, *more, data=None):
    return [
        *("--net", "tiny", "--checkpoint", str(files / "source.ckpt"), "--data", str(data or files / "photos")),
        *("--exclude", "Logits", "--batch-size", "8", "--device", "cpu", "--cache", "off"),
        *("--train-dir", str(train_dir), *more),
    ]


def sentence(err):
    """The one line of the error; every other line is what a run says of itself."""
    lines = err.splitlines()
    found = [line for line in lines if line.startswith("ckpt-finetune: ")]
    assert len(found) == 1, err
    assert lines[-1] == found[0]
    assert "Traceback" not in err
    return found[0].removeprefix("ckpt-finetune: ")


def fails(capsys, argv):
    """The sentence with which the command ends."""
    capsys.readouterr()
    assert command.main(argv) == ERROR
    return sentence(capsys.readouterr().err)


def is_whole(run, step):
    """Whether the newest checkpoint is that of `step`, opens and verifies, and `checkpoint` names it."""
    assert RunDirectory(run).steps()[-1] == step
    assert f'model_checkpoint_path: "model.ckpt-{step}"' in (run / "checkpoint").read_text()
    tensors = open_checkpoint(run / f"model.ckpt-{step}").tensors
    assert all(np.isfinite(tensors[name].load()).all() for name in tensors)
    return verify.main([str(run / f"model.ckpt-{step}")]) == 0


# --- the data ------------------------------------------------------------------------------------------------------


def spoil(file):
    file.write_bytes(file.read_bytes()[:200])


def test_a_photo_that_cannot_be_decoded_is_left_out_and_named(files, photos, tmp_path, capsys):
    spoil(photos / "train/cat/0.png")
    assert command.main(arguments(files, tmp_path / "run", "--epochs", "1", data=photos)) == 0
    assert "could not be decoded and were left out: image train/cat/0.png" in capsys.readouterr().err
    assert is_whole(tmp_path / "run", 6)


def test_validation_photos_that_cannot_be_decoded_are_left_out_of_every_evaluation(files, tmp_path, capsys):
    """Two of the same bytes, which a cache computes once; and a second run, for which they alone are missing there."""
    photos = tmp_path / "photos"
    tiny_net.write_photos(photos, train=40)
    spoil(photos / "validation/cat/2.png")
    shutil.copy(photos / "validation/cat/2.png", photos / "validation/cat/3.png")
    figures = []
    for name, cache in (("off", ()), ("cached", ("--cache", "require")), ("again", ("--cache", "require"))):
        run = tmp_path / name
        how = ("--steps", "3", "--eval-steps", "1", "--trainable", "Logits", "--cache-dir", str(tmp_path / "cache"))
        assert command.main(arguments(files, run, *how, *cache, data=photos)) == 0
        rows = [line.split(",")[:7] for line in (run / "metrics.csv").read_text().splitlines()]
        figures.append(rows)
        assert "accuracy on 16 images" in (run / "report.html").read_text()
    assert figures[0] == figures[1] == figures[2]


def test_a_run_whose_training_photos_cannot_be_decoded(files, tmp_path, capsys):
    """Few enough of all photos, and none is left to train on."""
    photos = tmp_path / "photos"
    tiny_net.write_photos(photos, classes=("cat", "dog"), train=1, validation=30)
    spoil(photos / "train/cat/0.png")
    spoil(photos / "train/dog/0.png")
    said = fails(capsys, arguments(files, tmp_path / "run", "--steps", "3", data=photos))
    assert said == "none of 2 images can be decoded"


def test_many_photos_that_cannot_be_decoded_end_the_run(files, photos, tmp_path, capsys):
    assert command.main(arguments(files, tmp_path / "run", "--steps", "3", data=photos)) == 0
    for file in (photos / "train").rglob("*.png"):
        spoil(file)
    said = fails(capsys, arguments(files, tmp_path / "run", "--steps", "9", data=photos))
    assert re.search(r"of 60 images cannot be decoded: train/\w+/\d+.png: image file is truncated", said)
    assert is_whole(tmp_path / "run", 3)


def test_an_empty_class(files, photos, tmp_path, capsys):
    for file in (photos / "train/cat").iterdir():
        file.unlink()
    said = fails(capsys, arguments(files, tmp_path / "run", data=photos))
    assert said == f"{photos}: no training images for class cat. Add images, or remove the empty class."
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["cat"], "only one class, cat. A classifier needs at least two."),
        (["cat", "dog"], "2 images leave none for validation. Add images."),
    ],
)
def test_one_image(files, tmp_path, capsys, classes, said):
    data = tmp_path / "few"
    for name in classes:
        (data / name).mkdir(parents=True)
        shutil.copy(files / f"photos/train/{name}/0.png", data / name)
    assert fails(capsys, arguments(files, tmp_path / "run", data=data)) == f"{data}: {said}"
    assert not (tmp_path / "run").exists()


def test_a_label_file_that_disagrees(files, tmp_path, capsys):
    labels = tmp_path / "labels.txt"
    labels.write_text("0:cat\n1:dog\n2:horse\n")
    said = fails(capsys, arguments(files, tmp_path / "run", "--labels", str(labels)))
    assert said == (
        "the labels file and the class folders disagree; only in the labels file: horse; only as folders: frog"
    )
    assert not (tmp_path / "run").exists()


# --- the numbers ---------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(files, tmp_path, capsys):
    run = tmp_path / "run"
    good = ["--optimizer", "sgd", "--learning-rate", "0.01"]
    assert command.main(arguments(files, run, *good, "--steps", "3")) == 0
    wild = ["--optimizer", "sgd", "--learning-rate", "1e25", "--resume", "--steps", "9", "--save-steps", "8"]
    said = fails(capsys, arguments(files, run, *wild))
    assert said.startswith("step 5: the loss is nan, and the gradient of Tiny/")
    assert f"the last good checkpoint is {run}/model.ckpt-3. Try --learning-rate 1e+24" in said
    assert is_whole(run, 3)


def test_weights_that_are_no_numbers_are_not_saved(files, tmp_path, capsys):
    run = tmp_path / "run"
    assert command.main(arguments(files, run, "--optimizer", "sgd", "--learning-rate", "0.01", "--steps", "3")) == 0
    wild = ["--optimizer", "sgd", "--learning-rate", "3e38", "--momentum", "0", "--clip-norm", "1e6"]
    wild += ["--lr-mult", "Conv_3=10", "--resume", "--steps", "4"]  # infinite in float32
    said = fails(capsys, arguments(files, run, *wild))
    assert re.match(r"step 4 made values of Tiny/Conv_3/\S+, .* that are not finite; the last good", said)
    assert f"the last good checkpoint is {run}/model.ckpt-3." in said
    assert is_whole(run, 3)


# --- the disk ------------------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
import tiny_net
from ckpt_tools.cli.finetune import main
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
sys.exit(main(sys.argv[1:]))
"""


def test_a_disk_that_fills_while_saving(files, tmp_path):
    """No file may grow beyond 30 kB, and the checkpoint with Adam's slots takes 45."""
    run = tmp_path / "run"
    assert command.main(arguments(files, run, "--steps", "3")) == 0
    before = {path.name for path in run.iterdir() if path.name.startswith(("model", "best"))}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments(files, run, "--steps", "6")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == ERROR, done.stderr
    said = sentence(done.stderr)
    fact = f"{run}/model.ckpt-6: the disk or the quota of {run} is full (File too large)"
    assert said == f"{fact}. The same command goes on once it can be written; --keep 1 needs less room."
    assert {path.name for path in run.iterdir() if path.name.startswith(("model", "best"))} == before
    assert is_whole(run, 3)
    assert command.main(arguments(files, run, "--steps", "6")) == 0  # with room again, it goes on
    assert is_whole(run, 6)


@pytest.fixture
def mount(tmp_path):
    """Mounts what the arguments of `mount` say, for the time of the test, and returns where."""
    mounted = []

    def mount_it(*arguments):
        place = tmp_path / "mounted"
        place.mkdir()
        how = ["mount", *map(str, arguments), str(place)]
        if shutil.which("mount") is None or subprocess.run(how, capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
        mounted.append(place)
        return place

    yield mount_it
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("fresh", [False, True])
def test_room_for_a_checkpoint_is_looked_for_before_training(files, tmp_path, capsys, monkeypatch, fresh):
    run = tmp_path / "run"
    if fresh:  # the run that is deleted frees a part of it: one without Adam's slots
        assert command.main(arguments(files, run, "--steps", "2", "--optimizer", "sgd")) == 0
    before = {path.name: path.read_bytes() for path in run.iterdir()} if fresh else {}
    argv = arguments(files, run, "--steps", "3", *(["--fresh"] if fresh else []))
    monkeypatch.setattr(output, "_free_bytes", lambda folder: 0 if fresh else 40_000)
    monkeypatch.setattr(finetune, "rate_at", None)  # no step is made
    said = fails(capsys, argv)
    fact = "bytes are needed for the last checkpoint and the best one, and"
    found = re.fullmatch(rf"{run}: ([\d,]+) {fact} ([\d,]+) are free", said)
    needed, free = (int(number.replace(",", "")) for number in found.groups())
    assert 55_000 < needed < 70_000  # with Adam's slots 45 kB, without them 15
    assert 30_000 < free <= 50_000
    assert ({path.name: path.read_bytes() for path in run.iterdir()} if fresh else {}) == before
    assert fresh or not run.exists()
    monkeypatch.undo()
    monkeypatch.setattr(output, "_free_bytes", lambda folder: 70_000)
    assert command.main(argv) == 0


def test_a_small_disk_fills_while_the_run_goes_on(files, capsys, mount):
    """Events and several checkpoints: whatever is the first that does not fit, all that was saved before is whole."""
    disk = mount("-t", "tmpfs", "-o", "size=450000", "tmpfs")
    often = ["--steps", "30", "--save-steps", "1", "--keep", "30"]
    said = fails(capsys, arguments(files, disk / "run", *often))
    assert re.search(r"is full \(No space left on device\)(\.|$)|bytes are needed, and [\d,]+ are free\.", said)
    steps = RunDirectory(disk / "run").steps()
    assert steps
    assert all(verify.main([str(disk / f"run/model.ckpt-{step}")]) == 0 for step in steps)
    assert not [path.name for path in (disk / "run").iterdir() if path.name.endswith(".writing")]
    subprocess.run(["mount", "-o", "remount,size=8M", str(disk)], check=True)
    assert command.main(arguments(files, disk / "run", *often)) == 0
    assert is_whole(disk / "run", 30)


def test_a_train_directory_below_a_file(files, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    said = fails(capsys, arguments(files, tmp_path / "file/run", "--steps", "2"))
    assert said == f"{tmp_path}/file/run: cannot write here (Not a directory)"
    assert (tmp_path / "file").read_text() == "kept"


def test_a_train_directory_on_a_read_only_disk(files, tmp_path, capsys, mount):
    run = tmp_path / "disk" / "run"
    assert command.main(arguments(files, run, "--steps", "2")) == 0
    place = mount("--bind", "-o", "ro", tmp_path / "disk")  # root can write to everything else
    said = fails(capsys, arguments(files, place / "run", "--steps", "4"))
    assert said == f"{place}/run: cannot write here (Read-only file system)"
    said = fails(capsys, arguments(files, place / "other", "--steps", "4"))
    assert said == f"{place}/other: cannot write here (Read-only file system)"
    assert is_whole(run, 2)
