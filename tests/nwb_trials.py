"""NWB files as recordings, without a data module."""

from functools import partial

from neuro_lightning.data.formats.nwb import open_nwb
from neuro_lightning.data.spike_trials import trials


def load_nwb_trials(path, **options):
    return trials.load_trials(partial(open_nwb, path), name="nwb", **options)


def apply_split(path, info):
    return trials.apply_split(partial(open_nwb, path), info, name="nwb")
