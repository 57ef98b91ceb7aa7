"""What the tests of ensembles share: a small sweep, its members, and how they are averaged."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT, here
from tiny import Tiny

from neuro_lightning.ensemble.combine import EnsembleSettings, combine
from neuro_lightning.models.inference import predict_split
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.runs.predict import predict

TRUSTED = "trusted=[tiny,tiny_traces,pictures]"
READOUT = "net.readout.linear.bias"


def make_sweep(folder: Path) -> Path:
    """A sweep's folder: three jobs that finished, one that failed, one that was killed.

    The three err in how much each neuron fires, so that each is the best for some and a mixture is better still.
    """
    here(folder / "0_tiny_gru", "trainer.max_epochs=2")
    for job in range(1, 5):
        shutil.copytree(folder / "0_tiny_gru", folder / f"{job}_tiny_gru")
    scatter = np.random.default_rng(0).normal(0, 0.4, (3, 10))
    for job, offset in enumerate(torch.from_numpy(scatter - scatter.mean(0)).float()):
        path = folder / f"{job}_tiny_gru" / "checkpoints" / "best.ckpt"
        changed(path, path, lambda content, offset=offset: content["state_dict"][READOUT].add_(offset))
    record = json.loads((folder / "3_tiny_gru" / "run.json").read_text())
    failed = record | {"status": "failed", "error": "RuntimeError: out of memory"}
    (folder / "3_tiny_gru" / "run.json").write_text(json.dumps(failed))
    (folder / "4_tiny_gru" / "run.json").write_text('{"status": "running"}')
    (folder / "multirun.yaml").touch()
    return folder


def members_of(sweep: Path) -> list[Path]:
    return [sweep / f"{i}_tiny_gru" / "checkpoints" / "best.ckpt" for i in range(3)]


def data_of(**poison: float) -> Tiny:
    return Tiny(n_train=37, n_val=11, poison=poison, eval_batch_size=4)


def combined(members, data=None, method="mean", **options):
    return combine(members, data or data_of(), ["train", "val", "test"], "cpu", EnsembleSettings(method, **options),
                   trusted=["tiny"])  # fmt: skip


def alone(path: Path) -> dict[str, np.ndarray]:
    net, data = load_checkpoint(path, trusted=["tiny"]).model.net, data_of()
    return {split: predict_split(net, data, split)["rates"] for split in ("train", "val", "test")}


def equal_rates(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[split], b[split]) for split in a)


def changed(path: Path, to: Path, change) -> Path:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, to)
    return to


def written(*overrides: str) -> Path:
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("predict", overrides=[TRUSTED, *overrides])
    return predict(cfg)
