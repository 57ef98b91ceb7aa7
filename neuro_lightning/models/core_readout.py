"""A core that all neurons share and a readout for each of them: today's standard model of visual cortex."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.field_centers import field_centers
from neuro_lightning.models.image_model import ImageModel
from neuro_lightning.nn.nonlinearities import NONLINEARITIES, softplus
from neuro_lightning.nn.readouts import GaussianReadout
from neuro_lightning.nn.response_unit import ResponseUnit
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
        self.unit = ResponseUnit(spec)
        if len(spec.mean_rates):
            with torch.no_grad():  # begin at the mean rates, which the first steps would otherwise be spent on
                self.readout.bias.copy_(self.nonlinearity.inverse(torch.tensor(spec.in_response_units().mean_rates)))

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
        rates = self.unit(self.nonlinearity.function(self.readout(self.core(images), *shift)))
        if not self.training:
            return {"rates": rates}
        terms = {f"core_{name}": term for name, term in self.core.penalties().items()}
        return {"rates": rates, "losses": terms | {f"readout_{k}": v for k, v in self.readout.penalties().items()}}

    def look_at_fields(self, training: Batch) -> None:
        """Start the readout's positions where the responses to the training images show the neurons to look."""
        centers = field_centers(training["inputs"], training["targets"], training["mask"])
        self.readout.start_at(self.core.on_map(centers))

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

    def __init__(self, spec: DataSpec, **settings: Any) -> None:
        super().__init__(spec, **settings)
        self._resumed = False

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note that this training is resumed: positions stay where it had moved them."""
        super().on_load_checkpoint(checkpoint)
        self._resumed = True

    def on_fit_start(self) -> None:
        """Start positions that come from the images, unless the training is resumed."""
        super().on_fit_start()
        for net, data in zip(self.networks, self.trainer.datamodule.by_session().values(), strict=True):
            if getattr(net.readout, "from_images", False) and not self._resumed:
                train = data.dataset("train", evaluate=False)
                net.look_at_fields(train[list(range(len(train)))])
