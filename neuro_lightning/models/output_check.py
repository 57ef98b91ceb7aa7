"""Checks what a network returns, which may be the user's own."""

from __future__ import annotations

from torch import nn

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.errors import ConfigError


def check_shape(net: nn.Module, output: Output, batch: Batch, spec: DataSpec) -> None:
    """Check that rates are shaped like the targets.

    Args:
        net: the network.
        output: of the network.
        batch: what it was shown.
        spec: the description of the data.

    Raises:
        ConfigError: there are no rates, or of another shape.
    """
    name = next((name for name in ("rates", "log_rates") if name in output), None)
    if name is None:
        raise ConfigError(f"{type(net).__name__} must return log_rates or rates, not {', '.join(output)}")
    found, wanted = tuple(output[name].shape), tuple(batch["targets"].shape)
    if found != wanted:
        spec = spec.of_batch(batch)
        axes = f"{spec.n_in} held-in + {spec.n_out} held-out neurons"
        axes = f"(trials, {spec.n_bins} observed + {spec.n_forward} forward bins, {axes})"
        raise ConfigError(
            f"{type(net).__name__} returns {name} of shape {found} where {spec.dataset} needs {wanted}: "
            + (f"(images, {spec.n_out} neurons)" if spec.kind == "images" else axes)
        )
