"""``metrics.csv``: one row for each step, also after a resume."""

import os

import numpy as np
import pytorch_lightning as pl
import torch
from wandb_files import artifacts, build, history, no_account, read_wandb, run_record, summary  # noqa: F401

from neuro_lightning.artifacts.metrics_csv import read_metrics
from neuro_lightning.loggers.building import (
    MetricsCSV,
)


def test_metrics_csv_has_one_row_for_each_step(tmp_path):
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"train/loss": 0.5, "epoch": 0}, step=4)
    logger.log_metrics({"val/co_bps": torch.tensor(0.25), "epoch": 0}, step=4)
    logger.log_metrics({"epoch": 1, "train/loss": 1 / 3}, step=9)
    logger.log_metrics({"val/co_bps": float("nan")}, step=9)
    assert (tmp_path / "metrics.csv").read_text() == (
        "step,epoch,train/loss,val/co_bps\n4,0,0.5,0.25\n9,1,0.3333333333333333,nan\n"
    )
    columns = read_metrics(tmp_path / "metrics.csv")
    np.testing.assert_array_equal(columns["step"], [4, 9])
    np.testing.assert_array_equal(columns["val/co_bps"], [0.25, np.nan])
    assert os.listdir(tmp_path) == ["metrics.csv"]


def test_a_resumed_run_appends_without_the_steps_after_its_checkpoint(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def log(logger, steps):
        for step in steps:
            logger.log_metrics({"epoch": step // 2, "train/loss": 1 / (step + 1)}, step=step)
            if step % 2:
                logger.log_metrics({"epoch": step // 2, "val/co_bps": step / 10}, step=step)

    log(MetricsCSV(whole), range(10))
    log(MetricsCSV(parts), range(7))
    with open(parts / "metrics.csv", "a") as file:
        file.write("7,3,0.1")  # the process was killed while it wrote
    log(MetricsCSV(parts, resumed_step=4), range(4, 10))
    assert (parts / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()

    MetricsCSV(parts)  # a new run in the same folder starts a new file
    assert (parts / "metrics.csv").read_text() == "step,epoch\n"


def test_a_resumed_run_completes_the_last_row(tmp_path):
    first = MetricsCSV(tmp_path)
    first.log_metrics({"val/co_bps": 0.1, "epoch": 0}, step=3)
    second = MetricsCSV(tmp_path, resumed_step=4)
    second.log_metrics({"train/loss": 2.0, "epoch": 0}, step=3)  # logged after the checkpoint was saved
    second.log_metrics({"train/loss": 1.0, "epoch": 1}, step=7)
    text = (tmp_path / "metrics.csv").read_text()
    assert text == "step,epoch,val/co_bps,train/loss\n3,0,0.1,2.0\n7,1,,1.0\n"


class Toy(pl.LightningModule):
    """A regression that logs as our models do."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        loss = (self.layer(batch[0]) ** 2).mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        self.log("val/loss", (self.layer(batch[0]) ** 2).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder, epochs, resume=None):
    step = None if resume is None else torch.load(resume, weights_only=True)["global_step"]
    logger = MetricsCSV(folder, resumed_step=step)
    checkpoints = pl.callbacks.ModelCheckpoint(
        dirpath=folder, filename="{epoch}", save_top_k=-1, auto_insert_metric_name=False
    )
    pl.seed_everything(0)
    trainer = pl.Trainer(
        max_epochs=epochs,
        logger=[logger],
        callbacks=[checkpoints],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(6, 1)), batch_size=2)
    trainer.fit(Toy(), data, data, ckpt_path=resume, weights_only=True)
    return (folder / "metrics.csv").read_text()


def test_lightning_writes_the_same_file_with_and_without_a_stop(tmp_path):
    whole = fit(tmp_path / "whole", 4)
    assert [line.split(",")[0] for line in whole.splitlines()] == ["step", "2", "5", "8", "11"]
    fit(tmp_path / "parts", 3)  # one epoch more than the checkpoint below knows
    assert fit(tmp_path / "parts", 4, resume=tmp_path / "parts" / "1.ckpt") == whole
