"""The order of trials and neurons in a submission, and the options that a cached recording depends on."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import Tiny

from neuro_lightning.data.brainset.datamodule import Brainset
from neuro_lightning.data.nlb.datamodule import NLB
from neuro_lightning.data.nwb.datamodule import NWB
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.ensemble.combine import check_same_data
from neuro_lightning.errors import CheckpointError, SubmissionError
from neuro_lightning.runs.prediction import evaluation_split, submission_arrays
from neuro_lightning.runs.prediction_files import write_rates

N_IN, N_OUT, BINS, FORWARD = 3, 2, 4, 1


def trials(rows: list[int], *, hidden: bool = False) -> Trials:
    """Trials of one spike everywhere; of hidden ones only the held-in spikes are known."""

    def ones(bins, neurons):
        return np.ones((len(rows), bins, neurons), np.uint8)

    labels = {} if hidden else {
        "heldout": ones(BINS, N_OUT),
        "heldin_forward": ones(FORWARD, N_IN),
        "heldout_forward": ones(FORWARD, N_OUT),
    }  # fmt: skip
    return Trials(heldin=ones(BINS, N_IN), **labels, row=np.array(rows))


def predicted(splits: dict[str, Trials]) -> dict[str, np.ndarray]:
    """Rates that encode their trial's row: 1 + row / 10."""
    shape = (BINS + FORWARD, N_IN + N_OUT)
    return {
        name: np.broadcast_to(1 + part.row[:, None, None] / 10, (len(part), *shape)) for name, part in splits.items()
    }


def rows_of(array: np.ndarray) -> list[int]:
    return ((array[:, 0, 0] - 1) * 10).round().astype(int).tolist()


def arrays(**splits: Trials) -> dict[str, np.ndarray]:
    return submission_arrays(Recording("any", 20, splits, np.arange(N_IN + N_OUT)), predicted(splits))


def test_training_trials_are_in_the_order_of_the_trial_table():
    splits = {"train": trials([0, 3, 4]), "val": trials([1, 2]), "test": trials([0, 1], hidden=True)}
    test_phase = arrays(**splits)
    assert rows_of(test_phase["train_rates_heldin"]) == rows_of(test_phase["train_rates_heldout"]) == [0, 1, 2, 3, 4]
    assert rows_of(test_phase["eval_rates_heldin"]) == rows_of(test_phase["eval_rates_heldin_forward"]) == [0, 1]
    del splits["test"]
    val_phase = arrays(**splits)
    assert rows_of(val_phase["train_rates_heldin"]) == [0, 3, 4] and rows_of(val_phase["eval_rates_heldin"]) == [1, 2]


def test_shapes_of_the_submission_arrays():
    one = trials([0])
    recording = Recording("any", 20, {"train": one, "val": one, "test": trials([0], hidden=True)}, np.arange(5))
    assert evaluation_split(recording) == "test"
    shapes = {
        name: array.shape[1:] for name, array in submission_arrays(recording, predicted(recording.splits)).items()
    }
    assert shapes == {
        "train_rates_heldin": (BINS, N_IN), "train_rates_heldout": (BINS, N_OUT),
        "eval_rates_heldin": (BINS, N_IN), "eval_rates_heldout": (BINS, N_OUT),
        "eval_rates_heldin_forward": (FORWARD, N_IN), "eval_rates_heldout_forward": (FORWARD, N_OUT),
    }  # fmt: skip


def test_models_of_other_neurons_are_refused():
    """The same number of neurons, but other ones, as after another draw of the held-out neurons."""
    spec = Tiny(n_train=8, n_val=4, poison={}).spec
    saved = SimpleNamespace(path=Path("a.ckpt"), spec=spec)
    check_same_data(saved, spec, "it")
    other = replace(spec, unit_ids=spec.unit_ids[::-1])
    with pytest.raises(CheckpointError, match=r"a\.ckpt was trained on other neurons of tiny than it has"):
        check_same_data(saved, other, "it")


def test_every_option_makes_a_cache_of_its_own(monkeypatch):
    keys = []
    for module in ("nlb.datamodule", "spike_trials.module"):
        monkeypatch.setattr(
            f"neuro_lightning.data.{module}.cached",
            lambda folder, params, sources, build: keys.append((params, sources)),
        )
    monkeypatch.setattr(NLB, "files", lambda self: (Path("train.nwb"), Path("test.nwb")))
    nlb = ({}, {"phase": "test"}, {"bin_ms": 20}, {"dataset": "mc_maze"})
    for options in nlb:
        NLB(**{"dataset": "mc_rtt", "root": "r", "cache_dir": "c", **options}).load()
    nwb = [{}, {"align": "go"}, {"window_ms": [0, 100]}, {"bin_ms": 20}, {"forward_ms": 100}, {"behavior": "hand"},
           {"lag_ms": 5}, {"conditions": ["a"]}, {"units": [1]}, {"min_spikes": 2}, {"heldout_fraction": 0.1},
           {"val_fraction": 0.1}, {"split": "random"}, {"seed": 1}]  # fmt: skip
    for options in nwb:
        NWB("some.nwb", cache_dir="c", **options).load()
    for options in (*nwb, {"domains": "ts2_*_domain"}):
        Brainset("some.h5", cache_dir="c", root="r", **options).load()
    assert len({str(key) for key in keys}) == len(nlb) + 2 * len(nwb) + 1
    assert keys[1][1] == [Path("train.nwb"), Path("test.nwb")], "the test file counts in phase test"


def test_rates_in_hz_are_not_written(tmp_path):
    splits = {"train": trials([0, 1]), "val": trials([2, 3])}
    recording = Recording("any", 20, splits, np.arange(N_IN + N_OUT))
    in_hz = {split: 50 * rates for split, rates in predicted(splits).items()}
    with pytest.raises(SubmissionError, match=r"eval_rates_heldin: .* look like Hz: divide them by 50"):
        write_rates(tmp_path / "s.h5", "submission", recording, in_hz)
    assert not list(tmp_path.iterdir())
