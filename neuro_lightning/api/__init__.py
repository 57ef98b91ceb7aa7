"""The front door in Python: what the commands do, from a script or a notebook, in a few lines.

    import neuro_lightning as nl

    data = nl.spikes(counts, bin_ms=20, behavior=velocity, heldout_fraction=0.25)
    run = nl.train(model="gru", data=data, overrides=["trainer.max_epochs=50"])
    run.scores                    # bits per spike, R2 of velocity, ...
    run.rates("val")              # (trials, bins, neurons) spikes per bin

A run leaves the same files as ``python train.py``, so that ``python predict.py ckpt=FOLDER`` and ``python train.py
resume=FOLDER`` use it, and :func:`neuro_lightning.load` opens what a command has left.
"""

from neuro_lightning.api.commands import dataset, load, predict, sweep, train
from neuro_lightning.api.comparison import compare
from neuro_lightning.api.data import Data, images, spikes, traces
from neuro_lightning.api.results import FigureFiles, Run, Sweep
from neuro_lightning.api.streaming import stream
from neuro_lightning.realtime.stream import Bin, Stream

__all__ = [
    "Bin", "Data", "FigureFiles", "Run", "Stream", "Sweep", "compare", "dataset", "images", "load", "predict", "spikes",
    "stream", "sweep", "traces", "train",
]  # fmt: skip
