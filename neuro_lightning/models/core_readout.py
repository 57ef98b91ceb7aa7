"""A core that all neurons share and a readout for each of them: today's standard model of visual cortex."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec, Output
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.image_model import ImageModel
from neuro_lightning.nn.nonlinearities import NONLINEARITIES, softplus
from neuro_lightning.nn.readouts import GaussianReadout
from neuro_lightning.nn.shifter import Shifter


class CoreReadoutNet(nn.Module):
    """Images -> core -> feature map -> readout -> output nonlinearity -> expected responses.

    Args:
        spec: the description of the data; the readout's bias starts at the mean responses.
        core: called with the image's shape (C, H, W); has ``out_shape``, ``penalties()`` and ``filters()``.
        readout: called with the core's ``out_shape`` and the number of neurons; has ``bias`` and ``penalties()``.
        output: ``elu`` (``ELU(x) + 1``) or ``softplus`` for responses that are never negative, ``identity`` for
            z-scored ones; ``auto`` chooses between the first and the last. Others: ``NONLINEARITIES``.
        shifter: hidden units of a :class:`neuro_lightning.nn.shifter.Shifter`, which moves the positions of a Gaussian
            readout with the pupil; 0 for none.
        softplus_beta: of a softplus output, see :func:`neuro_lightning.nn.nonlinearities.softplus`.

    Raises:
        ConfigError: another ``output``, a ``softplus_beta`` that is not positive or has no softplus, or a readout from
            the cortex where nothing says where the neurons lie.
    """

    output_key = "model.output"

    def __init__(
        self,
        spec: DataSpec,
        *,
        core: Callable[..., nn.Module],
        readout: Callable[..., nn.Module],
        output: str = "auto",
        softplus_beta: float = 1.0,
        shifter: int = 0,
    ) -> None:
        super().__init__()
        if output == "auto":
            output = "elu" if spec.nonnegative else "identity"
        if output not in NONLINEARITIES:
            raise ConfigError(f"model.output={output} is none of auto, {', '.join(NONLINEARITIES)}")
        if not softplus_beta > 0 or (softplus_beta != 1 and output != "softplus"):
            raise ConfigError(
                f"model.softplus_beta={softplus_beta} must be above 0, and needs model.output=softplus (it is {output})"
            )
        self.output = output
        self.nonlinearity = softplus(softplus_beta) if output == "softplus" else NONLINEARITIES[output]
        self.core = core(spec.image_shape)
        self.readout = readout(self.core.out_shape, spec.n_neurons)
        self.shifter = self._make_shifter(shifter, spec)
        if units := getattr(self.readout, "from_cortex", 0):
            if not spec.unit_positions:
                raise ConfigError(
                    f"model.readout.from_cortex={units} needs where each neuron lies in the cortex, which "
                    f"{spec.dataset} does not say: give data=images an array unit_positions, or leave it 0"
                )
            self.readout.place_units(torch.tensor(spec.unit_positions).reshape(-1, 2))
        if len(spec.mean_rates):
            with torch.no_grad():  # begin at the mean rates, which the first steps would otherwise be spent on
                self.readout.bias.copy_(self.nonlinearity.inverse(torch.tensor(spec.mean_rates)))

    def _make_shifter(self, hidden: int, spec: DataSpec) -> Shifter | None:
        if not hidden:
            return None
        if hidden < 0 or not isinstance(self.readout, GaussianReadout):
            raise ConfigError(
                f"model.shifter={hidden} must be 0 or more, and needs positions that it can shift: "
                "readout@model.readout=gaussian"
            )
        if not spec.pupil:
            raise ConfigError(
                f"model.shifter={hidden} needs where the pupil was, which {spec.dataset} does not say: give "
                "data=images an array pupil_center, or leave it 0"
            )
        return Shifter(hidden)

    @property
    def by_pupil(self) -> bool:
        """Whether a batch's pupil positions are asked for."""
        return self.shifter is not None

    def forward(self, images: Tensor, pupil: Tensor | None = None) -> Output:
        """(B, C, H, W) images, and where the pupil was (B, 2) -> ``rates`` (B, N) and, in training, the penalties.

        Without a pupil nothing is shifted.
        """
        shift = () if self.shifter is None or pupil is None else (self.shifter(pupil),)
        rates = self.nonlinearity.function(self.readout(self.core(images), *shift))
        if not self.training:
            return {"rates": rates}
        terms = {f"core_{name}": term for name, term in self.core.penalties().items()}
        return {"rates": rates, "losses": terms | {f"readout_{k}": v for k, v in self.readout.penalties().items()}}

    def filters(self) -> Tensor:
        """(K, C, k, k) kernels of the first stage, for figures."""
        return self.core.filters()


class CoreReadout(ImageModel):
    """Any core x any readout (Lurz et al. 2021, Sensorium 2022, V1T): convolutions or attention, and how it is read.

    Args:
        spec: the description of the data.
        settings: see :class:`ImageModel` and :class:`CoreReadoutNet`.
    """

    network_class = CoreReadoutNet
