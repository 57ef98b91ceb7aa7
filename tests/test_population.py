"""The rules of population-based training: tournament, perturbation, when training ends."""

import math
import random
from collections import Counter

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from neuro_lightning.errors import ConfigError
from neuro_lightning.sweeps.population import Population, has_settled, perturb, tournament

LR = FloatDistribution(1e-5, 5e-3, log=True)
UNITS = IntDistribution(2, 64)
SPACE = {"lr": LR, "units": UNITS}
SETTINGS = Population(generation_epochs=2, burn_in_epochs=4, width={"default": 0.3})
VALUES = [{"lr": 1e-4 * (i + 1), "units": 8 * (i + 1)} for i in range(5)]


@pytest.mark.parametrize("n", [2, 5, 8])
def test_each_member_is_in_one_pair_and_the_weaker_loses(n):
    scores = random.Random(n).sample(range(100), n)
    for seed in range(20):
        taken = tournament(scores, random.Random(seed))
        assert len(taken) == n // 2
        assert max(Counter([*taken, *taken.values()]).values()) == 1
        assert all(scores[loser] < scores[winner] for loser, winner in taken.items())


def test_pairs_are_drawn_at_random():
    pairs = {frozenset(tournament([1, 2, 3, 4], random.Random(seed)).items()) for seed in range(50)}
    assert pairs == {frozenset(p) for p in ([(0, 1), (2, 3)], [(0, 2), (1, 3)], [(0, 3), (1, 2)])}


def test_a_value_moves_by_no_more_than_its_width_in_both_directions_and_never_stays():
    rng, wide = random.Random(0), FloatDistribution(0.0, 100.0)
    moved = [perturb(1.0, 0.3, wide, rng) for _ in range(2000)]
    assert 0.7 <= min(moved) < 0.72 and 1.28 < max(moved) <= 1.3
    assert all(abs(value - 1) >= 0.002 * 0.3 * 0.99 for value in moved)
    assert 0.45 < sum(value > 1 for value in moved) / 2000 < 0.55


def test_a_value_stays_within_its_bounds_and_steps():
    rng = random.Random(0)
    at_the_end = [perturb(5e-3, 0.3, LR, rng) for _ in range(500)]
    assert max(at_the_end) <= 5e-3 and len(set(at_the_end)) > 400, "drawn again, not set to the bound"
    assert perturb(0.0, 0.3, FloatDistribution(0.0, 0.6), rng) == 0.0
    assert perturb(1.0, 0.3, FloatDistribution(0.1, 0.2), rng) == 0.2, "nothing can be drawn within"
    whole = perturb(10, 0.3, UNITS, rng)
    assert isinstance(whole, int) and 7 <= whole <= 13
    assert perturb(100, 0.3, IntDistribution(50, 500, step=5), rng) % 5 == 0


def test_the_population_settles_when_its_best_has_stopped_improving():
    assert not has_settled([1, 1, 1, 1], 4, 5e-4)  # too early
    assert has_settled([0, 1, 1, 1, 1], 4, 5e-4)
    assert not has_settled([0, 1, 1, 1, 1.001], 4, 5e-4)
    assert has_settled([0, 1, 1, 1, 1.0004], 4, 5e-4)
    assert has_settled([0, 1, 0.5, 0.9, 0.8], 4, 5e-4)
    assert not has_settled([0, -1, -1, -1, -0.99], 4, 5e-4)  # scores below zero improve upwards too
    assert not has_settled([0, -math.inf, 1, 1, 1], 4, 5e-4)
    assert not has_settled([1, 1, 1, 2, 2, 2.0005, 2.5], 4, 5e-4)


def test_losers_copy_their_winners_values_perturbed_and_winners_keep_theirs():
    scores = [0.3, 0.1, 0.9, 0.5, 0.2]
    after, taken = SETTINGS.next_values(VALUES, scores, SPACE, "0, generation 1")
    assert len(taken) == 2
    for number, values in enumerate(after):
        if number not in taken:
            assert values == VALUES[number]
            continue
        winner = VALUES[taken[number]]
        assert all(values[key] != winner[key] for key in SPACE)
        assert 0.7 <= values["lr"] / winner["lr"] <= 1.3
    assert (after, taken) == SETTINGS.next_values(VALUES, scores, SPACE, "0, generation 1"), "the seed decides"
    others = {str(SETTINGS.next_values(VALUES, scores, SPACE, f"{seed}")) for seed in range(8)}
    assert len(others) == 8


def test_a_member_that_fails_copies_and_is_not_copied():
    scores = [-math.inf, -5.0]
    assert SETTINGS.next_values(VALUES[:2], scores, SPACE, "a")[1] == {0: 1}
    both = [-math.inf, -math.inf]
    assert SETTINGS.next_values(VALUES[:2], both, SPACE, "a") == (VALUES[:2], {})


def test_milestones():
    published = Population()
    assert published.milestones(180, 5) == [105, 130, 155, 180]
    assert published.milestones(170, 5) == [105, 130, 155, 170]
    with pytest.raises(ConfigError, match="there is no tournament, the first one is after epoch 105"):
        published.milestones(105, 5)
    assert Population(generation_epochs=3, burn_in_epochs=1).milestones(9, 3) == [3, 6, 9]
    with pytest.raises(ConfigError, match="generation_epochs=0"):
        Population(generation_epochs=0).milestones(10, 1)
    with pytest.raises(ConfigError, match="after epoch 105, where there is no validation"):
        Population().milestones(1000, 2)


@pytest.mark.parametrize(
    ("settings", "space", "says"),
    [
        (Population(), {"lr": LR, "model": CategoricalDistribution(["gru", "ndt"])}, "model: population-based"),
        (Population(initial={"dropout": 0.1}), {"lr": LR}, "initial: dropout is not searched"),
        (Population(initial={"lr": 0.1}), {"lr": LR}, "outside 1e-05 to 0.005"),
        (Population(width={"lr": 30}), {"lr": LR}, "width.lr=30"),
        (Population(width={"lt": 0.3}), {"lr": LR}, "width: lt is not searched"),
    ],
)
def test_settings_that_contradict_the_space_are_refused(settings, space, says):
    with pytest.raises(ConfigError, match=says):
        settings.check(space)
