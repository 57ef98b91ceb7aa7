"""Population-based training, without Ray: tournament, perturbation, when it rests, and its journal."""

import itertools
import json
import math
import random
from collections import Counter

import pytest

from neuro_lightning.errors import ConfigError
from neuro_lightning.sweeps.tune.halving import Halving
from neuro_lightning.sweeps.tune.journal import FILE_NAME, Journal, Result, Start
from neuro_lightning.sweeps.tune.population import Generations, Member, Population, has_settled, perturb, tournament
from neuro_lightning.sweeps.tune.space import Choice, Interval

LR = Interval(1e-5, 5e-3, log=True)
SPACE = {"lr": LR, "units": Interval(2, 64, whole=True)}
SETTINGS = Population(generation_epochs=2, burn_in_epochs=4, width={"default": 0.3})


def population(n: int = 5, seed: int = 0, last: int = 100) -> Generations:
    members = [Member(i, {"lr": 1e-4 * (i + 1), "units": 8 * (i + 1)}, Start()) for i in range(n)]
    return Generations(SETTINGS, SPACE, members, seed, last)


def result(trial: int, epochs: int, score: float) -> Result:
    if not math.isfinite(score):
        return Result(trial, 0, -math.inf, "failed", error="it broke")
    return Result(trial, epochs, score, "paused", Start(epochs, f"{trial}/{epochs}.ckpt"))


def played(generations: Generations, rounds: int, order=None) -> list:
    """What the members are after so many generations, whose results come in in some order."""
    history = []
    for i in range(rounds):
        numbers = list(range(len(generations.members)))
        (order or (lambda x: None))(numbers)
        taken = [generations.report(result(n, 4 + 2 * i, math.sin(7 * n + i) + i)) for n in numbers]
        assert taken[:-1] == [None] * (len(numbers) - 1)
        history.append((taken[-1], [(dict(m.values), m.start) for m in generations.members]))
    return history


@pytest.mark.parametrize("n", [2, 5, 8])
def test_everybody_meets_one_other_and_the_weaker_loses(n):
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
    rng, wide = random.Random(0), Interval(0.0, 100.0)
    moved = [perturb(1.0, 0.3, wide, rng) for _ in range(2000)]
    assert 0.7 <= min(moved) < 0.72 and 1.28 < max(moved) <= 1.3
    assert all(abs(value - 1) >= 0.002 * 0.3 * 0.99 for value in moved)
    assert 0.45 < sum(value > 1 for value in moved) / 2000 < 0.55


def test_a_value_stays_within_its_bounds():
    rng = random.Random(0)
    at_the_end = [perturb(5e-3, 0.3, LR, rng) for _ in range(500)]
    assert max(at_the_end) <= 5e-3 and len(set(at_the_end)) > 400  # drawn again, not pressed against the bound
    assert perturb(0.0, 0.3, Interval(0.0, 0.6), rng) == 0.0
    assert perturb(1.0, 0.3, Interval(0.1, 0.2), rng) == 0.2  # nothing can be drawn within
    whole = perturb(10, 0.3, Interval(2, 64, whole=True), rng)
    assert isinstance(whole, int) and 7 <= whole <= 13


def test_the_population_settles_when_its_best_has_stopped_improving():
    assert not has_settled([1, 1, 1, 1], 4, 5e-4)  # too early
    assert has_settled([0, 1, 1, 1, 1], 4, 5e-4)
    assert not has_settled([0, 1, 1, 1, 1.001], 4, 5e-4)
    assert has_settled([0, 1, 1, 1, 1.0004], 4, 5e-4)
    assert has_settled([0, 1, 0.5, 0.9, 0.8], 4, 5e-4)
    assert not has_settled([0, -1, -1, -1, -0.99], 4, 5e-4)  # scores below zero improve upwards too
    assert not has_settled([0, -math.inf, 1, 1, 1], 4, 5e-4)
    assert not has_settled([1, 1, 1, 2, 2, 2.0005, 2.5], 4, 5e-4)


def test_losers_take_over_weights_and_moved_values_and_winners_go_on():
    generations = population(4)
    before = [dict(member.values) for member in generations.members]
    [(taken, after)] = played(generations, 1)
    for number, (values, start) in enumerate(after):
        if number in taken:
            winner = taken[number]
            assert start == Start(4, f"{winner}/4.ckpt", grafted=True, own=f"{number}/4.ckpt")
            for key in SPACE:
                assert values[key] != before[winner][key]
                assert 0.7 <= values[key] / before[winner][key] <= 1.3 or key == "units"
        else:
            assert values == before[number] and start == Start(4, f"{number}/4.ckpt")


def test_generations_follow_from_the_seed_and_the_scores_alone():
    once = played(population(), 4)
    assert once == played(population(), 4, order=random.Random(1).shuffle)
    assert once != played(population(seed=1), 4)
    assert len({frozenset(taken.items()) for taken, _ in once}) > 1


def test_a_member_that_fails_takes_over_and_is_not_taken_over_from():
    generations = population(2)
    generations.report(result(0, 4, -math.inf))
    assert generations.report(result(1, 4, -5.0)) == {0: 1}
    assert generations.members[0].start == Start(4, "1/4.ckpt", grafted=True, own=None)
    generations.report(result(0, 6, -math.inf))  # its own records are still those it had: none
    generations.report(result(1, 6, 1.0))
    assert generations.members[0].start == Start(6, "1/6.ckpt", grafted=True, own=None)


def test_it_is_over_when_all_epochs_are_done_or_every_member_failed():
    generations = population(2, last=6)
    for epochs in (4, 6):
        assert generations.over is None
        for number in (0, 1):
            generations.report(result(number, epochs, float(number + epochs)))
    assert generations.over == "all 6 epochs are done"
    assert [member.start.epochs for member in generations.members] == [6, 6]
    generations = population(2)
    for number in (0, 1):
        generations.report(result(number, 4, -math.inf))
    assert generations.over == "every member failed"


def test_it_rests_once_it_has_settled():
    generations = population(2)
    for epochs in itertools.count(4, 2):
        for number in (0, 1):
            generations.report(result(number, epochs, 1.0 - number))
        if generations.over:
            break
    assert "has not improved" in generations.over and len(generations.best) == 5


def test_milestones():
    published = Population()
    assert published.milestones(180, 5) == [105, 130, 155, 180]
    assert published.milestones(170, 5) == [105, 130, 155, 170]
    with pytest.raises(ConfigError, match="members would never meet, the first time is after epoch 105"):
        published.milestones(105, 5)
    assert Population(generation_epochs=3, burn_in_epochs=1).milestones(9, 3) == [3, 6, 9]
    assert Halving().milestones(64, 1) == [4, 16, 64]
    assert Halving(0.08, 3).milestones(50, 1) == [4, 12, 36, 50]
    assert Halving().milestones(50501, 20) == [3160, 12640, 50501]  # at validations
    assert Halving().milestones(60, 5) == [5, 20, 60]


@pytest.mark.parametrize(
    ("settings", "space", "says"),
    [
        (Population(), {"lr": LR, "model": Choice(("gru", "ndt"))}, "model: population-based training moves numbers"),
        (Population(initial={"dropout": 0.1}), {"lr": LR}, "initial: dropout is not searched"),
        (Population(initial={"lr": 0.1}), {"lr": LR}, "outside 1e-05 to 0.005"),
        (Population(width={"lr": 30}), {"lr": LR}, "width.lr=30"),
        (Population(width={"lt": 0.3}), {"lr": LR}, "width: lt is not searched"),
    ],
)
def test_settings_that_contradict_the_space_are_refused(settings, space, says):
    with pytest.raises(ConfigError, match=says):
        settings.check(space)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="generation_epochs=0"):
        Population(generation_epochs=0).milestones(10, 1)
    with pytest.raises(ConfigError, match="after epoch 105, where there is no validation"):
        Population().milestones(1000, 2)
    with pytest.raises(ConfigError, match="grace=10"):
        Halving(10).milestones(10, 1)
    with pytest.raises(ConfigError, match="factor=1"):
        Halving(factor=1).milestones(10, 1)
    with pytest.raises(ConfigError, match="max_epochs=10 has no validation before its end"):
        Halving().milestones(10, 20)


def test_the_journal_gives_back_what_was_written(tmp_path):
    jobs = [["a=1"], ["a=2"]]
    results = [result(0, 4, 0.5), result(1, 4, -math.inf)]
    journal = Journal(tmp_path, jobs)
    for one in results:
        journal.write(one)
    assert Journal(tmp_path, jobs).results == results


def test_a_line_that_was_cut_off_is_left_out_and_the_next_stands_by_itself(tmp_path):
    journal = Journal(tmp_path, [["a=1"]])
    journal.write(result(0, 4, 0.5))
    journal.write(result(0, 6, 0.75))
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-20])
    again = Journal(tmp_path, [["a=1"]])
    assert again.results == [result(0, 4, 0.5)]
    again.write(result(0, 6, 0.25))
    assert Journal(tmp_path, [["a=1"]]).results == [result(0, 4, 0.5), result(0, 6, 0.25)]


def test_the_journal_of_another_search_is_refused(tmp_path):
    Journal(tmp_path, [["a=1"]], "rules")
    for jobs, rules in (([["a=2"]], "rules"), ([["a=1"]], "others"), ([["a=1"], ["a=2"]], "rules")):
        with pytest.raises(ConfigError, match="holds another search"):
            Journal(tmp_path, jobs, rules)


def test_trials_may_be_added_where_none_depends_on_others(tmp_path):
    Journal(tmp_path, [["a=1"]]).write(result(0, 4, 0.5))
    longer = Journal(tmp_path, [["a=1"], ["a=2"]])
    assert longer.results == [result(0, 4, 0.5)]
    longer.write(result(1, 4, 0.25))
    assert Journal(tmp_path, [["a=1"], ["a=2"]]).results == [result(0, 4, 0.5), result(1, 4, 0.25)]
    with pytest.raises(ConfigError, match="of 2 trials"):
        Journal(tmp_path, [["a=1"]])


def test_the_journal_is_strict_json(tmp_path):
    Journal(tmp_path, [["a=1"]]).write(result(0, 4, -math.inf))
    for line in (tmp_path / FILE_NAME).read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
