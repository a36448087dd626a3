"""Files that a run did not write are never removed, neither by a fresh start nor by saving, wherever the source is."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from small_run import begin, held, opened, plan, step_of, tensors, write_run

from ckpt_tools import open_checkpoint, save_checkpoint
from ckpt_tools.errors import OutputError, TrainingError
from ckpt_tools.train.graph.cluster import MachineLostError
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run import lead
from ckpt_tools.train.run.lineage import lineage
from ckpt_tools.train.run.run_directory import RunDirectory
from ckpt_tools.train.run.written import FILES, new_list


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


# --- files that the run did not write --------------------------------------------------------------------------------


def test_folders_of_others_are_left_alone(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(TrainingError, match="is a file; --train-dir must be a folder"):
        opened(file)
    assert opened(tmp_path / "new")[1] is None
    (tmp_path / "photo.jpg").write_text("")
    assert opened(tmp_path)[1] is None


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "checkpoints") for name in ("model.ckpt-7.index", "model.ckpt-7", "best.ckpt", "model.ckpt-7.meta")),
        *((name, "files") for name in ("checkpoint", "labels.txt", "metrics.csv", "config.yaml", "report.html")),
    ],
)
def test_nothing_is_written_over_that_no_run_wrote(tmp_path, name, kind, fresh):
    """Saving best.ckpt removes a V1 file of that name; labels.txt may be the data's own."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(TrainingError) as caught:
        opened(tmp_path, fresh=fresh)
    fact = f"holds {kind} that ckpt-finetune did not write, under names that runs use: {name}"
    assert str(caught.value) == f"{tmp_path}: {fact}. Name another folder, or move them elsewhere."
    assert held(tmp_path) == {name: b"mine"}


def test_a_run_without_its_list_is_left_alone(run):
    directory = run
    (directory.path / "written.json").unlink()
    before = held(directory.path)
    for fresh in (False, True):
        with pytest.raises(TrainingError, match="holds a run, but not the list written.json of what that run wrote"):
            opened(directory.path, fresh=fresh)
    assert held(directory.path) == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": 1, "files": 2, "checkpoints": {}}', "\0"])
def test_a_list_that_is_none(run, text):
    (run.path / "written.json").write_text(text)
    with pytest.raises(TrainingError, match="written.json: is not the list of what a run wrote"):
        opened(run.path, fresh=True)


def test_a_list_reaches_no_other_file(run):
    directory = run
    for place in (directory.path.parent / "other.txt", directory.path / "notes.txt"):
        place.write_text("mine")
    record = json.loads((directory.path / "written.json").read_text())
    record["files"] += ["../other.txt", "notes.txt"]
    record["checkpoints"] |= {"../other": ["0"], "notes.txt": ["0"]}
    (directory.path / "written.json").write_text(json.dumps(record))
    begin(directory)
    assert (directory.path.parent / "other.txt").read_text() == "mine"
    assert (directory.path / "notes.txt").read_text() == "mine"


def test_a_fresh_start_deletes_what_the_run_wrote_and_nothing_else(run):
    directory = run
    directory.save_best(tensors(10), {}, {"step": 10})
    directory.log({"step": 3})
    suffix = directory.written.event_suffix
    for name in (f"events.out.tfevents.1.host{suffix}", "report.html", "result.json", "plan.json.writing"):
        (directory.path / name).write_text("the run's")
    (directory.path / ".model.ckpt-20.partial-1").mkdir()  # of a run that was killed while it wrote
    (directory.path / ".model.ckpt-20.partial-1/data").write_text("half")
    others = {"notes.txt": b"mine", "events.out.tfevents.2.host": b"mine", "inception_v3.ckpt": b"mine"}
    for name, content in others.items():
        (directory.path / name).write_bytes(content)
    before = held(directory.path)
    assert opened(directory.path, fresh=True)[1] is None
    assert held(directory.path) == before  # not before the new run begins
    begin(directory)
    after = held(directory.path)
    assert set(after) == {*others, "written.json", "config.yaml", "labels.txt", "plan.json"}
    assert {name: after[name] for name in others} == others
    assert directory.written.event_suffix != suffix
    assert not (directory.path / ".model.ckpt-20.partial-1").exists()


@pytest.mark.parametrize("name", ["model.ckpt-15", "best.ckpt", "model.ckpt-1000"])
@pytest.mark.parametrize("format", ["v1", "v2"])
def test_a_checkpoint_that_was_put_in_the_place_of_the_run_s_own(run, name, format):
    """The name is on the list, the content is another's."""
    directory = run
    directory.save_best(tensors(10), {}, {"step": 10})
    save_checkpoint(tensors(99), directory.path / name, format=format, force=True)
    before = held(directory.path)
    for how in ({"fresh": True}, {"resume": True}, {}):
        with pytest.raises(TrainingError, match=f"holds checkpoints that this run did not write.*: {name}"):
            opened(directory.path, **how)
    directory.written.clear()  # and even then
    assert step_of(directory.path / name) == 99
    assert {key for key in before if key.startswith(name)} <= set(held(directory.path))


def test_a_checkpoint_that_is_put_there_while_the_run_goes_on(run):
    directory = run
    save_checkpoint(tensors(99), directory.path / "model.ckpt-20")
    with pytest.raises(OutputError, match="model.ckpt-20: exists, and this run did not write it. Move it away"):
        directory.save(20, tensors(20), {})
    save_checkpoint(tensors(99), directory.path / "best.ckpt", format="v1")
    with pytest.raises(OutputError, match="best.ckpt: exists, and this run did not write it"):
        directory.save_best(tensors(20), {}, {"step": 20})
    directory.save(25, tensors(25), {})
    directory.save(30, tensors(30), {})
    assert directory.steps() == [25, 30]  # and it is not counted among those that --keep keeps
    assert step_of(directory.path / "model.ckpt-20") == step_of(directory.path / "best.ckpt") == 99


def test_a_run_is_still_itself_when_it_was_copied_or_lost_its_sidecars(run, tmp_path):
    directory = run
    shutil.copytree(directory.path, tmp_path / "copy")
    for path in (tmp_path / "copy").glob("*.provenance.json"):
        path.unlink()
    assert opened(tmp_path / "copy", plan(trainable=["logits"]), trainable=("logits",))[1] == 15
    assert RunDirectory(tmp_path / "copy").steps() == [10, 15]


def test_the_list_names_every_file(run):
    directory = run
    record = json.loads((directory.path / "written.json").read_text())
    assert set(record["files"]) == set(FILES)
    assert {name: len(digests) for name, digests in record["checkpoints"].items()} == {
        "model.ckpt-10": 1,
        "model.ckpt-15": 1,
    }


# --- the source ------------------------------------------------------------------------------------------------------

REFUSED = "the source is in this folder, and --fresh would delete the run there. Name another folder"


def given(folder, how):
    """The run's best.ckpt, or one made beside it, as people give it."""
    root, prefix = folder.parent, folder / "best.ckpt"
    if how == "link":
        for ending in ("index", "data-00000-of-00001"):
            (root / f"link.{ending}").symlink_to(f"{prefix}.{ending}")
        return root / "link"
    if how == "linked folder":
        (root / "linked").symlink_to(folder)
        return root / "linked" / "best.ckpt"
    names = {
        "prefix": prefix, "index": f"{prefix}.index", "data": f"{prefix}.data-00000-of-00001", "folder": folder,
        "state": folder / "checkpoint", "scope": f"{prefix}:net",
    }  # fmt: skip
    return names[how]


@pytest.mark.parametrize("how", ["prefix", "index", "data", "folder", "state", "scope", "link", "linked folder"])
def test_a_fresh_start_does_not_delete_its_source(run, how):
    directory = run
    directory.save_best(tensors(10), {}, {"step": 10})
    source, before = str(given(directory.path, how)), held(directory.path)
    opening = {"checkpoint": source, "source": open_checkpoint(source)}
    with pytest.raises(TrainingError, match=REFUSED):
        opened(directory.path, fresh=True, **opening)
    for resume in (False, True):
        with pytest.raises(TrainingError, match="the source is a checkpoint of the run in this folder, which would"):
            opened(directory.path, resume=resume, **opening)
    assert held(directory.path) == before
    assert opened(directory.path.parent / "other", fresh=True, **opening)[1] is None


def test_a_source_that_lies_beside_the_run_s_own_files(run):
    directory = run
    for name, format in (("mine.ckpt", "v1"), ("mine.npz", "npz")):
        save_checkpoint(tensors(1), directory.path / name, format=format)
        opening = {"checkpoint": str(directory.path / name), "source": open_checkpoint(directory.path / name)}
        with pytest.raises(TrainingError, match=REFUSED):
            opened(directory.path, fresh=True, **opening)
        assert opened(directory.path, plan(), resume=True, **opening)[1] == 15


def test_a_source_in_a_folder_below_is_out_of_reach(run):
    below = write_run(run.path / "base", steps=[5])
    opening = {"checkpoint": str(below.path), "source": open_checkpoint(below.path)}
    assert opened(run.path, fresh=True, **opening)[1] is None
    begin(run)
    assert step_of(below.prefix(5)) == 5


def test_a_fresh_start_does_not_delete_what_its_source_was_made_from(run, tmp_path):
    """A run, a conversion of its best checkpoint, and a run from that: each says where it comes from."""
    directory = run
    directory.save_best(tensors(10), {}, {"step": 10})
    first = open_checkpoint(directory.best)
    save_checkpoint(first, tmp_path / "converted.npz", format="npz")
    second = RunDirectory(tmp_path / "second")
    begin(second, source=str(tmp_path / "converted.npz"))
    second.save(5, tensors(5), {"source": open_checkpoint(tmp_path / "converted.npz")})
    opening = {"checkpoint": second.prefix(5), "source": open_checkpoint(second.prefix(5))}
    refused = f"{directory.best}, from which the source was made, is in this folder, and --fresh would delete the run"
    for _ in ("by the sidecar", "by plan.json"):
        with pytest.raises(TrainingError, match=refused):
            opened(directory.path, fresh=True, **opening)
        Path(f"{second.prefix(5)}.provenance.json").unlink(missing_ok=True)
    Path(f"{tmp_path}/converted.npz.provenance.json").unlink()  # nothing tells any more
    assert opened(directory.path, fresh=True, **opening)[1] is None


def test_a_source_that_was_made_from_an_archive_has_the_archive_as_its_own(tmp_path):
    """What was unpacked is gone by then."""
    archive, made = tmp_path / "net.tar.gz", str(tmp_path / "made.ckpt")
    save_checkpoint(tensors(1), tmp_path / "net.ckpt")
    with tarfile.open(archive, "w:gz") as packed:
        for file in tmp_path.glob("net.ckpt.*"):
            packed.add(file, file.name)
    save_checkpoint(open_checkpoint(archive), made)
    assert list(lineage(made, open_checkpoint(made)))[1:] == [(str(archive), (str(archive),))]


def test_sources_that_name_each_other_come_to_an_end(run, tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        save_checkpoint(tensors(1), tmp_path / name, provenance={"source": {"path": str(tmp_path / other)}})
    opening = {"checkpoint": str(tmp_path / "a"), "source": open_checkpoint(tmp_path / "a")}
    assert opened(run.path, fresh=True, **opening)[1] is None


def test_a_lost_machine_does_not_make_a_fresh_run_begin_again(tmp_path, monkeypatch):
    asked = []

    def finetune(options, *others, **where):
        asked.append(options.fresh)
        if len(asked) == 1:  # before anything was begun
            raise MachineLostError("lost")
        if len(asked) == 2:
            new_list(tmp_path)
            raise MachineLostError("lost")
        return "done"

    monkeypatch.setattr(lead, "finetune", finetune)
    monkeypatch.setattr(lead, "wait_for", lambda *others: ())
    options = Options(train_dir=str(tmp_path), fresh=True, worker_timeout=1.0)
    assert lead._lead(_NoCluster, options, lambda line: None, "") == "done"
    assert asked == [True, True, False]


class _NoCluster:
    others = ()
