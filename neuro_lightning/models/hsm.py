"""The hierarchical structural model of Antolik et al. (2016), and the family of models around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from neuro_lightning.contracts import DataSpec, Output
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import Loss
from neuro_lightning.models.fitted import FittedModule
from neuro_lightning.models.image_model import ImageModel, check_output
from neuro_lightning.models.quasi_newton import Fit, best_of_restarts
from neuro_lightning.nn.hsm_layers import DoG, Layer, LinScale, Standardise
from neuro_lightning.nn.response_unit import ResponseUnit

LayerMaker = Callable[[Sequence[int], int], Layer]


class HSMNet(nn.Module):
    """Images -> layers, one after another -> expected responses.

    The model of Antolik et al. (2016) is ``first`` (nine differences of Gaussians, linear: the thalamus), ``hidden``
    (dense, 0.2 N units) and ``output`` (dense, N units), the last two with a softplus. Other layers make the models of
    the thesis that reimplemented it (repository petrroll/msc-neuro).

    Args:
        spec: the description of the data.
        output: the layer whose units are the neurons; makers of layers are in ``neuro_lightning.nn.hsm_layers``.
        first: the layer that sees the image, or None.
        deeper: further layers between the first and the hidden one, by name, in their order.
        hidden: the hidden layer, or None.
        scale_input: ``standard`` divides the image by the training images' deviation after taking off their mean,
            ``learnt`` learns a factor and an offset (NDN3's LinScale), ``none`` takes it as it is.

    Raises:
        ConfigError: layers that do not fit together, or the last one does not give a number for each neuron.
    """

    output_key = "model.output.activation"

    def __init__(
        self,
        spec: DataSpec,
        *,
        output: LayerMaker,
        first: LayerMaker | None = None,
        deeper: Mapping[str, LayerMaker] | None = None,
        hidden: LayerMaker | None = None,
        scale_input: str = "standard",
    ) -> None:
        super().__init__()
        if deeper is not None and not isinstance(deeper, Mapping):
            raise ConfigError("model.deeper: give each layer a name, as in +layer@model.deeper.second=dense")
        if output.keywords.get("activation") == "auto":
            output = partial(output, activation="softplus" if spec.nonnegative else "none")
        scales = {
            "standard": lambda: Standardise(spec.image_mean, spec.image_std),
            "learnt": LinScale,
            "none": nn.Identity,
        }
        if scale_input not in scales:
            raise ConfigError(f"model.scale_input={scale_input}: give {', '.join(scales)}")
        self.scale, self.layers, shape = scales[scale_input](), nn.ModuleDict(), tuple(spec.image_shape)
        for name, make in {"first": first, **(deeper or {}), "hidden": hidden, "output": output}.items():
            if make is None:
                continue
            try:
                self.layers[name] = make(shape, spec.n_neurons)
            except ConfigError as error:
                raise ConfigError(f"model.{name}: {error}") from None
            shape = self.layers[name].out_shape
        if shape != (spec.n_neurons, 1, 1):
            raise ConfigError(
                f"model.output gives {' x '.join(map(str, shape))} numbers for {spec.n_neurons} neurons: take "
                "layer@model.output=dense or separable, with model.output.units=null"
            )
        self.output, self.unit = self.layers["output"].activation, ResponseUnit(spec)

    def forward(self, images: Tensor) -> Output:
        """(B, C, H, W) -> ``rates`` (B, N) and, in training, the layers' penalties."""
        maps = self.scale(images)
        for layer in self.layers.values():
            maps = layer(maps)
        output: Output = {"rates": self.unit(maps.flatten(1))}
        if self.training:
            output["losses"] = self.penalties()
        return output

    def penalties(self) -> dict[str, Tensor]:
        """The penalties of all layers as ``<layer>_<penalty>``."""
        return {
            f"{name}_{term}": value for name, layer in self.layers.items() for term, value in layer.penalties().items()
        }

    def bounds(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Bounds of parameters by their names, for optimizers that take them."""
        return {
            f"{name}.{parameter}": limits
            for name, module in self.named_modules()
            if hasattr(module, "bounds") and module is not self
            for parameter, limits in module.bounds().items()
        }

    # ---- for figures

    def filters(self) -> Tensor:
        """The filters of the first layer, (K, C, h, w); C is 1 where it sees the mean of the channels."""
        return next(iter(self.layers.values())).weight.detach()

    def dog_parameters(self) -> dict[str, Tensor]:
        """Where each difference of Gaussians looks and how, each (K,), see ``DoGFilters.table``.

        Empty where the first layer is another one, or a convolution, whose units look everywhere.
        """
        first = next(iter(self.layers.values()))
        return first.dog.table() if isinstance(first, DoG) else {}


class HSM(ImageModel):
    """A few layers from images to responses, trained in steps; by default Antolik's hierarchical structural model.

    Args:
        spec: the description of the data.
        settings: see :class:`ImageModel` and :class:`HSMNet`.
    """

    network_class = HSMNet


class QuasiNewtonHSM(FittedModule):
    """The same networks, fitted to all training images at once by L-BFGS-B from several random starts.

    Antolik et al. (2016) fitted their 2,426 parameters so, with a hundred starts. Here the validation images stop each
    start and choose among them; the original had no such guard.

    Args:
        spec: the description of the data.
        loss: see ``neuro_lightning.losses``.
        restarts: random starts.
        iterations: steps of each at most.
        every: steps from one look at the validation loss to the next.
        patience: looks without a new lowest validation loss that end a start.
        seed: of the first start; the others follow.
        settings: of the network, see :class:`HSMNet`.

    Attributes:
        fits: what came of each start, after the fit.

    Raises:
        ConfigError: as :class:`HSM`, or dropout or batch normalisation, with which no objective is the same twice.
    """

    kinds = ("images",)
    chooses_on_val = True
    network_class = HSMNet

    def __init__(
        self,
        spec: DataSpec,
        *,
        loss: Loss | None = None,
        restarts: int = 5,
        iterations: int = 1000,
        every: int = 5,
        patience: int = 20,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self.build = partial(HSMNet, spec, **settings)
        net = self.build()
        check_output(net, spec, loss)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) or (isinstance(module, nn.Dropout) and module.p):
                raise ConfigError("a quasi-Newton fit takes neither dropout nor batch normalisation: take model=hsm")
        self.options = {"restarts": restarts, "iterations": iterations, "every": every, "patience": patience}
        for name, value in self.options.items():
            if value < 1:
                raise ConfigError(f"model.{name}={value} must be at least 1")
        super().__init__(net, spec, loss=loss)
        self.first_seed = seed
        self.fits: list[Fit] = []

    def fit_net(self, train: Dataset, val: Dataset | None = None) -> None:
        """Fit from every start and keep the best on the validation images."""
        best, self.fits = best_of_restarts(
            self.build,
            self._mean_loss(train),
            validation=None if val is None else self._mean_loss(val),
            seed=self.first_seed,
            **self.options,
        )
        self.net.load_state_dict({name: value.to(self.dtype) for name, value in best.state.items()})

    def _mean_loss(self, data: Dataset) -> Callable[[nn.Module], Tensor]:
        """The loss on all images of a split, with the penalties in training mode."""
        batch = data[list(range(len(data)))]
        batch = {**batch, "inputs": batch["inputs"].double(), "targets": batch["targets"].double()}

        def mean_loss(net: nn.Module) -> Tensor:
            output = net(batch["inputs"])
            total, count = self.loss_sums(output, batch, batch["mask"])
            return total / count.clamp_min(1) + sum(output.get("losses", {}).values())

        return mean_loss
