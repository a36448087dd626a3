"""ckpt-export on a tiny net: the files are loaded by TensorFlow itself and compared with ckpt-predict."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import tiny_net  # noqa: E402
from PIL import Image  # noqa: E402

from ckpt_tools import open_checkpoint  # noqa: E402
from ckpt_tools.cli import export as command  # noqa: E402
from ckpt_tools.errors import DataError, OutputError, RecipeError, TrainingError  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402
from ckpt_tools.train.run.finetune import finetune  # noqa: E402
from ckpt_tools.train.use import exported  # noqa: E402
from ckpt_tools.train.use.export import ExportOptions, export  # noqa: E402
from ckpt_tools.train.use.predict import PredictOptions, predict  # noqa: E402

LABELS = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """tiny.ckpt, labels.txt, a JPEG and a PNG photo, and all formats exported to `exported`."""
    root = tmp_path_factory.mktemp("export")
    tiny_net.write_source(root / "tiny.ckpt", classes=3)
    (root / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    random = np.random.default_rng(0)
    (root / "photos").mkdir()
    for name, sides in (("a.jpg", (70, 50)), ("b.png", (41, 90))):
        Image.fromarray(random.integers(0, 256, (*sides, 3), dtype=np.uint8)).save(root / "photos" / name)
    return root


@pytest.fixture(scope="module")
def made(home):
    export(options(home, "exported", format=("saved_model,graphdef", "tflite"), check=(str(home / "photos"),)))
    return home / "exported"


def options(home, output, **more):
    source = {"checkpoint": str(home / "tiny.ckpt"), "labels": str(home / "labels.txt")}
    return ExportOptions(**source, output=str(home / output), **more)


@pytest.fixture(scope="module")
def expected(home):
    """For each photo {label: probability}, by ckpt-predict."""
    where = PredictOptions(checkpoint=str(home / "tiny.ckpt"), labels=str(home / "labels.txt"))
    rows = predict(where, [str(home / "photos")]).rows
    return [{guess["label"]: guess["probability"] for guess in row["predictions"]} for row in rows]


def photos(home):
    return [(home / "photos" / name).read_bytes() for name in ("a.jpg", "b.png")]


def test_the_saved_model_takes_files_and_gives_labels(home, made, expected):
    serve = tf.saved_model.load(str(made / "saved_model")).signatures["serving_default"]
    found = serve(images=tf.constant(photos(home)))
    for i, chances in enumerate(expected):
        likeliest = sorted(chances, key=chances.get, reverse=True)
        assert [label.decode() for label in found["labels"][i].numpy()] == likeliest
        np.testing.assert_allclose(found["probabilities"][i], [chances[label] for label in likeliest], atol=1e-5)
        np.testing.assert_allclose(found["all_probabilities"][i], [chances[label] for label in LABELS], atol=1e-5)


def test_a_net_with_a_dense_last_layer_and_preprocessing_of_its_own(home, tmp_path):
    from test_cache_nets import write_random

    source = write_random("cifarnet", tmp_path / "cifarnet.ckpt")
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    common = {"checkpoint": source, "labels": str(tmp_path / "labels.txt")}
    export(ExportOptions(**common, output=str(tmp_path / "out"), check=(str(home / "photos"),)))
    serve = tf.saved_model.load(str(tmp_path / "out/saved_model")).signatures["serving_default"]
    found = serve(images=tf.constant(photos(home)))["all_probabilities"]
    rows = predict(PredictOptions(**common), [str(home / "photos")]).rows
    for chances, row in zip(found, rows, strict=True):
        wanted = {guess["label"]: guess["probability"] for guess in row["predictions"]}
        np.testing.assert_allclose([chances["abcde".index(label)] for label in wanted], [*wanted.values()], atol=1e-5)


def test_the_saved_model_takes_pixels_too(home, made, expected):
    loaded = tf.saved_model.load(str(made / "saved_model"))
    image = tf.io.decode_jpeg(photos(home)[0], dct_method="INTEGER_ACCURATE")
    cut = tf.image.central_crop(tf.cast(image, tf.float32), 0.875)
    pixels = tf.compat.v1.image.resize_bilinear(cut[None], [32, 32])
    found = loaded.signatures["pixels"](pixels=pixels)["all_probabilities"][0]
    np.testing.assert_allclose(found, [expected[0][label] for label in LABELS], atol=1e-5)


def test_the_variables_of_the_saved_model_are_a_checkpoint(home, made):
    source, copy = open_checkpoint(home / "tiny.ckpt").tensors, open_checkpoint(made / "saved_model").tensors
    assert set(copy) == set(source)
    for name in source:
        np.testing.assert_array_equal(copy[name].load(), source[name].load())


def test_the_graphdef_needs_nothing_but_itself(home, made, expected):
    definition = tf.compat.v1.GraphDef.FromString((made / "model.pb").read_bytes())
    assert not [node.name for node in definition.node if node.op in ("VarHandleOp", "VariableV2")]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(definition, name="")
        found = session.run("labels:0", {"images:0": photos(home)})
    assert [row[0].decode() for row in found] == [max(chances, key=chances.get) for chances in expected]


def test_the_tflite_file_runs_in_its_interpreter(made, home, expected):
    interpreter = tf.lite.Interpreter(str(made / "model.tflite"))
    interpreter.allocate_tensors()
    (fed,), (chances,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert fed["shape"].tolist() == [1, 32, 32, 3]
    cut = tf.image.central_crop(tf.cast(tf.io.decode_png(photos(home)[1]), tf.float32), 0.875)
    interpreter.set_tensor(fed["index"], tf.compat.v1.image.resize_bilinear(cut[None], [32, 32]).numpy())
    interpreter.invoke()
    found = interpreter.get_tensor(chances["index"])[0]
    np.testing.assert_allclose(found, [expected[1][label] for label in LABELS], atol=1e-4)


def test_what_lies_beside_says_where_it_is_from(home, made):
    record = json.loads((made / "export.json").read_text())
    assert record["source"] == str(home / "tiny.ckpt")
    assert record["preprocessing"]["image_size"] == 32
    assert [row["format"] for row in record["formats"]] == ["saved_model", "graphdef", "tflite"]
    assert all(row["largest_difference"] <= 1e-4 for row in record["formats"])
    assert (made / "labels.txt").read_text() == "ant\nbee\ncow\n"


def test_table_and_json(home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    flags = ["--checkpoint", "tiny.ckpt", "--labels", "labels.txt", "--format", "graphdef", "--top", "2"]
    assert command.main([*flags, "--output", "shown"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["format", "file", "size", "largest", "difference"]
    assert out.splitlines()[-1].split()[:2] == ["graphdef", "shown/model.pb"]
    assert "compared with the net on 8 images" in err
    assert command.main([*flags, "--output", "shown"]) == 2
    assert "shown: exists. Give --force to replace it." in capsys.readouterr().err
    assert command.main([*flags, "--output", "shown", "--force", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"rows", "summary"}
    assert shown["summary"]["labels"] == list(LABELS)
    assert sorted(path.name for path in home.glob(".shown*")) == []


@pytest.mark.parametrize("more", [{}, {"notes.txt": "mine"}], ids=["a folder of photos", "an export and notes"])
def test_force_replaces_exports_only(home, tmp_path, capsys, more):
    """A run, a folder of photos, the folder where everything is: --force made an end of them."""
    target = tmp_path / "there"
    flags = ["--checkpoint", str(home / "tiny.ckpt"), "--format", "graphdef", "--output", str(target), "--force"]
    if more:
        assert command.main(flags) == 0
    else:
        shutil.copytree(home / "photos", target)
    for name, text in more.items():
        (target / name).write_text(text)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert command.main(flags) == 2
    assert (
        "ckpt-export did not write that, and --force replaces exports only. Choose another" in capsys.readouterr().err
    )
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_the_old_export_is_there_again_where_the_new_one_cannot_be(home, tmp_path, monkeypatch):
    target = tmp_path / "there"
    options = {"checkpoint": str(home / "tiny.ckpt"), "format": ("graphdef",), "output": str(target), "force": True}
    export(ExportOptions(**options))
    before = (target / "model.pb").stat().st_ino
    real = Path.rename

    def fails(self, to):
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return real(self, to)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OutputError, match="cannot be written"):
        export(ExportOptions(**options))
    assert (target / "model.pb").stat().st_ino == before


def test_a_run_is_exported_as_it_was_trained_and_checked_on_its_own_images(home, tmp_path):
    """With a head of its own, and a picture of its augmentation on the way."""
    photos_of_run = tiny_net.write_photos(tmp_path / "photos")
    run = Options(
        checkpoint=str(home / "tiny.ckpt"), net="tiny", data=photos_of_run, exclude=("Logits",), device="cpu",
        head="dense(8,relu)|dropout(0.2)", augment=("flip",), show_augmentation=str(tmp_path / "seen.png"),
        train_dir=str(tmp_path / "run"), steps=3, batch_size=4,
    )  # fmt: skip
    finetune(run)
    assert Image.open(tmp_path / "seen.png").size == (4 * 36 + 4, 2 * 36 + 4)
    made = export(ExportOptions(train_dir=str(tmp_path / "run"), output=str(tmp_path / "made"), format=("graphdef",)))
    assert (made.labels, made.images) == (("cat", "dog", "frog"), 8)
    (tmp_path / "photos" / "validation" / "cat" / "0.png").write_bytes(photos(home)[1][:500])
    best = ExportOptions(checkpoint=str(tmp_path / "run/best.ckpt"), output=str(tmp_path / "b"), format=("graphdef",))
    assert export(best).images == 7


def test_the_interpreter_says_nothing(home, capfd):
    export(options(home, "quiet", format=("tflite",)))
    assert "INFO" not in capfd.readouterr().err


def test_images_of_any_kind_are_compared_on(home, tmp_path):
    Image.open(home / "photos" / "a.jpg").save(tmp_path / "a.bmp")
    assert export(options(home, "bmp", format=("graphdef",), check=(str(tmp_path / "a.bmp"),))).images == 1
    (tmp_path / "b.jpg").write_bytes(photos(home)[0][:200])
    with pytest.raises(DataError, match="b.jpg: cannot be decoded: "):
        export(options(home, "none", check=(str(tmp_path),)))


def test_the_picture_needs_augmentation():
    with pytest.raises(RecipeError, match="--show-augmentation shows nothing without --augment"):
        Options(show_augmentation="a.png")


def test_a_form_that_computes_something_else_is_refused(home, monkeypatch):
    wrong = exported.FORMS["graphdef"]._replace(run=lambda path, images, pixels: np.full((len(images), 3), 1 / 3))
    monkeypatch.setitem(exported.FORMS, "graphdef", wrong)
    with pytest.raises(TrainingError, match="the graphdef gives probabilities that differ by 0"):
        export(options(home, "refused", format=("graphdef",)))
    assert not [path for path in home.iterdir() if "refused" in path.name]


def test_wrong_options():
    with pytest.raises(RecipeError, match="no format 'tflit'; did you mean tflite"):
        ExportOptions(checkpoint="a", output="b", format=("tflit",))
    with pytest.raises(RecipeError, match="--output must be given"):
        ExportOptions(checkpoint="a")
    with pytest.raises(RecipeError, match="not both"):
        ExportOptions(output="a")
    with pytest.raises(RecipeError, match="--format names no format"):
        ExportOptions(checkpoint="a", output="b", format=("",))


def test_a_folder_that_cannot_be_made(home):
    (home / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write here"):
        export(options(home, "file/inside"))
