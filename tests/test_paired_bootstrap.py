"""Differences between models on the same trials: their interval, the files behind them, and where they are shown."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from runs import record

import neuro_lightning as nl
from neuro_lightning.artifacts.sweep_jobs import collect
from neuro_lightning.artifacts.trial_scores import read_trial_scores, trial_scores_file, write_trial_scores
from neuro_lightning.functional.likelihood import (
    SpikeSums,
    bits_per_spike,
    bits_per_spike_from_sums,
    spike_sums_of_trials,
)
from neuro_lightning.functional.paired_bootstrap import paired_bootstrap
from neuro_lightning.metrics.trial_sums import as_sums, mean_of
from neuro_lightning.pages.sweep_page import sweep_page
from neuro_lightning.sweeps.results import clear
from neuro_lightning.sweeps.results.clear import is_best_clear
from neuro_lightning.sweeps.results.table import finish, print_summary


def trials(n=60, seed=0, bins=20, neurons=5):
    """True rates of trials of which some are far easier than others, counts, and a mask with holes."""
    rng = np.random.default_rng(seed)
    ease = rng.gamma(1.0, 1.0, (n, 1, 1))
    rates = np.exp(ease * np.sin(np.arange(bins)[None, :, None] / 3 + rng.uniform(0, 6, (n, 1, neurons))) - 1)
    mask = torch.from_numpy(rng.random(rates.shape) < 0.9)
    return torch.from_numpy(rates), torch.from_numpy(rng.poisson(rates).astype(float)), mask


def models(**options):
    rates, counts, mask = trials(**options)
    noise = torch.randn(rates.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [spike_sums_of_trials(r, counts, mask) for r in (rates, rates * (0.2 * noise).exp())]


def total(sums):
    return SpikeSums(*(value.sum(0) for value in sums))


def test_sums_of_trials_make_the_score():
    rates, counts, mask = trials()
    sums = spike_sums_of_trials(rates, counts, mask)
    assert sums.nll.shape == (60, 5)
    torch.testing.assert_close(bits_per_spike_from_sums(total(sums)), bits_per_spike(rates, counts, mask))


def test_the_difference_is_that_of_the_scores_and_its_error_that_of_the_jackknife():
    one, other = models()
    found = paired_bootstrap(one, other)
    scores = [float(bits_per_spike_from_sums(total(sums))) for sums in (one, other)]
    assert found.value == pytest.approx(scores[0] - scores[1], abs=1e-12)
    left_out = []
    for k in range(60):
        kept = torch.arange(60) != k
        pair = [float(bits_per_spike_from_sums(total(SpikeSums(*(v[kept] for v in s))))) for s in (one, other)]
        left_out.append(pair[0] - pair[1])
    jackknife = math.sqrt(59 / 60 * np.square(np.array(left_out) - np.mean(left_out)).sum())
    assert found.error == pytest.approx(jackknife, rel=0.1)
    assert found.low < found.value < found.high and found.is_clear
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.error, rel=0.1)
    assert found.trials == math.ceil(60 * (2 * found.error / found.value) ** 2)


def test_pairs_cancel_what_trials_have_in_common():
    one, other = models()
    rng = np.random.default_rng(0)
    alone = []
    for _ in range(400):
        index = torch.from_numpy(rng.integers(60, size=60))
        alone.append(float(bits_per_spike_from_sums(SpikeSums(*(value[index].sum(0) for value in one)))))
    assert paired_bootstrap(one, other).error < np.std(alone) / 3


def test_more_trials_narrow_the_interval_and_the_number_needed_says_how_many():
    few, many = (paired_bootstrap(*models(n=n, seed=2)) for n in (40, 640))
    assert many.error == pytest.approx(few.error / 4, rel=0.35)
    assert many.trials == pytest.approx(few.trials, rel=0.9)


def test_the_same_model_twice_differs_by_nothing():
    one, _ = models()
    found = paired_bootstrap(one, one)
    assert found[:4] == (0, 0, 0, 0) and not found.is_clear and found.trials == math.inf


def test_draws_are_seeded():
    one, other = models()
    assert paired_bootstrap(one, other, draws=700) == paired_bootstrap(one, other, draws=700)
    assert paired_bootstrap(one, other, seed=1) != paired_bootstrap(one, other)


def test_other_trials_are_refused():
    one, _ = models()
    _, other = models(seed=5)
    with pytest.raises(ValueError, match="different trials"):
        paired_bootstrap(one, other)
    with pytest.raises(ValueError, match="different trials"):
        mean_of([one, other])


def test_one_trial_or_no_spike_has_no_interval():
    one, other = models(n=1)
    assert paired_bootstrap(one, other).error == 0
    silent = one._replace(spikes=one.spikes * 0)
    assert math.isnan(paired_bootstrap(silent, silent).low)


def test_a_mean_over_seeds_has_the_mean_score():
    one, other = models()
    scores = [bits_per_spike_from_sums(total(sums)) for sums in (one, other)]
    torch.testing.assert_close(bits_per_spike_from_sums(total(mean_of([one, other]))), sum(scores) / 2)


@pytest.mark.parametrize("damage", [None, b"", b"PK\x03\x04 cut short"])
def test_a_file_that_cannot_be_read_is_none(tmp_path, damage):
    path = trial_scores_file(tmp_path, "monday")
    if damage is not None:
        write_trial_scores(path, {"val": models()[0]._asdict()})
        path.write_bytes(damage)
    assert read_trial_scores(path, "val") is None


def test_sums_are_read_as_they_were_written(tmp_path):
    one, other = models()
    path = trial_scores_file(tmp_path)
    write_trial_scores(path, {"val": one._asdict(), "test": other._asdict()})
    for split, sums in (("val", one), ("test", other)):
        assert all(map(torch.equal, as_sums(read_trial_scores(path, split)), sums))
    assert read_trial_scores(path, "train") is None


# ---- a sweep of two models, as a user makes it


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    settings = {
        "trainer": "cpu", "trainer.max_epochs": 3, "logger": "csv", "callbacks": "minimal", "baselines": None,
        "data.sizes.n_train": 40, "data.sizes.n_val": 20, "data.sizes.n_bins": 40, "model.kernel_sd_ms": [[40], [1]],
    }  # fmt: skip
    return nl.sweep(["smoothing"], "lorenz", settings, seeds=[0, 1], folder=folder / "sweep", verbose=False)


def test_a_run_keeps_what_its_trials_score(swept):
    for run in swept.runs:
        for split in ("val", "test"):
            sums = as_sums(read_trial_scores(trial_scores_file(run.folder), split))
            score = float(bits_per_spike_from_sums(total(sums)))
            assert score == pytest.approx(record(run.folder)["metrics"][f"{split}/co_bps"], abs=1e-9)


def test_the_sweep_says_whether_its_best_setting_is_better(swept):
    jobs = collect(swept.folder)
    line = is_best_clear(swept.folder, jobs)
    assert "model.kernel_sd_ms=[40] is better than model.kernel_sd_ms=[1] by 0." in line
    assert "95 % interval over trials of these seeds" in line
    assert line in (swept.folder / "sweep.md").read_text()


def test_the_line_is_computed_once_for_all_that_shows_it(swept, tmp_path, monkeypatch, capsys):
    folder, calls = shutil.copytree(swept.folder, tmp_path / "sweep"), []
    monkeypatch.setattr(clear, "is_best_clear", lambda *found: calls.append(found) or "one is better than two")
    print_summary(folder, finish(folder))
    assert len(calls) == 1 and "one is better than two" in capsys.readouterr().out
    assert "one is better than two." in sweep_page(folder).sections[0].lines and len(calls) == 2
    assert "one is better than two" in (folder / "sweep.md").read_text()


def test_settings_that_are_too_long_for_a_sentence_are_named_by_their_jobs(swept, monkeypatch):
    monkeypatch.setattr(clear, "LONGEST", 10)
    jobs = collect(swept.folder)
    assert "the setting of jobs 0, 2 is better than the setting of jobs 1, 3 by" in is_best_clear(swept.folder, jobs)
    single = [job for job in jobs if job["overrides"]["seed"] in (0, "0")]
    numbers = [job["job"].partition("_")[0] for job in single]
    assert f"job {numbers[0]} is better than job {numbers[1]} by" in is_best_clear(swept.folder, single)


def test_settings_that_are_alike_are_not_called_better(swept, tmp_path):
    jobs = collect(swept.folder)
    for job in jobs:  # all of them predict the same, but for a whisper
        arrays = read_trial_scores(trial_scores_file(swept.folder / jobs[0]["job"]), "val")
        rng = np.random.default_rng("40" in str(job["overrides"]["model.kernel_sd_ms"]))
        ripple = rng.normal(0, 1e-3, arrays["nll"].shape)
        write_trial_scores(trial_scores_file(tmp_path / job["job"]), {"val": arrays | {"nll": arrays["nll"] + ripple}})
    line = is_best_clear(tmp_path, jobs)
    assert "do not differ clearly" in line or "such trials would tell" in line


def test_nothing_is_said_of_other_trials_or_of_runs_that_kept_none(swept, tmp_path):
    jobs = collect(swept.folder)
    assert is_best_clear(tmp_path, jobs) is None
    for k, job in enumerate(jobs):
        arrays = read_trial_scores(trial_scores_file(swept.folder / job["job"]), "val")
        write_trial_scores(trial_scores_file(tmp_path / job["job"]), {"val": {n: v[k:] for n, v in arrays.items()}})
    assert is_best_clear(tmp_path, jobs) is None


def test_compare_has_the_interval_over_trials(swept):
    runs = {str(size): [r for r in swept.runs if r.config["model"]["kernel_sd_ms"] == [size]] for size in (1, 40)}
    table = nl.compare(runs)
    row = table.loc["val/co_bps"]
    assert 0 < row["40 low"] < row["40 difference"] < row["40 high"] and row["40 trials"] >= 1
    assert table.loc["val/vel_r2"].isna()["40 low"]
    assert json.loads((swept.runs[0].folder / "run.json").read_text())["status"] == "finished"
