"""A core that all neurons share and a readout for each of them: today's standard model of visual cortex."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import DataSpec, Output
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import needs_positive
from neuro_lightning.models.base import PopulationModule

LOWEST = 1e-3  # of the mean responses that a positive output starts at


class CoreReadoutNet(nn.Module):
    """Images -> core -> feature map -> readout -> output nonlinearity -> expected responses.

    Args:
        core: (B, C, H, W) images -> (B, C', H', W') features.
        readout: features -> (B, N), with a ``bias`` (N,).
        output: ``elu`` (``ELU(x) + 1``, never negative), ``softplus`` or ``identity``.
        mean_rates: (N,) mean responses; the readout's bias starts there.

    Raises:
        ValueError: another ``output``.
    """

    def __init__(self, core: nn.Module, readout: nn.Module, *, output: str, mean_rates: Sequence[float] = ()) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise ValueError(f"model.output={output} is none of {', '.join(OUTPUTS)}")
        self.core, self.readout, self.output = core, readout, output
        if len(mean_rates):
            with torch.no_grad():  # begin at the mean rates, which the first steps would otherwise be spent on
                readout.bias.copy_(OUTPUTS[output][1](torch.tensor(mean_rates)))

    def forward(self, images: Tensor) -> Output:
        """(B, C, H, W) images -> ``rates`` (B, N) and, in training, the penalties of core and readout."""
        rates = OUTPUTS[self.output][0](self.readout(self.core(images)))
        if not self.training:
            return {"rates": rates}
        terms = {f"core_{name}": term for name, term in self.core.penalties().items()}
        return {"rates": rates, "losses": terms | {f"readout_{k}": v for k, v in self.readout.penalties().items()}}

    def filters(self) -> Tensor:
        """(K, C, k, k) kernels of the first stage, for figures."""
        return self.core.filters()


# each nonlinearity with its inverse
OUTPUTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "elu": (
        lambda x: F.elu(x) + 1,
        lambda y: torch.where(y >= 1, y - 1, y.clamp_min(LOWEST).log()),
    ),
    "softplus": (F.softplus, lambda y: y.clamp_min(LOWEST).expm1().log()),
    "identity": (lambda x: x, lambda y: y),
}


class CoreReadout(PopulationModule):
    """Any core x any readout (Lurz et al. 2021, Sensorium 2022, V1T): convolutions or attention, and how it is read.

    Args:
        spec: the description of the data.
        core: called with the image's shape (C, H, W); has ``out_shape``, ``penalties()`` and ``filters()``.
        readout: called with the core's ``out_shape`` and the number of neurons; has ``bias`` and ``penalties()``.
        output: ``elu`` or ``softplus`` for responses that are never negative, ``identity`` for z-scored ones; ``auto``
            chooses between the first and the last.
        loss: as in ``neuro_lightning.losses``.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and the number of steps, or None.

    Raises:
        ConfigError: an output that is never negative for responses that are, or a Poisson loss of one that may be.
    """

    kinds: ClassVar[tuple[str, ...]] = ("images",)

    def __init__(
        self,
        spec: DataSpec,
        *,
        core: Callable[..., nn.Module],
        readout: Callable[..., nn.Module],
        output: str = "auto",
        loss: Callable | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
    ) -> None:
        if output == "auto":
            output = "elu" if spec.nonnegative else "identity"
        if output != "identity" and not spec.nonnegative:
            raise ConfigError(
                f"model.output={output} is never negative, but responses in {spec.dataset} are: "
                "take model.output=auto loss@model.loss=auto"
            )
        if output == "identity" and needs_positive(loss, spec):
            raise ConfigError(
                "model.output=identity may be negative, which a Poisson loss has no meaning for: "
                f"take loss@model.loss=mse{', or model.output=elu' if spec.nonnegative else ''}"
            )
        features = core(spec.image_shape)
        net = CoreReadoutNet(
            features, readout(features.out_shape, spec.n_neurons), output=output, mean_rates=spec.mean_rates
        )
        super().__init__(net, spec, loss=loss, optimizer=optimizer, scheduler=scheduler)
