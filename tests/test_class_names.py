"""Matching labels of the data with classes of a net: names before positions, and the notes given."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import tiny_net  # noqa: E402
from PIL import Image  # noqa: E402
from telling import lines_to  # noqa: E402
from test_data import jpeg, write_records  # noqa: E402

from ckpt_tools.cli import evaluate as evaluate_command  # noqa: E402
from ckpt_tools.cli import export as export_command  # noqa: E402
from ckpt_tools.cli import predict as predict_command  # noqa: E402
from ckpt_tools.errors import DataError  # noqa: E402
from ckpt_tools.labels import read_labels  # noqa: E402
from ckpt_tools.nets.registry import get_net  # noqa: E402
from ckpt_tools.train.data.labelling import ClassNames  # noqa: E402
from ckpt_tools.train.data.loading import load_data_set  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402
from ckpt_tools.train.plan.job import make_job  # noqa: E402
from ckpt_tools.train.use.class_names import class_of_label, names_for  # noqa: E402
from ckpt_tools.train.use.evaluate import EvaluateOptions, evaluate  # noqa: E402
from ckpt_tools.train.use.predict import PredictOptions, predict  # noqa: E402


def net_of(*labels, classes=None, net="tiny"):
    """What a classifier knows of its classes: their names, or with `classes` only how many there are."""
    known = labels or tuple(map(str, range(classes)))
    return SimpleNamespace(labels=known, named=bool(labels), classes=len(known), net=get_net(net))


def test_names_win_over_positions():
    net = net_of("cat", "dog", "frog")
    assert class_of_label(net, ["cat", "dog", "frog"]) == ([0, 1, 2], "")
    assert class_of_label(net, ["frog", "cat"]) == ([2, 0], "classes are matched by name: their order differs here")
    with pytest.raises(DataError, match="the net has no class dogg; did you mean dog"):
        class_of_label(net, ["cat", "dogg"])


def test_labels_that_are_numbers_are_those_classes():
    places, note = class_of_label(net_of(classes=12), ["0", "1", "10", "11", "2"])
    assert places == [0, 1, 10, 11, 2]
    assert note == "the labels are numbers, and taken as the net's class numbers"
    assert "slim's ImageNet records count from 1" in class_of_label(net_of(classes=1000, net="vgg_16"), ["5", "7"])[1]
    places, note = class_of_label(net_of("ant", "bee", "cow"), ["2", "0"])
    assert places == [2, 0]
    assert "(2 is cow, 0 is ant)" in note
    assert class_of_label(net_of("7", "8"), ["8", "7"])[0] == [1, 0]  # the net's own names


def test_what_only_positions_can_say_is_said():
    places, note = class_of_label(net_of("cat", "dog"), ["chat", "chien"])
    assert places == [0, 1]
    assert note.startswith(
        "none of the labels is known by name: classes are matched by their order (chat is cat, chien"
    )
    places, note = class_of_label(net_of(classes=3), ["1", "2", "3"])
    assert places == [0, 1, 2]
    assert note == "the net's classes have no names: classes are matched by their order (1 is 0, 2 is 1, 3 is 2)"
    with pytest.raises(DataError, match="the data has 2 classes, the net 4"):
        class_of_label(net_of(classes=4), ["cat", "dog"])


def test_two_classes_of_one_name_are_told_apart(tmp_path):
    """ImageNet's cranes are classes 134 and 517: counted from 0 or from 1, the first is the first."""
    (tmp_path / "from_0.txt").write_text("tabby\ncrane\ncrane\n")
    (tmp_path / "from_1.txt").write_text("0:background\n1:tabby\n2:crane\n3:crane\n")
    names, notes = names_for(net_of(classes=3), ClassNames("x", read_labels(tmp_path / "from_0.txt")))
    assert (names, notes) == (("tabby", "crane (1)", "crane (2)"), ())
    data = [name for i, name in read_labels(tmp_path / "from_1.txt").items() if i]
    assert data == ["tabby", "crane (2)", "crane (3)"]
    assert class_of_label(net_of(*names), data) == ([0, 1, 2], "")
    with pytest.raises(DataError, match=r"no class crane; did you mean crane \(2\) or crane \(1\)"):
        class_of_label(net_of(*names), ["tabby", "crane"])


def test_files_with_and_without_slims_background_class():
    plain, counted = {0: "ant", 1: "bee"}, {1: "ant", 2: "bee"}
    names, (note,) = names_for(net_of(classes=3), ClassNames("x.txt", counted))
    assert names == ("background", "ant", "bee")
    assert note == "x.txt names 2 classes: the net's class 0 is taken for slim's background class"
    names, (note,) = names_for(net_of(classes=2), ClassNames("x.txt", {0: "background", **counted}))
    assert (names, "ignored" in note) == (("ant", "bee"), True)
    names, (note,) = names_for(net_of(classes=2), ClassNames("x.txt", counted))
    assert (names, note) == (("ant", "bee"), "x.txt counts from 1: its names are taken in their order")
    with pytest.raises(DataError, match="2 labels, but the net has 3 classes"):
        names_for(net_of(classes=3), ClassNames("x.txt", plain))
    imagenet = {i: f"class {i}" for i in range(1000)}
    names, (note,) = names_for(net_of(classes=1001, net="inception_v3"), ClassNames("x.txt", imagenet))
    assert (names[0], names[1], len(names)) == ("background", "class 0", 1001)


def test_a_file_may_translate_the_names_of_a_run_and_not_exchange_them():
    run = net_of("cat", "dog")
    names, (note,) = names_for(run, ClassNames("fr.txt", {0: "chat", 1: "chien"}))
    assert (names, note) == (("chat", "chien"), "fr.txt names the classes, not the run: chat, not cat")
    with pytest.raises(DataError, match="the run and fr.txt disagree: class 0 is cat and dog; class 1 is dog and cat"):
        names_for(run, ClassNames("fr.txt", {0: "dog", 1: "cat"}))


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """A folder with a net of 12 classes, photos, and for each photo the number of the class that the net sees."""
    root = tmp_path_factory.mktemp("twelve")
    tiny_net.write_source(root / "tiny.ckpt", classes=12)
    (root / "photos").mkdir()
    random = np.random.default_rng(0)
    for i in range(40):
        pixels = random.integers(0, 1 + random.integers(1, 256, 3), (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{i}.png")
    found = predict(PredictOptions(checkpoint=str(root / "tiny.ckpt"), top=1), [str(root / "photos")])
    seen = {row["file"]: int(row["predictions"][0]["label"]) for row in found.rows}
    assert {2, 10, 11} & set(seen.values())  # else the alphabet's order would do
    return root, seen


def test_folders_of_numbers_are_the_classes_of_the_net(twelve, tmp_path):
    root, seen = twelve
    for number in range(12):
        (tmp_path / str(number)).mkdir()
    for i, (file, number) in enumerate(seen.items()):
        (tmp_path / str(number) / f"{i}.png").write_bytes(Path(file).read_bytes())
    lines = []
    options = EvaluateOptions(checkpoint=str(root / "tiny.ckpt"), data=str(tmp_path), split="all")
    assert evaluate(options, lines_to(lines)).summary["accuracy"] == 1.0
    assert any("the labels are numbers, and taken as the net's class numbers" in line for line in lines)


@pytest.mark.parametrize("kind", ["records", "npz", "labels.txt"])
def test_so_are_numbers_in_records_and_arrays(twelve, tmp_path, kind):
    root, seen = twelve
    pixels = {file: np.asarray(Image.open(file)) for file in seen}
    if kind == "records":
        write_records(tmp_path / "x.tfrecord", [(Path(file).read_bytes(), number) for file, number in seen.items()])
        data = tmp_path
    else:
        how = {"labels": list(seen.values())}
        if kind == "labels.txt":  # names that are numbers, in the alphabet's order
            names = sorted(map(str, set(seen.values())))
            how = {"label_names": names, "labels": [names.index(str(number)) for number in seen.values()]}
        np.savez(tmp_path / "x.npz", images=np.stack(list(pixels.values())), **how)
        data = tmp_path / "x.npz"
    options = EvaluateOptions(checkpoint=str(root / "tiny.ckpt"), data=str(data), split="all")
    assert evaluate(options).summary["accuracy"] == 1.0


def test_commands_take_a_file_with_two_cranes(twelve, tmp_path, capsys):
    root, seen = twelve
    names = [f"bird {i}" for i in range(12)]
    often = max(set(seen.values()), key=list(seen.values()).count)
    names[often] = names[(often + 1) % 12] = "crane"
    (tmp_path / "names.txt").write_text("\n".join(names))
    flags = ["--checkpoint", str(root / "tiny.ckpt"), "--labels", str(tmp_path / "names.txt")]
    assert predict_command.main([*flags, str(root / "photos"), "--top", "1"]) == 0
    assert f"crane ({often})" in capsys.readouterr().out
    export = ["--output", str(tmp_path / "exported"), "--check", str(root / "photos" / "0.png")]
    assert export_command.main([*flags, *export, "--format", "graphdef"]) == 0
    assert f"crane ({often})\n" in (tmp_path / "exported" / "labels.txt").read_text()
    write_records(tmp_path / "x.tfrecord", [(Path(file).read_bytes(), number) for file, number in seen.items()])
    (tmp_path / "labels.txt").write_text("\n".join(names))
    assert evaluate_command.main([*flags, "--data", str(tmp_path / "x.tfrecord"), "--split", "all"]) == 0
    out = capsys.readouterr().out
    assert f"crane ({often})" in out
    assert "accuracy 100.0%" in out


def test_records_and_arrays_name_two_cranes(tmp_path):
    np.savez(
        tmp_path / "x.npz",
        images=np.zeros((6, 4, 4), np.uint8),
        labels=[0, 1, 2] * 2,
        label_names=["crane", "b", "crane"],
    )
    assert load_data_set(tmp_path / "x.npz", training=False).labels == ("crane (0)", "b", "crane (2)")
    write_records(tmp_path / "x_train", [(jpeg(i), i % 3 + 1) for i in range(9)], texts=("", "crane", "b", "crane"))
    assert load_data_set(tmp_path / "x_train").labels == ("crane (1)", "b", "crane (3)")


def test_two_cranes_keep_their_rows_of_the_old_head(tmp_path):
    write_records(tmp_path / "x.tfrecord", [(jpeg(i), i % 3) for i in range(9)])
    (tmp_path / "labels.txt").write_text("crane\nzebra\ncrane\n")
    (tmp_path / "old.txt").write_text("tabby\ncrane\nmaillot\ncrane\n")
    source = tiny_net.write_source(tmp_path / "tiny.ckpt", classes=4)
    how = {"data": str(tmp_path / "x.tfrecord"), "labels_of_source": str(tmp_path / "old.txt")}
    job = make_job(Options(checkpoint=source, train_dir=str(tmp_path / "run"), **how))
    assert job.data.labels == ("crane (0)", "zebra", "crane (2)")
    assert job.options.class_map == "1,_,3"
