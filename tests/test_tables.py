import io
import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from neuro_lightning.artifacts.output import JobOutput
from neuro_lightning.callbacks.progress import FitProgress, clock, total_steps
from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.describe import describe
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.display.table import (
    not_beaten,
    percent,
    print_header,
    print_results,
    print_table,
    result_rows,
    shape_of,
)


def recording(simulated=True):
    trials = Trials(heldin=np.zeros((5, 10, 3)), heldout=np.zeros((5, 10, 2)))
    return Recording("lorenz", 5, {"train": trials, "val": trials}, np.arange(5), simulated=simulated)


SCORES = {
    "model": {"val": {"vel_r2": -0.2, "co_bps": 0.3, "loss": 1.0, "oracle_co_bps": 0.4, "oracle_share": 0.75},
              "test": {"co_bps": 0.2, "vel_r2": float("nan")}},
    "smoothing": {"val": {"co_bps": 0.1}, "test": {"co_bps": 0.1}},
    "oracle": {"val": {"co_bps": 0.4}, "test": {"co_bps": 0.5}},
}  # fmt: skip


def test_rows_of_the_table_of_scores():
    columns, rows = result_rows(SCORES)
    assert columns == ["split", "", "co-bps", "vel R2", "of oracle"]
    assert rows == [
        ["val", "model", "0.3000", "-0.2000", "75.0 %"],
        ["val", "smoothing baseline", "0.1000", "-", "25.0 %"],
        ["val", "true rates (oracle)", "0.4000", "-", "100.0 %"],
        ["test", "model", "0.2000", "-", "40.0 %"],
        ["test", "smoothing baseline", "0.1000", "-", "20.0 %"],
        ["test", "true rates (oracle)", "0.5000", "-", "100.0 %"],
    ]


def test_without_an_oracle_there_is_no_share():
    columns, rows = result_rows({"model": {"val": {"bps": 0.3, "mine": 1.0}}, "smoothing": None, "oracle": None})
    assert columns == ["split", "", "bits/spike", "mine"] and rows == [["val", "model", "0.3000", "1.0000"]]
    assert result_rows({"model": {}})[1] == []
    assert [percent(0.1, None), percent(0.1, -0.1), percent(0.1, 0.0), percent(float("nan"), 1.0)] == ["-"] * 4


@pytest.mark.parametrize(("simulated", "kind"), [(True, "simulated data"), (False, "recorded data")])
def test_title_of_the_scores_says_whether_data_are_simulated(tmp_path, monkeypatch, capsys, simulated, kind):
    monkeypatch.chdir(tmp_path)
    print_results(SCORES, recording(simulated), tmp_path / "a" / "best.ckpt", "/elsewhere/a")
    lines = capsys.readouterr().out.splitlines()
    assert f"Scores on lorenz ({kind})" in lines
    assert "checkpoint  a/best.ckpt" in lines and "folder      /elsewhere/a" in lines
    assert "val    smoothing baseline   0.1000        -     25.0 %" in lines


def test_columns_are_aligned(capsys):
    print_table("title", ["name", "score"], [["a", "1.0000"], ["long name", "-0.5000"]], strong={"a"})
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["", "title", "name         score", "-" * 18, "a           1.0000", "long name  -0.5000"]


def test_wide_tables_are_not_cut(capsys):
    """Columns without room follow below, beside the rows' names; a longer cell takes several lines."""
    numbers = [f"{i / 10:.1f}" for i in range(20)]
    print_table(
        "t" * 200, ["who", *(f"score {i}" for i in range(20))], [["the model", *numbers], ["x" * 100, *numbers]]
    )
    _, title, *lines = capsys.readouterr().out.splitlines()
    assert title == "t" * 200 and max(map(len, lines)) <= 80, "a path in a title can be copied"
    assert sum(line.count("x") for line in lines) == 100 * (blocks := lines.count("") + 1) and blocks > 1
    columns, row = ["a" * 20, "b" * 20, "c" * 20, "d" * 17], ["name", "0.1", "0.2", "0.3"]
    print_table("tight", columns, [row])
    assert capsys.readouterr().out.splitlines()[2] == " ".join(columns), "one space between columns where that helps"
    found = [word for line in lines if line.startswith("the model") for word in line.split()[2:]]
    assert found == numbers and sum(line.startswith("who") for line in lines) == blocks


def test_terminal_table_has_a_line_and_bold_rows(tmp_path):
    code = (
        "from types import SimpleNamespace; from neuro_lightning.display.table import print_results\n"
        f"scores = {json.dumps(SCORES).replace('NaN', 'None')}\n"
        "print_results(scores, SimpleNamespace(name='lorenz', simulated=True), None, '.')"
    )
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm-256color", "NO_COLOR": ""}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    master, slave = pty.openpty()
    done = subprocess.Popen([sys.executable, "-c", code], stdout=slave, stderr=subprocess.PIPE, env=environment)
    os.close(slave)
    written = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux: the other end was closed
            break
        if not part:
            break
        written += part
    assert done.wait() == 0, done.stderr.read().decode()
    out = written.decode()
    assert "Scores on lorenz (simulated data)" in out and "\x1b[1m" in out and "─" in out and "none was kept" in out


def test_header(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = SimpleNamespace(size=2020, spec=describe(recording()))
    data = SimpleNamespace(recording=recording(), spec=describe(recording()), train_on_inputs=())
    data.by_session = lambda: {"": data}
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")), world_size=2)
    print_header(data, model, trainer, tmp_path / "outputs")
    assert capsys.readouterr().out.splitlines() == [
        "model   SimpleNamespace with 2,020 parameters",
        "data    lorenz (simulated data): 3 + 2 neurons, 10 bins of 5 ms",
        "        trials: 5 train, 5 val",
        "device  cpu x 2",
        "folder  outputs",
    ]


def test_header_of_several_sessions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = SimpleNamespace(size=2020, spec=None)
    part = SimpleNamespace(recording=recording(), spec=describe(recording()), train_on_inputs=())
    data = SimpleNamespace(recording=recording(), by_session=lambda: {"mon": part, "tuesday": part})
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")), world_size=1)
    print_header(data, model, trainer, tmp_path)
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "data    2 sessions (simulated data):",
        "        mon      3 + 2 neurons, 10 bins of 5 ms; trials: 5 train, 5 val",
        "        tuesday  3 + 2 neurons, 10 bins of 5 ms; trials: 5 train, 5 val",
    ]


def test_rows_of_sessions_and_their_mean():
    scores = {"model": {"val": {"co_bps": 0.3, "co_bps/a": 0.2, "co_bps/b": 0.4}}}
    columns, rows = result_rows({**scores, "smoothing": {"val": {"co_bps": 0.1, "co_bps/a": 0.1, "co_bps/b": 0.1}}})
    assert columns == ["split", "session", "", "co-bps"]
    assert [row[1:] for row in rows[::2]] == [
        ["a", "model", "0.2000"],
        ["b", "model", "0.4000"],
        ["mean", "model", "0.3000"],
    ]
    many = {f"co_bps/{i:02}": 0.1 for i in range(9)}
    _, rows = result_rows({"model": {"val": {"co_bps": 0.1, **many}}, "smoothing": {"val": {"co_bps": 0.1, **many}}})
    assert len(rows) == 9 + 2  # baselines beside the mean only


def test_shapes_of_every_kind():
    images = DataSpec("v1", kind="images", n_out=7, image_shape=(3, 8, 9))
    assert shape_of(images) == "7 neurons, images of 8 x 9 pixels x 3 channels"
    assert shape_of(replace(images, image_shape=(1, 8, 9))) == "7 neurons, images of 8 x 9 pixels"
    traces = DataSpec("v1", kind="traces", n_in=7, n_bins=20, bin_ms=400)
    assert shape_of(traces) == "7 neurons, 20 bins of 400 ms; sequences"


def test_errors_have_no_share_of_the_oracle():
    columns, rows = result_rows({"model": {"val": {"rmse": 0.3}}, "oracle": {"val": {"rmse": 0.2}}})
    assert columns == ["split", "", "RMSE"] and len(rows[0]) == 3


class Toy(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        loss = self.layer(batch[0]).square().mean()
        self.log("train/loss", loss.detach() * 0 + 0.5, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        self.log("val/co_bps", torch.tensor([0.1, 0.4, 0.3, 0.2][self.current_epoch % 4]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(callback, **settings):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(6, 1)), batch_size=2)
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[callback], enable_progress_bar=False,
                         enable_checkpointing=False, enable_model_summary=False, **settings)  # fmt: skip
    trainer.fit(Toy(), data, data)
    return trainer


def test_progress_without_a_terminal_is_a_few_lines(capsys):
    trainer = fit(FitProgress(lines=2), max_epochs=4)
    first, last = [line for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert total_steps(trainer) == 12
    assert first.startswith(" 50 %  train/loss 0.5000  val/co_bps 0.4000  best 0.4000  0:0") and "left" in first
    assert last.startswith("100 %  train/loss 0.5000  val/co_bps 0.2000  best 0.4000  0:0") and "left" not in last


def test_a_long_silence_between_validations_is_broken(capsys, monkeypatch):
    """The time left is told after five seconds, and again when twice the time between two lines has passed."""
    now = [0.0]
    monkeypatch.setattr("neuro_lightning.callbacks.progress.time.perf_counter", lambda: now[0])

    class Slow(FitProgress):
        def on_train_batch_end(self, *arguments):
            now[0] += 4.0
            super().on_train_batch_end(*arguments)

    fit(Slow(), max_epochs=10, check_val_every_n_epoch=10)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  7 %  0:08, 1:52 left" and lines[-1].startswith("100 %  train/loss")
    assert [line.split()[0] for line in lines] == ["7", "33", "60", "87", "100"], "every 8 steps of 4 s: above 30 s"


def test_a_line_of_progress_is_short_enough(capsys, monkeypatch):
    monkeypatch.setattr(FitProgress, "scores", lambda *_: f"train/loss 0.5000  val/{'x' * 40} 0.4000  best 0.4000")
    fit(FitProgress(lines=1), max_epochs=1)
    (line,) = capsys.readouterr().out.splitlines()
    assert len(line) <= 80 and f"val/{'x' * 40} 0.4000  best" in line and "loss" not in line


def test_one_of_several_networks_tells_in_a_pipe_how_far_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(FitProgress, "scores", lambda *_: f"train/loss 0.5000  val/{'x' * 32} 0.4000  best 0.4000")
    pipe = io.StringIO()
    for number, repeats in enumerate([True, False]):
        output = JobOutput(tmp_path / f"{number}.log", pipe, f"network {number}", represents_others=repeats)
        monkeypatch.setattr(sys, "stdout", output)
        fit(FitProgress(lines=1), max_epochs=1)
        output.close()
    (line,) = pipe.getvalue().splitlines()
    assert line.startswith("network 0  100 %  val/xx") and line.endswith("0:00") and len(line) <= 80
    assert (
        line.removeprefix("network 0  ") + "\n" == (tmp_path / "0.log").read_text() == (tmp_path / "1.log").read_text()
    )


def test_progress_in_a_terminal_is_one_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    bars = []

    class Spy(FitProgress):
        def on_train_batch_end(self, *arguments):
            super().on_train_batch_end(*arguments)
            bars.append((self._bar, self._bar.tasks[0].completed, self._bar.tasks[0].fields["scores"]))

    callback = Spy(mode="min")
    fit(callback, max_steps=10)
    assert [completed for _, completed, _ in bars] == list(range(1, 11)) and bars[0][0].tasks[0].total == 10
    assert len({id(bar) for bar, _, _ in bars}) == 1 and bars[-1][0].finished
    assert bars[-1][2] == "train/loss 0.5000  val/co_bps 0.3000  best 0.1000"
    assert callback._bar is None and not bars[0][0].live.is_started


def test_jobs_side_by_side_show_nothing(capsys, monkeypatch):
    import multiprocessing

    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(name="LokyProcess-1"))
    fit(FitProgress(), max_epochs=2)
    assert "%" not in capsys.readouterr().out


def test_clock():
    assert [clock(5), clock(65.4), clock(7200)] == ["0:05", "1:05", "2:00:00"]


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (0.3, None),
        (-0.0033, "Nothing was learnt: val/co_bps -0.0033 is not better than the 0.0000 of each neuron's mean rate."),
        (0.05, "The model does not beat the smoothing baseline: val/co_bps 0.0500 against 0.1000."),
        (0.1, "The model does not beat the smoothing baseline: val/co_bps 0.1000 against 0.1000."),
    ],
)
def test_baseline_that_the_model_does_not_beat_is_named(model, line):
    others = {"smoothing": {"val": {"co_bps": 0.1}}, "mean rate": {"val": {"co_bps": 0.0}}, "oracle": SCORES["oracle"]}
    assert not_beaten({"model": {"val": {"co_bps": model}}, **others}, "val/co_bps", "max") == line


def test_best_trivial_baseline_is_the_one_named():
    scores = {"smoothing": -0.0048, "mean rate": 0.0, "model": -0.0033}
    scores = {who: {"val": {"co_bps": value}} for who, value in scores.items()}
    assert "Nothing was learnt" in not_beaten(scores, "val/co_bps", "max")
    scores = {"mean": 1.47, "zero": 2.1, "rln": 1.2, "model": 1.48}
    scores = {who: {"val": {"rmse": value}} for who, value in scores.items()}
    assert "1.4800 is not better than the 1.4700 of mean baseline" in not_beaten(scores, "val/rmse", "min")
    assert not_beaten({"model": {"val": {"rmse": 1.0}}, "oracle": None}, "val/rmse", "min") is None


def test_mean_rate_is_a_row_of_the_scores():
    scores = {"model": {"val": {"co_bps": 0.3}}, "mean rate": {"val": {"co_bps": 0.0}}, "oracle": SCORES["oracle"]}
    assert ["val", "each neuron's mean rate", "0.0000", "-"] in result_rows(scores)[1]


def test_training_that_was_best_at_its_end_is_noted():
    from neuro_lightning.runs.outcome import undertrained_note

    def trainer(end, peak, steps=200):
        callback = SimpleNamespace(best_model_score=peak)
        found = {"val/co_bps": end}
        return SimpleNamespace(checkpoint_callback=callback, callback_metrics=found, global_step=steps)

    assert "at the last validation, after 200 steps" in undertrained_note("val/co_bps", trainer(0.3, 0.3))
    assert undertrained_note("val/co_bps", trainer(0.2, 0.3)) is None
    assert undertrained_note("val/co_bps", trainer(0.3, 0.3, steps=0)) is None, "fitted in closed form"
    assert undertrained_note("val/co_bps", trainer(None, None)) is None
