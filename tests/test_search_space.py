"""The space of a search, from the config file and the command line."""

import pytest

from neuro_lightning.errors import ConfigError
from neuro_lightning.sweeps.search.space import read_space


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        ("a.b=choice(1,two)", "numbers and words"),
        ("a.b=choice(true,0.5)", "numbers and true or false"),
        ("a.b=tag(log,interval(0,1))", "begins above 0"),
        ("a.b=tag(log,interval(-1,1))", "begins above 0"),
        ("a.b=interval(2,1)", "smaller one"),
        ("a.b=interval(1,high)", "str is incompatible"),
        ("a.b=choice()", "a.b=choice"),
        ("a.b=choice(null,1)", "write null,1,2"),
        ("a.b=range(3,3)", "at least one value"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_by_its_key(word, wrong):
    with pytest.raises(ConfigError, match=wrong) as caught:
        read_space({}, [word])
    assert "a.b" in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_space_and_a_key_given_twice_are_refused():
    with pytest.raises(ConfigError, match="nothing to search"):
        read_space({}, ["data=tiny", "seed=1"])
    with pytest.raises(ConfigError, match=r"a\.b is given twice, a\.b=1,2 and a\.b=3"):
        read_space({}, ["a.b=1,2", "a.b=3"])


def test_what_is_typed_replaces_what_the_file_says():
    file = {"a": "interval(0,1)", "b": "range(1,4)", "c": 0.5, "d": None, "e": "null,1", "model": "choice(x,y)"}
    space = read_space(file, ["a=0.3", "c=choice(true,false)", "~gone", "+new=[1,2]"])
    assert set(space.searched) == {"b", "c", "e", "model"}
    assert space.fixed == ["a=0.3", "d=null", "~gone", "+new=[1,2]"]
    values = {"b": 2, "c": True, "e": None, "model": "y"}
    assert space.overrides(values)[-4:] == ["b=2", "c=true", "e=null", "model=y"]
    said = [set(words) for words in space.examples()]
    assert all({"b=1", "a=0.3"} <= words for words in said)
    assert {"model=x"} <= said[0] and any("model=y" in words for words in said)
