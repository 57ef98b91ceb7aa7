import itertools
import os

import numpy as np
import pytest
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution, FloatDistribution

from neuro_lightning.artifacts.records import write_json
from neuro_lightning.sweeps.results.importance import (
    Importance,
    distribution_of,
    importance,
    is_logarithmic,
    study_of,
)
from neuro_lightning.sweeps.results.picture import MAX_KEYS, draw

NUMBERS = itertools.count()


def job(overrides, objective, *, status="finished", mode="max"):
    return {
        "job": f"{next(NUMBERS)}_x", "status": status, "objective": objective, "overrides": overrides, "mode": mode,
        "objective_name": "val/x", "data": "x", "simulated": True, "metrics": {}, "end": None, "peak": None,
        "seconds": None,
    }  # fmt: skip


def search(n, score, seed=0, repeats=1):
    """Jobs at random points of a space; ``score(values, rng)`` is their objective."""
    rng, jobs = np.random.default_rng(seed), []
    for _ in range(n):
        values = {
            "lr": float(10 ** rng.uniform(-5, -1)),
            "width": int(rng.choice([8, 16, 32])),
            "kind": str(rng.choice(["a", "b", "c"])),
            "masked": [None, 0.1, 0.3][rng.integers(3)],
            "causal": bool(rng.integers(2)),
            "data": "lorenz",
        }
        jobs += [job({**values, "seed": seed}, score(values, rng)) for seed in range(repeats)]
    return jobs


def peaked(values, rng):
    return -((np.log10(values["lr"]) + 3) ** 2) + 1.5 * (values["kind"] == "b") + 0.05 * rng.normal()


@pytest.mark.parametrize("seed", [0, 1])
def test_what_matters_comes_first(seed):
    found = importance(search(40, peaked, seed))
    assert list(found.shares)[:2] == ["lr", "kind"] and found.r2 > 0.5 and found.n == 40
    assert found.shares["lr"] > 0.4 > found.shares["kind"] > 0.05
    assert max(found.shares[key] for key in ("width", "masked", "causal")) < 0.05
    assert set(found.shares) == {"lr", "kind", "width", "masked", "causal"}  # not the seed, nor what is the same


def test_shares_are_those_of_the_variance():
    """Of two independent keys with effects 2 and 1, the ranks' variance falls to them as about 4 to 1."""
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(300, 2))
    found = importance([job({"a": float(a), "b": float(b)}, 2 * a + b) for a, b in points])
    assert abs(found.shares["a"] - 0.8) < 0.1 and abs(found.shares["b"] - 0.2) < 0.1


def test_a_key_that_matters_with_another_one_has_its_share():
    found = importance(search(120, lambda v, rng: float(v["causal"] != (v["kind"] == "a"))))
    assert found.shares["causal"] > 0.2 and found.shares["kind"] > 0.2 and found.shares["lr"] < 0.05


@pytest.mark.parametrize("n", [8, 30])
def test_where_nothing_matters_nothing_is_shown(n):
    shown = [bool(importance(search(n, lambda v, rng: rng.normal(), seed)).shares) for seed in range(8)]
    assert sum(shown) <= 1


def test_seeds_are_noise_not_settings():
    found = importance(search(24, peaked, repeats=3))
    assert found.n == 24 and "seed" not in found.shares
    alone = importance([job({"seed": seed}, 0.1 * seed) for seed in range(20)])
    assert alone is None  # nothing but the seed differs


def test_few_settings_and_equal_scores_are_not_judged():
    few = importance(search(7, peaked, repeats=5))
    assert not few.shares and few.remark == "it takes 8 settings that finished, and there are 7"
    assert importance(search(20, lambda v, rng: 0.5)).remark == "all settings score the same"


def test_only_finished_jobs_are_learned_from():
    jobs = search(20, peaked)
    others = [job({**search(1, peaked, 9)[0]["overrides"], "extra": i}, 100.0, status="pruned") for i in range(9)]
    failed = [job({"lr": 1.0, "data": "lorenz"}, None, status="failed")]
    assert importance([*jobs, *others, *failed]) == importance(jobs)


def test_a_setting_that_broke_down_is_no_worse_than_the_last():
    jobs = search(30, peaked)
    worst = min(jobs, key=lambda one: one["objective"])
    broken = [one if one is not worst else {**one, "objective": -1e9} for one in jobs]
    assert importance(broken).shares == importance(jobs).shares


def test_which_numbers_are_compared_by_their_logarithm():
    rng = np.random.default_rng(0)
    assert is_logarithmic(list(10 ** rng.uniform(-5, -1, 20))) and is_logarithmic([1e-4, 1e-3, 1e-2])
    assert not is_logarithmic(list(rng.uniform(0, 0.6, 200)))  # its smallest is decades below, by chance
    assert not is_logarithmic([0.0, 0.001, 1.0]) and not is_logarithmic([-1.0, 10.0]) and not is_logarithmic([8, 16])


# ---- the study and its pictures


def test_a_study_has_intervals_of_numbers_and_categories():
    assert distribution_of([1e-4, 1e-2, 1e-3, 1e-4]) == FloatDistribution(1e-4, 1e-2, log=True)
    assert distribution_of([8, 16.5]) == FloatDistribution(8, 16.5)
    assert distribution_of([0.1, None, 0.3]) == CategoricalDistribution(["0.1", "null", "0.3"])
    assert distribution_of([True, False]) == CategoricalDistribution(["true", "false"])
    settings = [{"lr": 0.1, "kind": None}, {"lr": 0.2, "kind": "a"}]
    study = study_of(["lr", "kind"], settings, [0.5, 0.25], mode="min")
    assert study.best_value == 0.25 and study.best_params == {"lr": 0.2, "kind": "a"}


def test_the_pictures_of_a_sweep(tmp_path):
    from matplotlib.image import imread

    jobs = [*search(20, peaked, repeats=2), job({"lr": 0.1, "kind": "a"}, 0.0, status="pruned")]
    paths = draw(jobs, tmp_path, importance(jobs))
    assert [path.name for path in paths] == ["sweep.png", "sweep_coordinates.png", "sweep_history.png"]
    assert sorted(path.name for path in paths) == sorted(os.listdir(tmp_path))
    for path in paths:
        pixels = imread(path)
        assert pixels.shape[1] > 700 and pixels[..., :3].std() > 0.05
    assert draw([job({"seed": i}, 0.1 * i) for i in range(9)], tmp_path, None) == []
    assert draw(jobs[:2], tmp_path, None) == [], "one setting"
    assert [path.name for path in draw(jobs[:4], tmp_path, None)] == ["sweep.png"], "two settings"


def test_the_picture_of_scores_shows_every_seed_and_what_they_are_compared_with(tmp_path, monkeypatch):
    jobs = [job({"model": name, "seed": seed}, score + 0.01 * seed) for name, score in (("gru", 0.3), ("ndt", 0.2))
            for seed in range(3)]  # fmt: skip
    record = {
        "baselines": {"smoothing": {"val": {"x": 0.15}}, "pca": {"val": {"x": 0.1}}},
        "oracle": {"val": {"x": 0.35}}, "references": {"mean rate": {"val": {"x": 0.0}}},
    }  # fmt: skip
    (tmp_path / jobs[0]["job"]).mkdir()
    write_json(tmp_path / jobs[0]["job"] / "run.json", record)
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: figures.append(figure) or path.touch())
    draw(jobs, tmp_path, None)
    panel = figures[0].axes[0]
    assert [text.get_text() for text in panel.get_yticklabels()] == ["model=gru", "model=ndt"]
    dots = [sorted(line.get_xdata()) for line in panel.lines if line.get_marker() == "o"]
    assert dots == [pytest.approx([0.3, 0.31, 0.32]), pytest.approx([0.2, 0.21, 0.22])]
    bars = [line.get_xdata()[0] for line in panel.lines if line.get_marker() == "|" and len(line.get_xdata()) == 1]
    assert {0.31, 0.21} <= {round(float(x), 6) for x in bars}
    lines = {line.get_label(): line.get_xdata()[0] for line in panel.lines if not line.get_label().startswith("_")}
    assert lines == {"smoothing baseline": 0.15, "true rates (oracle)": 0.35}, "the best baseline only"


def test_pictures_say_that_data_are_simulated_and_show_the_keys_that_matter(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    jobs = [job({f"key{i}": float(rng.uniform()) for i in range(14)}, rng.normal()) for _ in range(10)]
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: figures.append(figure) or path.touch())
    draw(jobs, tmp_path, Importance({"key13": 0.7, "key12": 0.3}))
    names = [label.get_text() for label in figures[1].axes[0].get_xticklabels()]
    assert names[0] == "val/x" and {"key13", "key12"} < set(names) and len(names) == 1 + MAX_KEYS
    assert all("simulated data" in figure.get_suptitle() for figure in figures)
