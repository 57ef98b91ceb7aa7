"""Hydra's grammar as Ray's search space."""

import pytest

from neuro_lightning.errors import ConfigError
from neuro_lightning.sweeps.tune.space import Choice, Interval, read_space, sample, to_ray

pytest.importorskip("ray.tune")


def dimension(value: str):
    return read_space([f"key={value}"])[1]["key"]


def drawn(value: str, n: int = 300, seed: int = 0) -> list:
    return [values["key"] for values in sample({"key": dimension(value)}, n, seed)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a,b", Choice(("a", "b"))),
        ("choice(1,2.5,true)", Choice(("1", "2.5", "True"))),
        ("1,null", Choice(("1", "null"))),
        ("choice('a,b',c)", Choice(("a\\,b", "c"))),
        ("tag(grid,choice(1,2))", Choice(("1", "2"), grid=True)),
        ("range(1,8,3)", Choice(("1", "4", "7"))),
        ("range(0.1,0.35,0.1)", Choice(("0.1", "0.2", "0.3"))),
        ("interval(0.1,0.5)", Interval(0.1, 0.5)),
        ("interval(0,1)", Interval(0.0, 1.0)),  # as Hydra has it
        ("int(interval(1,7))", Interval(1, 7, whole=True)),
        ("tag(log,interval(1e-5,1e-3))", Interval(1e-5, 1e-3, log=True)),
        ("tag(log,int(interval(1,100)))", Interval(1, 100, log=True, whole=True)),
        ("tag(int,log,interval(1e0,1e2))", Interval(1, 100, log=True, whole=True)),
    ],
)
def test_grammar(value, expected):
    assert dimension(value) == expected


def test_what_is_no_sweep_is_fixed_and_the_last_word_counts():
    fixed, space = read_space(["a=1", "b=interval(0,1)", "+c=[1,2]", "b=3", "a=1,2", "~d", "data=lorenz"])
    assert fixed == ["+c=[1,2]", "b=3", "~d", "data=lorenz"]
    assert space == {"a": Choice(("1", "2"))}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("interval(2,1)", "no number lies between"),
        ("interval(1,1)", "no number lies between"),
        ("range(3,3)", "no value to choose from"),
        ("tag(log,interval(0,1))", "begins above 0"),
        ("tag(log,interval(-1,1))", "begins above 0"),
        ("tag(int,interval(0.5,3))", "whole numbers"),
        ("tag(log,choice(1,2))", "is for intervals"),
        ("tag(grid,interval(1,2))", "is for a list"),
        ("tag(lg,interval(1,2))", "no such tag: lg"),
        ("shuffle(a,b)", "leave shuffle out"),
        ("shuffle(range(1,5))", "leave shuffle out"),
        ("glob(*)", "list the options"),
        ("interval(1,", "OVERRIDE"),
    ],
)
def test_what_a_space_cannot_be_is_one_error(value, says):
    with pytest.raises(ConfigError) as caught:
        dimension(value)
    assert "\n" not in str(caught.value)
    if says != "OVERRIDE":
        assert says in str(caught.value) and f"key={value}" in str(caught.value)


def test_samples_lie_within_and_reach_both_ends():
    whole = drawn("int(interval(1,4))")
    assert set(whole) == {1, 2, 3, 4} and all(isinstance(value, int) for value in whole)
    assert set(drawn("tag(int,log,interval(1,4))")) == {1, 2, 3, 4}
    share = drawn("interval(0.2,0.4)")
    assert 0.2 <= min(share) < 0.21 and 0.39 < max(share) <= 0.4
    assert set(drawn("a,'b c'")) == {"a", "'b c'"}


def test_a_logarithmic_scale_is_even_on_it():
    values = drawn("tag(log,interval(1e-5,1e-1))", 2000)
    for low in (1e-5, 1e-4, 1e-3, 1e-2):
        assert 0.2 < sum(low <= value < 10 * low for value in values) / 2000 < 0.3


def test_the_same_seed_draws_the_same_trials_and_more_of_them_begin_alike():
    assert drawn("interval(0.0,1.0)", 5) == drawn("interval(0.0,1.0)", 9)[:5]
    assert drawn("interval(0.0,1.0)", 5) != drawn("interval(0.0,1.0)", 5, seed=1)


def test_a_grid_meets_every_sample():
    _, space = read_space(["a=tag(grid,choice(x,y))", "b=interval(0.0,1.0)", "c=tag(grid,range(0,3))"])
    trials = sample(space, 2, 0)
    assert len(trials) == 2 * 2 * 3
    assert {(t["a"], t["c"]) for t in trials[:6]} == {(a, c) for a in "xy" for c in "012"}


def test_keys_keep_their_dots_and_numbers_are_as_short_as_they_are_typed():
    [trial] = sample({"model.optimizer.lr": Interval(1e-4, 1e-2, log=True)}, 1, 3)
    assert float(f"{trial['model.optimizer.lr']:.6g}") == trial["model.optimizer.lr"]


def test_nothing_to_search_is_an_error():
    with pytest.raises(ConfigError, match="nothing to search"):
        sample({}, 3, 0)
    with pytest.raises(ConfigError, match="trials=0"):
        sample({"a": Interval(0.0, 1.0)}, 0, 0)


def test_the_space_is_rays_own():
    from ray.tune.search.sample import Categorical, Float, Integer

    assert isinstance(to_ray(Interval(0.0, 1.0)), Float)
    assert isinstance(to_ray(Interval(1, 3, whole=True)), Integer)
    assert isinstance(to_ray(Choice(("a",))), Categorical)
    assert to_ray(Choice(("a", "b"), grid=True)) == {"grid_search": ["a", "b"]}
