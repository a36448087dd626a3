"""The rule for scope patterns in names.py, clause by clause."""

import fnmatch
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckpt_tools.errors import SelectionError
from ckpt_tools.names import did_you_mean, parse_patterns, scopes, select, tree

NAMES = [
    "InceptionV3/Conv2d_1a_3x3/weights",
    "InceptionV3/Conv2d_1a_3x3/BatchNorm/beta",
    "InceptionV3/Conv2d_1a_3x3/BatchNorm/moving_mean",
    "InceptionV3/Mixed_7b/Branch_0/Conv2d_0a_1x1/weights",
    "InceptionV3/Mixed_7c/Branch_0/Conv2d_0a_1x1/weights",
    "InceptionV3/Mixed_7c/Branch_0/Conv2d_0a_1x1/BatchNorm/moving_mean",
    "InceptionV3/AuxLogits/Conv2d_2b_1x1/weights",
    "InceptionV3/AuxLogits/Conv2d_2b_1x1/biases",
    "InceptionV3/Logits/Conv2d_1c_1x1/weights",
    "InceptionV3/Logits/Conv2d_1c_1x1/biases",
    "global_step",
]
HEAD = NAMES[8:10]


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        # 1. whole components, anywhere, ignoring case
        ("Logits", HEAD),
        ("logits", HEAD),
        ("InceptionV3/Logits", HEAD),
        ("Logits/Conv2d_1c_1x1/biases", [NAMES[9]]),
        ("Logits/", HEAD),
        ("InceptionV3", NAMES[:10]),
        ("global_step", ["global_step"]),
        ("Mixed_7c/Branch_0", NAMES[4:6]),
        # 2. the root
        ("/InceptionV3/Logits", HEAD),
        ("/global_step", ["global_step"]),
        # 3. wildcards
        ("Mixed_7*", NAMES[3:6]),
        ("Mixed_7?", NAMES[3:6]),
        ("Mixed_7[bc]", NAMES[3:6]),
        ("Mixed_7[a,c]", NAMES[4:6]),
        ("Mixed_7[!b]", NAMES[4:6]),
        ("MIXED_7[A-B]", [NAMES[3]]),
        ("**/BatchNorm/moving_*", [NAMES[2], NAMES[5]]),
        ("Mixed_7c/**/weights", [NAMES[4]]),
        ("InceptionV3/**/weights", [NAMES[0], NAMES[3], NAMES[4], NAMES[6], NAMES[8]]),
        ("/InceptionV3/*/weights", [NAMES[0]]),
        ("Mixed_7c/**", NAMES[4:6]),
        ("/*", NAMES),
        ("**", NAMES),
        ("/Inc**mean", [NAMES[2], NAMES[5]]),
        # 4. regular expressions
        ("re:Logits/", NAMES[6:10]),
        ("re:/Logits/", HEAD),
        ("re:^global", ["global_step"]),
        ("re:_7[b,x]/", [NAMES[3]]),
        ("re:(7b|7c)/Branch_0/Conv2d_0a_1x1/weights$", NAMES[3:5]),
        ("re:Conv2d_[0-9a]{1,2}_1x1/B", [NAMES[5]]),
        # 5. lists
        ("Logits,AuxLogits", NAMES[6:10]),
        (" Logits , AuxLogits,", NAMES[6:10]),
        ("Logits,!biases", [NAMES[8]]),
        ("!InceptionV3", ["global_step"]),
        ("!InceptionV3,Logits", [*HEAD, "global_step"]),
        ("InceptionV3,!Conv2d_1a_3x3,Conv2d_1a_3x3/BatchNorm", NAMES[1:10]),
        ("InceptionV3, ! re:[bB]atchNorm|Conv2d_\\d, Logits", HEAD),
        (["Logits", "AuxLogits,!biases"], [NAMES[6], NAMES[8]]),
    ],
)
def test_select(pattern, chosen):
    assert select(NAMES, pattern) == chosen


def test_components_are_whole():
    names = ["a/Logits/w", "a/AuxLogits/w", "a/LogitsExtra/w", "Logits/fc/weights", "resnet_v1_50/logits/biases"]
    assert select(names, "Logits") == ["a/Logits/w", "Logits/fc/weights", "resnet_v1_50/logits/biases"]


def test_special_characters_are_literal():
    assert select(["a.b-c/d+e/w", "aXb-c/d/w"], "a.b-c") == ["a.b-c/d+e/w"]
    assert select(["d+e/w", "dde/w"], "d+e") == ["d+e/w"]
    assert select(["w[/x", "w/x"], "w[") == ["w[/x"]
    assert select(["a^/x", "b/x"], "[a^]*") == ["a^/x"]


def test_match_names_the_pattern_that_decides():
    patterns = parse_patterns(["InceptionV3,!AuxLogits", "biases"])
    assert patterns.match(NAMES[0]) == "InceptionV3"
    assert patterns.match("InceptionV3/AuxLogits/Conv2d_2b_1x1/weights") is None
    assert patterns.match("InceptionV3/AuxLogits/Conv2d_2b_1x1/biases") == "biases"
    assert patterns.match("global_step") is None
    assert parse_patterns("!Logits").match("global_step") == "!Logits"
    assert str(patterns) == "InceptionV3,!AuxLogits,biases"


def test_no_pattern_selects_nothing():
    assert select(NAMES, []) == []
    assert select(NAMES, "") == []


def message(patterns, names=NAMES, **words):
    with pytest.raises(SelectionError) as caught:
        select(names, patterns, **words)
    return str(caught.value)


def test_a_misspelt_scope_names_the_nearest():
    assert message("Logitz", option="--trainable", of="trainable variables") == (
        "--trainable Logitz selects nothing of 11 trainable variables; did you mean InceptionV3/Logits (2 variables)?"
    )


@pytest.mark.parametrize(
    ("pattern", "proposed"),
    [
        ("InceptionV3/Logitz", "InceptionV3/Logits (2 variables)"),
        ("/Logits", "InceptionV3/Logits (2 variables)"),
        ("Logits/weights", "Logits/**/weights (1 variable)"),
        ("Mixed_7c/Branch_9/weights", "InceptionV3/Mixed_7c/Branch_0/Conv2d_0a_1x1 (2 variables)"),
        ("Mixed_7", "InceptionV3/Mixed_7b (1 variable) or InceptionV3/Mixed_7c (2 variables)"),
        ("weight", "weights (5 variables)"),
        ("re:logits$", "InceptionV3/Logits (2 variables)"),
        ("!AuxLogit", "InceptionV3/AuxLogits (2 variables)"),
        ("globalstep", "global_step (1 variable)"),
        ("Mixed_7c/**/wights", "InceptionV3/Mixed_7c/Branch_0 (2 variables)"),
        ("re:Mixed_7c/.*/wights", "InceptionV3/Mixed_7c/Branch_0 (2 variables)"),
        ("Branch", "InceptionV3/Mixed_7b/Branch_0 (1 variable)"),
    ],
)
def test_what_is_proposed(pattern, proposed):
    assert f"did you mean {proposed}" in message(pattern)


def test_nothing_is_proposed_when_nothing_is_close():
    assert message("zzz") == "pattern zzz selects nothing of 11 names"
    assert message("re:.*\\d\\d\\d\\d") == "pattern re:.*\\d\\d\\d\\d selects nothing of 11 names"
    assert did_you_mean("Logits", []) == ""


def test_all_idle_patterns_are_reported_at_once():
    assert message(["Logitz,weights", "!Mixed_7d"]).splitlines() == [
        "pattern Logitz selects nothing of 11 names; did you mean InceptionV3/Logits (2 variables)?",
        "pattern !Mixed_7d selects nothing of 11 names; did you mean InceptionV3/Mixed_7b (1 variable) or "
        "InceptionV3/Mixed_7c (2 variables)?",
    ]


@pytest.mark.parametrize("pattern", ["re:(", "a//b", "/", "!", "re:*", "[z-a]", "Mixed_[Z-a]*"])
def test_malformed(pattern):
    with pytest.raises(SelectionError, match="regular expression|empty component|malformed: bad character range z-a"):
        parse_patterns(pattern)


COMPONENT = st.text("abAB_1.-", min_size=1, max_size=4)
NAME = st.lists(COMPONENT, min_size=1, max_size=5).map("/".join)


@given(NAME, NAME)
def test_plain_patterns_agree_with_a_search_of_components(name, pattern):
    have, want = name.lower().split("/"), pattern.lower().split("/")
    places = range(len(have) - len(want) + 1)
    expected = any(have[at : at + len(want)] == want for at in places)
    assert (parse_patterns(pattern).match(name) is not None) == expected
    anchored = have[: len(want)] == want
    assert (parse_patterns("/" + pattern).match(name) is not None) == anchored


@given(
    COMPONENT, st.text("abAB_1*?[]!-", min_size=1, max_size=6).filter(lambda text: text.strip("!") and "**" not in text)
)
@example("1", "[!]")  # no set: nothing is in it, and nothing closes it
def test_wildcards_agree_with_fnmatch(component, pattern):
    pattern = pattern.lstrip("!")
    try:
        expected = fnmatch.fnmatchcase(component.lower(), pattern.lower())
        found = parse_patterns("/" + pattern).match(component) is not None
    except (SelectionError, re.error):
        return
    assert found == expected


def test_scopes_and_tree():
    assert scopes(["a/b/w", "a/b/v", "a/c", "x"]) == {"a": 3, "a/b": 2}
    assert tree(["a/b/w", "a/b/v", "a/c", "x", "a/b"]) == {
        "": ["a", "x"],
        "a": ["a/b", "a/c"],
        "a/b": ["a/b/w", "a/b/v"],
    }
    assert tree([]) == {"": []}
