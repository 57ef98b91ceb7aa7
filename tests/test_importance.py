import numpy as np
import pytest

from neuro_lightning.report.figures_sweep import MAX_KEYS, parallel_coordinates, scale_of
from neuro_lightning.sweeps.results.importance import encode, importance, is_logarithmic, scored_settings
from neuro_lightning.sweeps.results.picture import draw


def job(overrides, objective, *, status="finished", mode="max"):
    return {"status": status, "objective": objective, "overrides": overrides, "mode": mode, "objective_name": "val/x",
            "simulated": True}  # fmt: skip


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
    assert found.shares["causal"] > 0.3 and found.shares["kind"] > 0.3 and found.shares["lr"] < 0.05


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


def test_values_become_columns():
    np.testing.assert_allclose(encode([1e-4, 1e-2, 1e-3, 1e-4])[:, 0], np.log([1e-4, 1e-2, 1e-3, 1e-4]))
    np.testing.assert_array_equal(encode([0.1, 0.3, None]), [[0.1, 0], [0.3, 0], [0.2, 1]])
    np.testing.assert_array_equal(encode([True, False, True]), [[0, 1], [1, 0], [0, 1]])
    assert encode(["a", "b", "c"]).shape == (3, 3)


def test_which_numbers_are_compared_by_their_logarithm():
    rng = np.random.default_rng(0)
    assert is_logarithmic(list(10 ** rng.uniform(-5, -1, 20))) and is_logarithmic([1e-4, 1e-3, 1e-2])
    assert not is_logarithmic(list(rng.uniform(0, 0.6, 200)))  # its smallest is decades below, by chance
    assert not is_logarithmic([0.0, 0.001, 1.0]) and not is_logarithmic([-1.0, 10.0]) and not is_logarithmic([8, 16])


# ---- the picture


def test_axes_are_linear_logarithmic_or_categories():
    rates = list(np.logspace(-4, -1, 12))
    scale = scale_of(rates)
    np.testing.assert_allclose(scale.places, np.linspace(0, 1, 12))
    assert [text for _, text in scale.ticks] == ["0.0001", "0.001", "0.01", "0.1"] and not scale.band
    even = scale_of(list(np.linspace(0, 1, 11)))
    np.testing.assert_allclose(even.places, np.linspace(0, 1, 11))
    grid = scale_of([64, 8, 16, 32, 8])  # evenly spaced, in their order
    np.testing.assert_allclose(grid.places, [0.875, 0.125, 0.375, 0.625, 0.125])
    assert [text for _, text in grid.ticks] == ["8", "16", "32", "64"] and grid.band
    words = scale_of(["b", None, "a", True])
    assert [text for _, text in words.ticks] == ["null", "a", "b", "true"]
    assert [text for _, text in scale_of([0.3, None, 0.1]).ticks] == ["null", "0.1", "0.3"]


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize(("mode", "best"), [("max", "0.9"), ("min", "0.1")])
def test_the_best_is_named_and_lies_on_top(mode, best):
    settings = [{"lr": 10.0**-i, "kind": "ab"[i % 2]} for i in range(9)]
    scores = [0.5, 0.9, 0.1, 0.4, 0.3, 0.2, 0.6, 0.7, 0.8]
    figure = parallel_coordinates(settings, scores, keys=["lr", "kind"], objective="val/x", mode=mode, simulated=True)
    (axes,) = figure.axes
    assert best in texts(figure) and "0.1" in texts(figure) if mode == "max" else best in texts(figure)
    assert ("0.1" if mode == "max" else "0.01") in texts(figure)  # its learning rate
    assert "simulated" in figure.get_suptitle()
    top = max(axes.patches, key=lambda patch: patch.get_zorder())
    heights = top.get_path().vertices[:, 1]
    assert heights[-1] == (1.0 if mode == "max" else 0.0)
    assert len(axes.patches) == len(settings) + 1  # the best has a white rim


def test_a_setting_that_broke_down_does_not_squeeze_the_others():
    settings = [{"a": i} for i in range(12)]
    scores = [0.1 + 0.01 * i for i in range(11)] + [-50.0]
    figure = parallel_coordinates(settings, scores, keys=["a"], objective="val/x")
    ends = [patch.get_path().vertices[-1, 1] for patch in figure.axes[0].patches]
    assert min(ends) == 0 and np.ptp(sorted(ends)[1:]) > 0.3


def test_the_picture_of_a_sweep(tmp_path):
    from matplotlib.image import imread

    jobs = [*search(20, peaked, repeats=2), job({"lr": 0.1, "kind": "a"}, 0.0, status="pruned")]
    path = draw(jobs, tmp_path / "sweep.png", importance(jobs))
    assert path == tmp_path / "sweep.png" and [file.name for file in tmp_path.iterdir()] == ["sweep.png"]
    pixels = imread(path)
    assert pixels.shape[1] > 800 and pixels[..., :3].std() > 0.05
    assert draw([job({"seed": i}, 0.1 * i) for i in range(9)], path, None) is None
    assert draw(jobs[:4], path, None) is None  # two settings


def test_many_keys_are_cut_to_those_that_matter():
    rng = np.random.default_rng(0)
    jobs = [job({f"key{i}": float(rng.uniform()) for i in range(14)}, rng.normal()) for _ in range(10)]
    keys, settings, scores, _ = scored_settings(jobs)
    assert len(keys) == 14
    figure = parallel_coordinates(settings, scores, keys=keys, objective="val/x")
    assert sum(text.startswith("key") for text in texts(figure)) == MAX_KEYS
