"""IBL BrainWideBench, TS2: runs, submissions and scores, beside the benchmark's own scorer."""

import os

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT, command_here, here
from test_bwb import SIZES

from neuro_lightning.contracts import evaluation_mode
from neuro_lightning.data.bwb.datamodule import BrainWideBench
from neuro_lightning.data.bwb.reader import load_session, open_session
from neuro_lightning.data.bwb.twin import write_twin
from neuro_lightning.data.bwb.windows import window_starts
from neuro_lightning.data.describe import describe
from neuro_lightning.errors import SubmissionError
from neuro_lightning.settings.config import check_config
from neuro_lightning.settings.settings import TrainSettings
from neuro_lightning.submission import bwb as submission


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_twin(tmp_path_factory.mktemp("bwb"), seed=3, n_sessions=2, **SIZES)


def run_words(files, *words):
    return [
        "model=ndt", "masking@model.masking=neurons", "model.width=8", "model.layers=1", "data=bwb", *words,
        "trainer=cpu", "trainer.max_epochs=2", "logger=csv", "callbacks=minimal", "seed=43",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "one"
    words = run_words(files, f"data.path={files[0]}", f"paths.cache={folder.parent}/cache")
    return here(folder, base=words).folder


def test_a_submission_is_scored_alike_by_the_benchmarks_own_scorer(run, files):
    scorer = pytest.importorskip("ibl_bwb_eval.scoring.ts2")
    done = command_here(run.parent, f"ckpt={run}", "ground_truth=true", "label=mine", program="predict")
    assert done.returncode == 0, done.stderr
    found = scorer.score_dir(run / "predictions" / "mine", run / "ground_truth" / "ts2")
    ((label, task, session, seed), scores) = next(iter(found.items()))
    assert (label, task, session, seed) == ("mine", "ts2-co_smoothing", files[0].stem, 43) and len(found) == 1
    shown = dict(
        zip(*[line.split() for line in done.stdout.splitlines() if line.startswith(("split", "test"))], strict=True)
    )
    assert float(shown["D2"]) == pytest.approx(scores["poisson_d2"], abs=6e-5)
    bench = open_session(files[0])
    data = BrainWideBench(cache_dir=str(run.parent / "cache"), root=str(run.parent), path=str(files[0]))
    from neuro_lightning.models.loading import load_checkpoint

    net = load_checkpoint(run / "checkpoints" / "best.ckpt").model.net
    options = {"label": "again", "seed": 43, "batch_size": 37, "ground_truth": run / "truth"}
    written = submission.write_session([net], bench, "co_smoothing", data.spec, run / "again", **options)
    theirs = scorer.score_file(
        written.path, run / "truth" / "ts2-co_smoothing" / files[0].stem / "ground_truth.safetensors"
    )
    assert written.scores["poisson_d2"] == pytest.approx(theirs["poisson_d2"], abs=1e-6)
    assert written.scores["co_bps"] == pytest.approx(theirs["bps"], abs=1e-6)
    assert abs(written.half_cost) < 1e-3 * abs(written.scores["poisson_d2"]) + 1e-5
    inside = bench.intervals["test"]
    starts = np.sort(np.concatenate([window_starts(a, b, 0.02, 1.0) for a, b in inside]))
    from safetensors.torch import load_file

    stored = load_file(str(written.path))
    assert np.sort(stored["window_timestamps"].numpy()).tolist() == starts.tolist() and written.n_windows == len(starts)
    assert stored["predictions"].dtype == torch.float16 and stored["predictions"].shape == (len(starts), 50, 2)
    # a window of the file is what the network says of that window alone
    number = {round(time, 6): k for k, time in enumerate(stored["window_timestamps"].tolist())}
    recording, times = data.recording, dict(zip(*data.recording.info["times"], strict=True))
    batch = data.dataset("test", evaluate=True)[[3]]
    k = number[round(times[int(recording.splits["test"].row[3])], 6)]
    with evaluation_mode(net), torch.no_grad():
        alone = net(batch["inputs"].float(), observed=batch["observed"])["log_rates"]
    hidden = torch.from_numpy(bench.withheld["test"])
    torch.testing.assert_close(stored["predictions"][k].float(), alone[0][:, hidden], atol=5e-3, rtol=2e-3)


def test_a_damaged_submission_is_refused(run, files, tmp_path):
    pytest.importorskip("ibl_bwb_eval")
    from safetensors.torch import save_file

    ids = np.array(["a", "bc"])
    package = submission.import_benchmark()
    good = {"predictions": torch.zeros(3, 50, 2).half(), "window_timestamps": torch.arange(3.0, dtype=torch.float64),
            "unit_ids": package.entity_ids.encode_entity_ids(ids)}  # fmt: skip
    path = tmp_path / "seed_43.safetensors"
    save_file(good, path)
    submission.check_file(path, (3, 50, 2), good["window_timestamps"], ids)
    for name, value, message in (
        ("predictions", torch.full((3, 50, 2), torch.nan).half(), "not finite halves"),
        ("predictions", torch.zeros(3, 50, 1).half(), "not finite halves"),
        ("window_timestamps", good["window_timestamps"] + 1e-9, "window_timestamps"),
        ("unit_ids", package.entity_ids.encode_entity_ids(ids[::-1]), "unit_ids"),
    ):
        save_file(good | {name: value}, path)
        with pytest.raises(SubmissionError, match=message):
            submission.check_file(path, (3, 50, 2), good["window_timestamps"], ids)


@pytest.mark.parametrize(
    ("seed", "said"), [(43, None), (42, "seed for searches"), (7, "none of the benchmark's seeds")]
)
def test_seeds_outside_of_the_rule_are_named(seed, said):
    line = submission.check_seed(seed)
    assert line is None if said is None else said in line


def test_several_sessions_train_one_core_and_write_a_file_each(files, tmp_path):
    scorer = pytest.importorskip("ibl_bwb_eval.scoring.ts2")
    words = [
        *run_words(files, f"data.path=[{files[0]},{files[1]}]", "data.task=forecasting"),
        f"paths.cache={tmp_path}/cache",
    ]
    words.remove("masking@model.masking=neurons")
    folder = here(tmp_path / "two", base=words).folder
    done = command_here(tmp_path, f"ckpt={folder}", "ground_truth=true", program="predict")
    assert done.returncode == 0, done.stderr
    found = scorer.score_dir(folder / "predictions", folder / "ground_truth" / "ts2")
    assert {key[2] for key in found} == {file.stem for file in files} and {key[1] for key in found} == {
        "ts2-forecasting"
    }
    mean = np.mean([scores["poisson_d2"] for scores in found.values()])
    line = next(line for line in done.stdout.splitlines() if line.startswith("test   mean"))
    assert float(line.split()[2]) == pytest.approx(mean, abs=6e-5)


def test_the_sweep_has_all_sessions_and_seeds():
    rules = pytest.importorskip("ibl_bwb_eval.protocol")
    with initialize_config_dir(str(ROOT / "conf")):
        params = compose("train", ["sweep=bwb"], return_hydra_config=True).hydra.sweeper.params
        sessions, seeds = (params[key].replace(" ", "").split(",") for key in ("data.session", "seed"))
        assert sorted(sessions) == sorted(rules.EVAL_RECORDING_IDS.read_text().split()) and len(set(sessions)) == 29
        assert [int(seed) for seed in seeds] == rules.EVAL_SEEDS
        for recipe, task in (("bwb_co_smoothing", "co_smoothing"), ("bwb_forecasting", "forecasting")):
            cfg = compose("train", ["sweep=bwb", f"experiment={recipe}", f"data.session={sessions[3]}", "seed=44"])
            check_config(cfg, known=TrainSettings.config_keys())
            assert (cfg.data.task, cfg.monitor, cfg.seed) == (task, "val/poisson_d2", 44)


def test_a_submission_is_replaced_on_request_alone_and_other_settings_are_refused(run):
    pytest.importorskip("ibl_bwb_eval")
    words = [f"ckpt={run}", "label=twice"]
    assert command_here(run.parent, *words, program="predict").returncode == 0
    (file,) = (run / "predictions" / "twice").rglob("*.safetensors")
    before = file.stat().st_mtime_ns
    again = command_here(run.parent, *words, program="predict")
    assert again.returncode == 1 and "is there already: give overwrite=true" in again.stderr
    assert file.stat().st_mtime_ns == before and os.listdir(file.parent) == [file.name], "no part of a file is left"
    assert command_here(run.parent, *words, "overwrite=true", "evaluate=false", program="predict").returncode == 0
    assert file.stat().st_mtime_ns > before
    for word in ("ensemble=greedy", "space=log_rate", "log=true"):
        refused = command_here(run.parent, *words, word, program="predict")
        assert (
            refused.returncode == 1 and f"{word.split('=')[0]}=" in refused.stderr and "leave it out" in refused.stderr
        )


def test_several_checkpoints_predict_their_mean_rate(run, files):
    bench = open_session(files[0])
    spec = describe(load_session(files[0]))

    class Rate(torch.nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(rate))

        def forward(self, inputs, observed):
            return {"log_rates": self.rate.log().expand(inputs.shape)}

    pytest.importorskip("ibl_bwb_eval")
    from safetensors.torch import load_file

    written = submission.write_session(
        [Rate(0.1), Rate(0.3)], bench, "co_smoothing", spec, run / "mean", label="x", seed=43
    )  # fmt: skip
    predictions = load_file(str(written.path))["predictions"].float().exp()
    torch.testing.assert_close(predictions, torch.full_like(predictions, 0.2), atol=2e-4, rtol=1e-3)
