"""The scores of a sweep over the number of latents: read from run.json files, printed and drawn."""

import csv
import json

import pytest

from neuro_lightning.analysis.latent_dimension import figure, main, read_answer, table_rows, write_report
from neuro_lightning.errors import DataError

MODEL = {2: [0.9, 1.0, 1.1], 4: [0.6, 0.62, 0.64], 8: [0.5, 0.5, 0.53], 16: [0.5, 0.51, 0.49], 32: [0.7, 0.6, 0.8]}
PCA = {2: 0.8, 4: 0.5, 8: 0.4, 16: 0.3, 32: 0.1}


def job(sweep, number, latents, seed, value, *, dataset="twin", overrides=(), **changes):
    """A finished run as `train.py` records it."""
    folder = sweep / f"{number}_x"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("[]")
    config = {"model": {"_target_": "neuro_lightning.models.lstm_autoencoder.LSTMAutoencoder", "latent_dim": latents}}

    def by_split(mse):
        return {"val": {"mse": mse, "variance": 1 - mse}, "test": {"mse": mse + 1, "variance": -mse}}

    content = {
        "status": "finished", "error": None, "seed": seed, "config": config, "wall_s": 1.0,
        "overrides": [f"model.latent_dim={latents}", f"seed={seed}", *overrides],
        "objective": {"name": "val/mse", "value": value, "mode": "min"},
        "metrics": {f"{split}/{k}": v for split, values in by_split(value).items() for k, v in values.items()},
        "baselines": {"mean": by_split(1.2), "pca": by_split(PCA[latents])},
        "oracle": by_split(0.45), "references": {"svca": {"val": {"variance": 0.6}}},
        "data": {"name": dataset, "simulated": True},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(content | changes))


@pytest.fixture
def sweep(tmp_path):
    numbers = iter(range(100))
    for latents, values in MODEL.items():
        for seed, value in enumerate(values):
            job(tmp_path, next(numbers), latents, seed, value)
    job(tmp_path, 90, 4, 3, 99.0, status="failed", error="diverged")
    return tmp_path


def test_scores_are_read_from_finished_runs(sweep):
    answer = read_answer(sweep)
    assert (answer.dataset, answer.simulated, answer.model) == ("twin", True, "LSTMAutoencoder")
    assert answer.metrics == ["mse", "variance"] and answer.others == ["mean", "pca", "oracle", "svca"]
    seeds = answer.seeds("LSTMAutoencoder", "mse").groupby("latents").value.apply(list)
    assert seeds.to_dict() == MODEL, "a failed job is none of them"
    assert answer.seeds("pca", "mse").groupby("latents").value.first().to_dict() == PCA
    assert answer.grows("pca") and not answer.grows("mean") and not answer.grows("oracle")
    columns, rows = table_rows(answer, "mse")
    assert columns == ["latents", "seeds", "LSTMAutoencoder", "s.e.m.", "mean", "pca", "true rates (oracle)"]
    assert rows[0] == ["2", "3", "1.0000", "0.0577", "1.2000", "0.8000", "0.4500"]
    assert "shared variance (SVCA)" in table_rows(answer, "variance")[0]


def test_fewest_latents_within_one_standard_error(sweep):
    """16 are best with 0.5, standard error 0.0058; 8 have 0.51 and miss it, were it not for a wider spread."""
    answer = read_answer(sweep)
    assert answer.enough("mse") == 16 and answer.enough("variance") == 16
    answer.scores.loc[answer.seeds(answer.model, "mse").query("latents == 16").index, "value"] = [0.47, 0.5, 0.53]
    assert answer.enough("mse") == 8


def test_scores_of_the_test_split(sweep):
    answer = read_answer(sweep, "test")
    assert answer.seeds("LSTMAutoencoder", "mse").query("latents == 4").value.tolist() == pytest.approx(
        [1.6, 1.62, 1.64]
    )
    with pytest.raises(DataError, match="no scores of a holdout split"):
        read_answer(sweep, "holdout")


def test_the_figure_has_a_panel_for_each_metric(sweep):
    panels = figure(read_answer(sweep)).axes
    assert [panel.get_ylabel() for panel in panels] == ["val MSE", "val variance"]
    assert panels[0].get_title(loc="left") == "16 within one s.e.m. of the best"
    lines = {line.get_label(): line for line in panels[0].get_lines()}
    assert list(lines["pca"].get_ydata()) == pytest.approx(list(PCA.values()))
    assert lines["true rates (oracle)"].get_ydata()[0] == pytest.approx(0.45)
    assert {line.get_label() for line in panels[1].get_lines()} >= {"shared variance (SVCA)", "pca"}


def test_command_writes_figure_and_csv(sweep, capsys):
    main([str(sweep), "--metric", "variance"])
    printed = capsys.readouterr().out
    assert "16 latents are the fewest" in printed and "simulated data" in printed
    assert (sweep / "latent_dimension.png").stat().st_size > 10_000
    with open(sweep / "latent_dimension.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "mse"]
    ours = {int(row["latents"]): row for row in rows if row["who"] == "LSTMAutoencoder"}
    assert set(ours) == set(MODEL) and float(ours[4]["mean"]) == pytest.approx(0.62) and ours[4]["seeds"] == "3"


def test_unusable_sweeps_are_refused(sweep, tmp_path, capsys):
    with pytest.raises(DataError, match="--metric co_r2: these runs have mse, variance"):
        write_report(sweep, metric="co_r2")
    job(sweep, 91, 4, 0, 0.5, overrides=["model.cell=gru"])
    with pytest.raises(DataError, match=r"varies model\.cell too"):
        read_answer(sweep)
    assert main([str(tmp_path / "nowhere")]) == 1 and "no such folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no finished run with a number of latents"):
        read_answer(tmp_path / "empty")


def test_sweep_of_two_datasets_is_refused(sweep):
    job(sweep, 92, 4, 0, 0.5, dataset="other")
    with pytest.raises(DataError, match="one dataset and one model"):
        read_answer(sweep)
