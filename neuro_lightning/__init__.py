"""Experiments on neural population data: datasets x models x trainers, composed by Hydra, run by Lightning.

From Python, with everything that the commands do:

    import neuro_lightning as nl

    data = nl.spikes(counts, bin_ms=20, behavior=velocity)
    run = nl.train(model="gru", data=data)
    run.scores, run.rates("val"), run.latents("val"), run.predict(new_counts), run.figures()
"""

from typing import Any

from neuro_lightning.version import VERSION as __version__

_API = (
    "Data", "Run", "Sweep", "compare", "dataset", "images", "load", "predict", "report", "spikes", "stream", "sweep",
    "traces", "train",
)  # fmt: skip
__all__ = [*_API, "__version__"]


def __getattr__(name: str) -> Any:
    """The front door's functions, imported when one of them is asked for: importing the package stays quick."""
    if name not in _API:
        raise AttributeError(f"module 'neuro_lightning' has no attribute {name!r}")
    if name == "report":
        from neuro_lightning.pages.build import report

        return report
    from neuro_lightning import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
