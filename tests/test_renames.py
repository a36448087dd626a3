"""--rename OLD=NEW: scopes, whole names, regular expressions, and malformed rules."""

import pytest

from ckpt_tools.errors import RecipeError
from ckpt_tools.renames import RenameRule, parse_renames, rename


@pytest.mark.parametrize(
    ("rule", "name", "new"),
    [
        ("model=net", "model/a/w", "net/a/w"),
        ("model=net", "model", "net"),
        ("model=net", "models/a", None),
        ("model=net", "a/model/w", None),
        ("/model/=net/", "model/a", "net/a"),
        ("model=", "model/a/w", "a/w"),
        ("model=", "model", ""),
        ("=tower", "a/w", "tower/a/w"),
        (r"re:^(.*)/EMA$=\1", "a/w/EMA", "a/w"),
        (r"re:^(.*)/EMA$=\1", "a/w", None),
        (r"re:(?<=conv)=_", "conv1/conv2", "conv_1/conv_2"),
        ("re:kernel$=weights", "a/kernel", "a/weights"),
        (r"re:(.*)=model/\1", "a/w", "model/a/w"),  # re.sub alone replaces the nothing behind it, too
        ("re:^=model/", "a/w", "model/a/w"),
        ("re:$=/w", "a", "a/w"),
    ],
)
def test_one_rule(rule, name, new):
    (parsed,) = parse_renames([rule])
    assert parsed(name) == new


def test_the_first_rule_that_fits_decides_and_names_may_be_swapped():
    rules = parse_renames(["a=b", "b=a", "a/x=never"])
    assert {old: new for old, (new, _) in rename(["a/x", "b/x", "c"], rules).items()} == {"a/x": "b/x", "b/x": "a/x"}


def test_a_rule_that_changes_nothing_keeps_later_ones_from_changing_it():
    assert rename(["a/w"], parse_renames(["a=a", "a=b"])) == {}


def test_several_rules_in_one_text():
    assert parse_renames(["a=b,c/d=", r"re:(a|b),(c)=\1,\2"]) == (
        RenameRule("a", "b"),
        RenameRule("c/d", ""),
        RenameRule("re:(a|b),(c)", r"\1,\2"),
    )
    assert parse_renames(["a,b=c"]) == (RenameRule("a,b", "c"),)  # a name may have commas


def test_a_mapping_may_hold_an_equals_sign():
    assert parse_renames({"a=b": "c"}) == (RenameRule("a=b", "c"),)


@pytest.mark.parametrize("text", ["model", "=", "re:(=x", r"re:a=\1", "re:a"])
def test_malformed(text):
    with pytest.raises(RecipeError, match="--rename|is not OLD=NEW"):
        parse_renames([text])
