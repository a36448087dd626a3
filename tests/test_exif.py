"""The orientation in EXIF data: a note if photos have it, applied on request."""

import io
import json
import shutil

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import tiny_net  # noqa: E402
from PIL import ExifTags, Image, ImageOps  # noqa: E402
from telling import lines_to  # noqa: E402
from test_data import write_records  # noqa: E402

from ckpt_tools.errors import TrainingError  # noqa: E402
from ckpt_tools.train.data.exif import HEAD, UPRIGHT, orientation  # noqa: E402
from ckpt_tools.train.data.loading import load_data_set, turned_note  # noqa: E402
from ckpt_tools.train.data.pipeline import decode  # noqa: E402
from ckpt_tools.train.data.preprocess import Preprocessing  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402
from ckpt_tools.train.run.finetune import finetune  # noqa: E402
from ckpt_tools.train.use.evaluate import EvaluateOptions, evaluate  # noqa: E402
from ckpt_tools.train.use.export import ExportOptions, export  # noqa: E402
from ckpt_tools.train.use.predict import PredictOptions, predict  # noqa: E402

HINT = "are rotated by their EXIF orientation, which is ignored, as slim ignores it; --exif-orientation obeys it"


def photo(seed, turned=UPRIGHT, extra=b"", kind="JPEG"):
    """A photo whose upper half is bright, as a camera held in this way stores it: its bytes."""
    pixels = np.random.default_rng(seed).integers(0, 90, (40, 32, 3), dtype=np.uint8)
    pixels[:20] += 150
    image = Image.fromarray(pixels)
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}
    image = image.transpose(back[turned]) if turned in back else image
    exif = Image.Exif()
    if turned != UPRIGHT:
        exif[ExifTags.Base.Orientation] = turned
        exif[ExifTags.Base.Make] = "camera"
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif, quality=95, **({"comment": extra} if extra else {}))
    return buffer.getvalue()


def folder(root, turned=6):
    """Class folders of bright and dark photos; every third one is stored lying on its side."""
    for number, label in enumerate(("day", "night")):
        (root / label).mkdir(parents=True)
        for i in range(9):
            (root / label / f"{i}.jpg").write_bytes(photo(10 * number + i, turned if i % 3 == 0 else UPRIGHT))
    return root


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("order", ["II", "MM"])
def test_orientations_are_those_that_pillow_reads(turned, order):
    exif = Image.Exif()
    exif.endian = "<" if order == "II" else ">"
    exif[ExifTags.Base.Orientation] = turned
    exif[ExifTags.Base.Model] = "a camera of some name"
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG", exif=exif)
    assert orientation(buffer.getvalue()) == turned == Image.open(buffer).getexif()[ExifTags.Base.Orientation]


def test_what_says_nothing_is_upright():
    data = photo(0, 6)
    assert orientation(data[:HEAD]) == 6
    assert orientation(photo(0)) == orientation(photo(0, 6, kind="PNG")) == orientation(b"") == UPRIGHT
    assert all(orientation(data[:length]) in (UPRIGHT, 6) for length in range(120))  # cut anywhere: no error
    for position in range(2, 60):
        broken = bytearray(data[:200])
        broken[position] ^= 0xFF
        assert 1 <= orientation(bytes(broken)) <= 8


@pytest.mark.parametrize("turned", [3, 6, 8])
def test_photos_are_turned_upright_on_request(turned):
    lying, standing = decode(photo(1, turned)), decode(photo(1, turned), upright=True)
    assert standing.shape == (40, 32, 3)
    assert standing[:20].mean() > standing[20:].mean() + 100
    assert turned == 3 or lying.shape == (32, 40, 3)
    with Image.open(io.BytesIO(photo(1, turned))) as image:
        np.testing.assert_array_equal(standing, np.asarray(ImageOps.exif_transpose(image)))
    np.testing.assert_array_equal(decode(photo(1), upright=True), decode(photo(1)))


def test_it_is_said_of_folders_tables_and_records(tmp_path):
    folder(tmp_path / "photos")
    assert f"6 photos {HINT}" in load_data_set(tmp_path / "photos").notes
    obeyed = load_data_set(tmp_path / "photos", upright=True).notes
    assert "6 photos are rotated by their EXIF orientation, which is obeyed" in obeyed
    assert turned_note(1, True) == "1 photo is rotated by its EXIF orientation, which is obeyed"
    write_records(tmp_path / "x_train", [(photo(i, 6 if i % 4 == 0 else 1), i % 2) for i in range(8)])
    assert f"2 photos {HINT}" in load_data_set(tmp_path / "x_train").notes
    (tmp_path / "flat").mkdir()
    for i in range(8):
        (tmp_path / "flat" / f"{i}.jpg").write_bytes(photo(i, 8 if i < 3 else 1))
    (tmp_path / "flat" / "labels.csv").write_text("".join(f"{i}.jpg,{'ab'[i % 2]}\n" for i in range(8)))
    assert f"3 photos {HINT}" in load_data_set(tmp_path / "flat").notes
    shutil.rmtree(tmp_path / "photos")
    folder(tmp_path / "photos", turned=UPRIGHT)
    assert not any("EXIF" in note for note in load_data_set(tmp_path / "photos").notes)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Photos, the same as pixels that stand upright, and two runs on the photos: as stored, and turned."""
    root = tmp_path_factory.mktemp("exif")
    folder(root / "photos")
    for file in sorted((root / "photos").glob("*/*.jpg")):
        upright = root / "upright" / file.parent.name / f"{file.stem}.png"
        upright.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(decode(file.read_bytes(), upright=True)).save(upright)
    tiny_net.write_source(root / "tiny.ckpt")
    for name in ("stored", "turned"):
        finetune(options(root, name))
    return root


def options(root, name, **more):
    how = {"checkpoint": str(root / "tiny.ckpt"), "data": str(root / "photos"), "exclude": ("Logits",), "steps": 2}
    how |= {"trainable": ("Logits",), "device": "cpu", "cache_dir": str(root / "cache"), "batch_size": 4}
    return Options(**{**how, "train_dir": str(root / name), "exif_orientation": name == "turned", **more})


def chances(root, name, data, **more):
    found = evaluate(EvaluateOptions(train_dir=str(root / name), data=str(root / data), split="all", **more))
    order = np.argsort([file.rpartition(".")[0] for file in found.examples.names])
    return found.probabilities[order]


def test_a_run_that_turns_photos_sees_them_upright(home):
    """The cache has other rows for it, and evaluation goes the same way: by TensorFlow's decoder or by Pillow's."""
    facts = [json.loads(file.read_text()) for file in (home / "cache").glob("*/facts.json")]
    assert sorted(fact["preprocessing"].get("upright", False) for fact in facts) == [False, True]
    plan = json.loads((home / "turned" / "plan.json").read_text())
    assert plan["preprocessing"]["upright"] is True
    assert "upright" not in json.loads((home / "stored" / "plan.json").read_text())["preprocessing"]
    np.testing.assert_allclose(chances(home, "turned", "photos"), chances(home, "turned", "upright"), atol=1e-6)
    lying = chances(home, "stored", "photos")
    assert np.abs(lying - chances(home, "stored", "upright")).max() > 1e-4
    np.testing.assert_allclose(
        chances(home, "stored", "photos", exif_orientation=True), chances(home, "stored", "upright"), atol=1e-6
    )


def test_it_is_part_of_what_a_run_is(home):
    with pytest.raises(TrainingError, match="--exif-orientation was True, is False"):
        finetune(options(home, "turned", exif_orientation=False, steps=3))
    assert Preprocessing("vgg", 9, upright=True).as_dict()["upright"] is True


def test_predict_says_it_and_obeys(home):
    lines = []
    files = [str(home / "photos" / "day" / f"{i}.jpg") for i in range(4)]
    predict(PredictOptions(train_dir=str(home / "stored")), files, lines_to(lines))
    assert f"note           2 photos {HINT}" in lines
    found = predict(PredictOptions(train_dir=str(home / "turned"), top=1), files)
    wanted = chances(home, "turned", "upright")[:4].max(axis=1)
    assert [row["predictions"][0]["probability"] for row in found.rows] == pytest.approx(wanted.tolist(), abs=1e-6)


def test_an_export_says_that_images_are_to_be_turned(home, tmp_path):
    lines = []
    options = ExportOptions(train_dir=str(home / "turned"), output=str(tmp_path / "x"), format=("graphdef",))
    made = export(options, lines_to(lines))
    assert made.rows[0]["largest_difference"] < 1e-5
    assert any("the model needs images turned upright" in line for line in lines)
    assert "turned upright" in json.loads((tmp_path / "x" / "export.json").read_text())["inputs"]["images"]
