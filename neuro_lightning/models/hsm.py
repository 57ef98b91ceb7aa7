"""The hierarchical structural model of Antolik et al. (2016), and the family of models around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn
from torch.utils.data import Dataset

from neuro_lightning.contracts import DataSpec, Output
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import needs_positive
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.models.fitted import FittedModule
from neuro_lightning.models.quasi_newton import Fit, best_of_restarts
from neuro_lightning.nn.hsm_layers import POSITIVE, DoG, Layer, LinScale, Standardise

LayerMaker = Callable[[Sequence[int], int], Layer]


class HSMNet(nn.Module):
    """Images -> layers, one after another -> expected responses.

    The model of Antolik et al. (2016) is ``dog`` (nine differences of Gaussians, linear: the thalamus), ``hidden``
    (dense, 0.2 N units) and ``output`` (dense, N units), the last two with a softplus. Other layers make the models of
    the thesis that reimplemented it (repository petrroll/msc-neuro).

    Args:
        image_shape: (C, H, W).
        n_neurons: N; what the last layer must give.
        layers: makers of the layers by name, in their order.
        scale: what is done to the image first.

    Raises:
        ConfigError: there is no layer, or the last one does not give N numbers.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        n_neurons: int,
        layers: Mapping[str, LayerMaker],
        *,
        scale: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.scale = scale or nn.Identity()
        self.layers = nn.ModuleDict()
        shape = self.image_shape
        for name, make in layers.items():
            try:
                self.layers[name] = make(shape, n_neurons)
            except ConfigError as error:
                raise ConfigError(f"model.{name}: {error}") from None
            shape = self.layers[name].out_shape
        if shape != (n_neurons, 1, 1):
            raise ConfigError(
                f"model.output gives {' x '.join(map(str, shape))} numbers for {n_neurons} neurons: take "
                "layer@model.output=dense or separable, with model.output.units=null"
            )

    def forward(self, images: Tensor) -> Output:
        """(B, C, H, W) -> ``rates`` (B, N) and, in training, the layers' penalties."""
        maps = self.scale(images)
        for layer in self.layers.values():
            maps = layer(maps)
        output: Output = {"rates": maps.flatten(1)}
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


def make_net(
    spec: DataSpec,
    *,
    first: LayerMaker | None,
    deeper: Mapping[str, LayerMaker] | None,
    hidden: LayerMaker | None,
    output: LayerMaker,
    scale_input: str,
) -> HSMNet:
    """The network of an :class:`HSM`, whose arguments these are."""
    if deeper is not None and not isinstance(deeper, Mapping):
        raise ConfigError("model.deeper: give each layer a name, as in +layer@model.deeper.second=dense")
    if output.keywords.get("activation") == "auto":
        output = partial(output, activation="softplus" if spec.nonnegative else "none")
    layers = {"first": first, **(deeper or {}), "hidden": hidden, "output": output}
    present = {name: maker for name, maker in layers.items() if maker is not None}
    scales = {
        "standard": lambda: Standardise(spec.image_mean, spec.image_std),
        "learnt": LinScale,
        "none": nn.Identity,
    }
    if scale_input not in scales:
        raise ConfigError(f"model.scale_input={scale_input}: give {', '.join(scales)}")
    return HSMNet(spec.image_shape, spec.n_neurons, present, scale=scales[scale_input]())


def check_output(net: HSMNet, spec: DataSpec, loss: Callable | None) -> None:
    """Whether what the network gives is in the range of the responses and of the loss.

    Raises:
        ConfigError: an output that is never negative for responses that are, or a Poisson loss of one that may be.
    """
    activation = net.layers["output"].activation
    if activation in POSITIVE and not spec.nonnegative:
        raise ConfigError(
            f"model.output.activation={activation} is never negative, but responses in {spec.dataset} are: "
            "take model.output.activation=auto loss@model.loss=auto_normalised"
        )
    if activation not in POSITIVE and needs_positive(loss, spec):
        raise ConfigError(
            f"model.output.activation={activation} may be negative, which a Poisson loss has no meaning for: "
            "take loss@model.loss=mse, or model.output.activation=softplus"
        )


class HSM(PopulationModule):
    """A few layers from images to responses, trained in steps; by default Antolik's hierarchical structural model.

    Args:
        spec: the description of the data.
        first: the layer that sees the image; makers of layers are in ``neuro_lightning.nn.hsm_layers``.
        deeper: further layers between the first and the hidden one, by name, in their order.
        hidden: the hidden layer, or None.
        output: the layer whose units are the neurons.
        scale_input: ``standard`` divides the image by the training images' deviation after taking off their mean,
            ``learnt`` learns a factor and an offset (NDN3's LinScale), ``none`` takes it as it is.
        loss: see ``neuro_lightning.losses``.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and the number of steps, or None.

    Raises:
        ConfigError: layers that do not fit together, the data, or the loss.
    """

    kinds = ("images",)

    def __init__(
        self,
        spec: DataSpec,
        *,
        output: LayerMaker,
        first: LayerMaker | None = None,
        deeper: Mapping[str, LayerMaker] | None = None,
        hidden: LayerMaker | None = None,
        scale_input: str = "standard",
        loss: Callable | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
    ) -> None:
        net = make_net(spec, first=first, deeper=deeper, hidden=hidden, output=output, scale_input=scale_input)
        check_output(net, spec, loss)
        super().__init__(net, spec, loss=loss, optimizer=optimizer, scheduler=scheduler)


class QuasiNewtonHSM(FittedModule):
    """The same networks, fitted to all training images at once by L-BFGS-B from several random starts.

    Antolik et al. (2016) fitted their 2,426 parameters so, with a hundred starts. Here the validation images stop each
    start and choose among them; the original had no such guard.

    Args:
        spec: the description of the data.
        first: see :class:`HSM`.
        deeper: likewise.
        hidden: likewise.
        output: likewise.
        scale_input: likewise.
        loss: likewise.
        restarts: random starts.
        iterations: steps of each at most.
        every: steps from one look at the validation loss to the next.
        patience: looks without a new lowest validation loss that end a start.
        seed: of the first start; the others follow.

    Attributes:
        fits: what came of each start, after the fit.

    Raises:
        ConfigError: as :class:`HSM`, or dropout or batch normalisation, with which no objective is the same twice.
    """

    kinds = ("images",)
    chooses_on_val = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        output: LayerMaker,
        first: LayerMaker | None = None,
        deeper: Mapping[str, LayerMaker] | None = None,
        hidden: LayerMaker | None = None,
        scale_input: str = "standard",
        loss: Callable | None = None,
        restarts: int = 5,
        iterations: int = 1000,
        every: int = 5,
        patience: int = 20,
        seed: int = 0,
    ) -> None:
        parts = {"first": first, "deeper": deeper, "hidden": hidden, "output": output, "scale_input": scale_input}
        net = make_net(spec, **parts)
        check_output(net, spec, loss)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) or (isinstance(module, nn.Dropout) and module.p):
                raise ConfigError("a quasi-Newton fit takes neither dropout nor batch normalisation: take model=hsm")
        numbers = {"restarts": restarts, "iterations": iterations, "every": every, "patience": patience}
        for name, value in numbers.items():
            if value < 1:
                raise ConfigError(f"model.{name}={value} must be at least 1")
        super().__init__(net, spec, loss=loss)
        self._parts = parts
        self.options = {"iterations": iterations, "every": every, "patience": patience}
        self.restarts, self.first_seed = restarts, seed
        self.fits: list[Fit] = []

    def fit_net(self, train: Dataset, val: Dataset | None = None) -> None:
        """Fit from every start and keep the best on the validation images."""
        best, self.fits = best_of_restarts(
            lambda: make_net(self.spec, **self._parts),
            self._mean_loss(train),
            validation=None if val is None else self._mean_loss(val),
            restarts=self.restarts,
            seed=self.first_seed,
            **self.options,
        )
        self.net.load_state_dict({name: value.to(self.dtype) for name, value in best.state.items()})

    def _mean_loss(self, data: Dataset) -> Callable[[nn.Module], Tensor]:
        """The loss on all images of a split, with the penalties in training mode."""
        batch = data[list(range(len(data)))]
        images, targets, mask = batch["inputs"].double(), batch["targets"].double(), batch["mask"]

        def mean_loss(net: nn.Module) -> Tensor:
            output = net(images)
            total, count = self.loss(output, targets, mask, self.spec)
            return total / count.clamp_min(1) + sum(output.get("losses", {}).values())

        return mean_loss
