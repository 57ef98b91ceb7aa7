"""A dataset and a model of one's own, added from outside: one YAML and one file each."""

import json
from pathlib import Path

from runs import command_here

ROOT = Path(__file__).resolve().parents[1]

DATA = '''
import numpy as np

from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording, Trials


class Waves(PopulationDataModule):
    """Neurons that follow one of two sine waves."""

    def __init__(self, *, n_trials: int, **loader):
        super().__init__(**loader)
        self.n_trials = n_trials

    def load(self):
        rng = np.random.default_rng(0)
        phase = rng.uniform(0, 6, (self.n_trials, 1, 1))
        rates = np.exp(np.sin(np.arange(30)[None, :, None] / 5 + phase + np.arange(12) % 2) - 1)
        counts = rng.poisson(rates).astype(np.uint8)
        half = self.n_trials // 2
        splits = {
            "train": Trials.from_counts(counts[:half], n_bins=30, n_in=8),
            "val": Trials.from_counts(counts[half:], n_bins=30, n_in=8),
        }
        return Recording("waves", 10, splits, np.arange(12), simulated=True)
'''

MODEL = """
from torch import nn
from torch.nn import functional as F

from neuro_lightning.models.base import PopulationModule


class LinearNet(nn.Module):  # counts of held-in neurons -> log-rates of all, in observed and forward bins
    def __init__(self, spec, width):
        super().__init__()
        self.n_forward = spec.n_forward
        self.conv = nn.Conv1d(spec.n_in, spec.n_neurons, 2 * width + 1, padding=width)

    def forward(self, inputs):  # (B, T, N_in)
        padded = F.pad(inputs, (0, 0, 0, self.n_forward))
        return {"log_rates": self.conv(padded.transpose(1, 2)).transpose(1, 2)}


class Linear(PopulationModule):
    def __init__(self, spec, *, width: int, optimizer=None):
        super().__init__(LinearNet(spec, width), spec, optimizer=optimizer)
"""


def write(folder: Path) -> None:
    package, conf = folder / "my_lab", folder / "my_conf"
    for sub in (package, conf / "data", conf / "model"):
        sub.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "waves.py").write_text(DATA)
    (package / "linear.py").write_text(MODEL)
    (conf / "data" / "waves.yaml").write_text("defaults: [_loader]\n_target_: my_lab.waves.Waves\nn_trials: 80\n")
    (conf / "model" / "linear.yaml").write_text(
        "defaults:\n  - /optimizer@optimizer: adam\n  - _self_\n_target_: my_lab.linear.Linear\nwidth: 4\n"
    )


def test_the_docs_show_this_model_and_this_dataset():
    for page, code in (("new_model", MODEL), ("new_dataset", DATA)):
        shown = (ROOT / "docs" / "how_to" / f"{page}.md").read_text()
        assert " ".join(code.split()) in " ".join(shown.split())


def test_a_dataset_and_a_model_from_outside(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)  # as PYTHONPATH
    write(tmp_path)
    chosen = [
        "hydra.searchpath=[file://./my_conf]", "data=waves", "model=linear", "logger=csv", "callbacks=minimal",
        "trainer=cpu", "trainer.max_epochs=30", "model.optimizer.lr=0.02", "data.batch_size=8", "hydra.run.dir=out",
    ]  # fmt: skip
    refused = command_here(tmp_path, *chosen)
    assert refused.returncode != 0 and "add trusted=[my_lab]" in refused.stderr, refused.stderr
    trained = command_here(tmp_path, *chosen, "trusted=[my_lab]")
    assert trained.returncode == 0, trained.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["metrics"]["val/co_bps"] > 0.05 and record["data"]["name"] == "waves"
    predicted = command_here(tmp_path, "ckpt=out", "trusted=[my_lab]", "file=rates.h5", program="predict")
    assert predicted.returncode == 0, predicted.stderr
    assert (tmp_path / "rates.h5").is_file()
