"""Cross-decoding: whether runs find the same latents."""

import json

import numpy as np
import pytest
import torch
from runs import TINY, here

from neuro_lightning.analysis import consistency
from neuro_lightning.display.figures_latents import consistency_figure
from neuro_lightning.functional.cross_decoding import cross_decoding

ANY_MODEL = [word for word in TINY if not word.startswith("model")]


def rows(n, seed):
    """Two latents that all models have, and three that only one has."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, 2))), torch.from_numpy(rng.normal(size=(n, 3)))


def test_a_rotation_is_decoded_wholly_and_what_one_model_has_alone_is_not():
    (train, own), (evaluated, own_new) = rows(600, 0), rows(300, 1)
    turn = torch.tensor([[0.6, 0.8, 3.0], [-0.8, 0.6, 1.0]], dtype=torch.float64)
    models = [
        (train, evaluated),
        (100 * train @ turn + 7, 100 * evaluated @ turn + 7),
        (torch.cat([train, own], 1), torch.cat([evaluated, own_new], 1)),
    ]
    r2 = cross_decoding(*zip(*models, strict=True))
    assert r2.diagonal().min() > 0.999 and r2[0, 1] > 0.999 and r2[1, 0] > 0.999
    assert r2[2, :2].min() > 0.999  # it holds what the others hold
    shared = float(evaluated.var(0).sum() / torch.cat([evaluated, own_new], 1).var(0).sum())
    assert r2[0, 2] == pytest.approx(shared, abs=0.03) and r2[1, 2] == pytest.approx(shared, abs=0.03)


def test_r2_is_that_of_least_squares_where_rows_are_many():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 4))
    y = x @ rng.normal(size=(4, 3)) + rng.normal(size=(4000, 3))
    half = slice(None, 2000), slice(2000, None)
    r2 = cross_decoding([torch.from_numpy(v[half[0]]) for v in (x, y)], [torch.from_numpy(v[half[1]]) for v in (x, y)])
    ones = [np.column_stack([x[part], np.ones(2000)]) for part in half]
    weight = np.linalg.lstsq(ones[0], y[half[0]], rcond=None)[0]
    new = y[half[1]]
    expected = 1 - np.square(new - ones[1] @ weight).sum() / np.square(new - new.mean(0)).sum()
    assert float(r2[0, 1]) == pytest.approx(expected, abs=1e-3)


def test_a_mean_that_moves_between_the_splits_counts_as_an_error():
    (train, _), (evaluated, _) = rows(600, 0), rows(300, 1)
    r2 = cross_decoding([train, train], [evaluated, evaluated + 3])
    expected = 1 - 300 * 2 * 9 / (evaluated - evaluated.mean(0)).square().sum()
    assert float(r2[0, 1]) == pytest.approx(float(expected), abs=0.01) and r2[0, 0] > 0.999


def test_constant_latents_say_nothing():
    (train, _), (evaluated, _) = rows(200, 0), rows(100, 1)
    r2 = cross_decoding([train, torch.ones(200, 2)], [evaluated, torch.ones(100, 2)])
    assert r2[:, 1].isnan().all() and r2[1, 0] < 0.01


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [here(folder / f"gru_{seed}", f"seed={seed}").folder for seed in (0, 1)] + [
        here(folder / "mean", "model=mean", base=ANY_MODEL).folder
    ]


def test_the_command_prints_and_writes(runs, tmp_path, capsys):
    consistency.main([*map(str, runs[:2]), "--trusted", "tiny", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "Latents of 2 runs on tiny (simulated data)" in out and "decoded by others" in out and "gru_1" in out
    values = json.loads((tmp_path / "consistency.json").read_text())
    r2 = np.array(values["r2"])
    assert values["runs"] == ["gru_0", "gru_1"] and (r2.diagonal() > 0.99).all()
    assert values["decoded"] == pytest.approx([r2[1, 0], r2[0, 1]])
    assert values["decodes"] == pytest.approx([r2[0, 1], r2[1, 0]])
    assert (tmp_path / "consistency.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("which", "message"),
    [((0,), "give two runs or more"), ((0, 2), "this model has no latents; leave it out")],
)
def test_what_cannot_be_compared_is_one_line(runs, which, message, capsys):
    assert consistency.main([*(str(runs[k]) for k in which), "--trusted", "tiny"]) == 1
    assert message in capsys.readouterr().err


def test_the_figure_shows_the_numbers():
    r2 = np.array([[1.0, 0.25], [0.5, 1.0]])
    figure = consistency_figure(r2, ["one", "two"], simulated=True)
    panel = figure.axes[0]
    assert [text.get_text() for text in panel.texts] == ["1.00", "0.25", "0.50", "1.00"]
    assert np.array_equal(panel.images[0].get_array(), r2) and "simulated" in figure.get_suptitle()
