"""Formatting of rows and numbers."""

import pytest

from ckpt_tools.report import cell, count, render, share, size

ROWS = [
    {"name": "net/weights", "shape": (3, 64), "bytes": 70000, "mean": -0.25, "used": True, "note": 'a|b, "c"'},
    {"name": "step", "shape": (), "bytes": 8, "mean": None, "used": False},
]


def test_table():
    assert render(ROWS, ["name", "shape", "bytes", "mean", "used"]) == (
        "name         shape    bytes   mean  used\n"
        "-----------  ------  ------  -----  ----\n"
        "net/weights  [3,64]  70,000  -0.25  yes\n"
        "step         []           8         no"
    )


def test_columns_are_chosen_when_rendering():
    assert render(ROWS, ["bytes"]) == " bytes\n------\n70,000\n     8"


def test_a_table_without_rows_has_a_head():
    assert render([], ["name", "bytes"]) == "name  bytes\n----  -----"


def test_wide_characters_keep_the_columns():
    table = render([{"label": "飛行機", "n": 1}, {"label": "ship", "n": 22}, {"label": "café", "n": 3}], ["label", "n"])
    assert table.splitlines()[2:] == ["飛行機   1", "ship    22", "café     3"]


def test_control_characters_are_spelt_out():
    assert render([{"name": "a\x1b[2J/b\nc"}], ["name"]).splitlines()[2:] == ["a\\x1b[2J/b\\nc"]


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (108_816_292, "108.8 MB"),
        (2**31, "2.1 GB"),
        (10**19, "10000.0 PB"),
        (None, ""),
    ],
)
def test_size(nbytes, text):
    assert size(nbytes) == text


def test_numbers():
    assert count(1234567) == "1,234,567"
    assert [count(n, "tensor") for n in (0, 1, 2)] == ["0 tensors", "1 tensor", "2 tensors"]
    assert [share(1, 8), share(5, 0)] == ["12.5%", ""]
    assert [cell(value) for value in (float("nan"), 1e-30, [1, 2], 10**9)] == ["nan", "1e-30", "[1,2]", "1,000,000,000"]
