"""Class names in any script in pictures: a suitable font is used, or one sentence is given, without warnings."""

import io
import warnings

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from fontTools.fontBuilder import FontBuilder  # noqa: E402
from fontTools.pens.ttGlyphPen import TTGlyphPen  # noqa: E402
from matplotlib import font_manager  # noqa: E402

from ckpt_tools.train.pages import fonts  # noqa: E402
from ckpt_tools.train.pages.figures import draw_confusion, draw_photos, draw_points, write_png  # noqa: E402

NAME = chr(0x10FFF0)  # a character for private use, which no font of any machine has


@pytest.fixture(autouse=True)
def own_list(monkeypatch):
    """A list of fonts that a test may add to."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))


def write_font(path, character=NAME):
    """A font of one character, a solid square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square, empty = pen.glyph(), TTGlyphPen(None).glyph()
    built = FontBuilder(1000, isTTF=True)
    built.setupGlyphOrder([".notdef", "square"])
    built.setupCharacterMap({ord(character): "square"})
    built.setupGlyf({".notdef": empty, "square": square})
    built.setupHorizontalMetrics({".notdef": (700, 0), "square": (700, 0)})
    built.setupHorizontalHeader(ascent=800, descent=-200)
    built.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    built.setupOS2()
    built.setupPost()
    built.save(path)
    return str(path)


def picture(figure):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_png(figure, file)
    return file.getvalue()


def figures(label):
    labels, points = ("cat", label), np.array([[0.0, 0], [1, 1], [2, 3]])
    yield draw_confusion(np.array([[3, 1], [0, 2]]), labels)
    yield draw_points(points, np.array([0, 1, 1]), labels, "PCA")
    yield draw_photos([np.zeros((4, 4, 3), np.uint8)], [f"true {label}"])


def test_a_font_that_has_the_name_is_found(tmp_path):
    without = [picture(figure) for figure in figures(NAME)]
    font_manager.fontManager.addfont(write_font(tmp_path / "squares.ttf"))
    assert fonts.fonts_for(f"cat {NAME}") == (["Squares"], [])
    assert fonts.without_font(["cat", NAME]) == ""
    assert all(one != other for one, other in zip(without, (picture(f) for f in figures(NAME)), strict=True))


def test_so_is_one_that_was_installed_after_matplotlib_made_its_list(tmp_path, monkeypatch):
    path = write_font(tmp_path / "squares.ttf")
    (tmp_path / "broken.ttf").write_text("no font")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "broken.ttf"), path])
    assert fonts.fonts_for(NAME) == (["Squares"], [])


def test_without_one_there_is_a_sentence_and_no_warning():
    for figure in figures(NAME):
        assert picture(figure).startswith(b"\x89PNG")
    assert fonts.without_font(["cat", NAME]).startswith(
        f"no font here has {NAME}: pictures show boxes for them; install"
    )
    assert fonts.without_font(["cat", "naïve", "Кот"]) == ""  # matplotlib's own has these


def test_pictures_in_plain_letters_are_what_they_were(tmp_path):
    before = [picture(figure) for figure in figures("dog")]
    font_manager.fontManager.addfont(write_font(tmp_path / "squares.ttf", "d"))
    assert [picture(figure) for figure in figures("dog")] == before
