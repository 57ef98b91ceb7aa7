"""Names of classes in configs that earlier versions wrote: checkpoints keep opening when a module moves."""

from __future__ import annotations

from typing import Any

DATA = "neuro_lightning.data"
MOVED = {
    f"{DATA}.datamodules.NLB": f"{DATA}.nlb.datamodule.NLB",
    f"{DATA}.datamodules.NWB": f"{DATA}.nwb.datamodule.NWB",
    f"{DATA}.datamodules.LFADSH5": f"{DATA}.lfads_h5.datamodule.LFADSH5",
    f"{DATA}.datamodules.Lorenz": f"{DATA}.synthetic.datamodule.Lorenz",
    f"{DATA}.datamodules.ChaoticRNN": f"{DATA}.synthetic.datamodule.ChaoticRNN",
    f"{DATA}.simulate.trials.Sizes": f"{DATA}.synthetic.simulate.Sizes",
    f"{DATA}.antolik.datamodules.AntolikV1": f"{DATA}.antolik.datamodule.AntolikV1",
    f"{DATA}.stringer.datamodules.Spontaneous": f"{DATA}.stringer.datamodule.Spontaneous",
    f"{DATA}.stringer_stimuli.datamodules.NaturalImages": f"{DATA}.stringer_stimuli.datamodule.NaturalImages",
    f"{DATA}.stringer_stimuli.datamodules.Orientations": f"{DATA}.stringer_stimuli.datamodule.Orientations",
    f"{DATA}.uwndc19.datamodules.UWNDC19": f"{DATA}.uwndc19.datamodule.UWNDC19",
}
"""Old path of a class -> its path today."""


def update_names(config: Any) -> Any:
    """The same config, with today's path in each ``_target_``."""
    if isinstance(config, dict):
        return {
            key: MOVED.get(value, value) if key == "_target_" and isinstance(value, str) else update_names(value)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(update_names(value) for value in config)
    return config
