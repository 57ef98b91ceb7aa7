"""Networks that begin with layers of a network that was trained before, and may keep them as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from neuro_lightning.artifacts.checkpoint_files import BEST, checkpoint_file
from neuro_lightning.artifacts.tensors import read_tensors
from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import CheckpointError, ConfigError
from neuro_lightning.models.image_model import ImageModel


def read_network(path: str | Path) -> dict[str, Tensor]:
    """The network's weights and buffers in a checkpoint, by name; nothing the file carries is executed.

    Args:
        path: a checkpoint file, or the folder of a run, whose best checkpoint is taken.

    Raises:
        CheckpointError: nothing there, not readable, or not a checkpoint of this package.
    """
    if (file := checkpoint_file(path, BEST)) is None:
        raise CheckpointError(
            f"model.init_from={path}: no checkpoint there; give a .ckpt file or a run's folder that holds "
            "checkpoints/best.ckpt"
        )
    try:
        weights = read_tensors(file).get("state_dict")
    except CheckpointError as error:
        raise CheckpointError(f"model.init_from={path}: {error}") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"model.init_from={path}: {file.name} cannot be read as a checkpoint of a run")
    if not_finite := [name for name, value in weights.items() if value.is_floating_point() and value.isnan().any()]:
        raise CheckpointError(f"model.init_from={path}: weights {not_finite[0]} of {file.name} hold NaN; take another")
    return {name.removeprefix("net."): value for name, value in weights.items() if name.startswith("net.")}


def layer_name(name: str) -> str:
    """A weight's or module's name by its layer: in which network and whether in the core or not is left out.

    Example:
        >>> layer_name("core.conv.0.linear.weight"), layer_name("sessions.0.logits"), layer_name("conv.0")
        ('conv.0.linear.weight', 'logits', 'conv.0')
    """
    return name.removeprefix("sessions.0.").removeprefix("core.")


def restore_layers(net: nn.Module, weights: dict[str, Tensor], layers: Sequence[str], source: str) -> None:
    """Copy layers of another network into this one; all of a layer or nothing.

    Args:
        net: the network to begin with them.
        weights: of the other network, by name.
        layers: names of modules, such as ``conv`` (all convolutions) or ``conv.0`` (the first).
        source: where the weights come from, for errors.

    Raises:
        ConfigError: the network has no such layer.
        CheckpointError: the other network lacks the layer, or it is of another size there.
    """
    own = {layer_name(name): value for name, value in net.state_dict().items()}
    weights = {layer_name(name): value for name, value in weights.items()}
    for layer in layers:
        _module(net, layer, "model.init_layers")
        wanted = {name: tuple(value.shape) for name, value in own.items() if _within(name, layer)}
        found = {name: tuple(value.shape) for name, value in weights.items() if _within(name, layer)}
        if other := [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]:
            theirs, ours = found.get(other[0], "missing"), wanted.get(other[0], "missing")
            raise CheckpointError(
                f"{source}: its layer {layer!r} does not fit this model: {other[0]} is {theirs} there and {ours} "
                "here; make the layers alike, or choose others with model.init_layers"
            )
        own.update({name: weights[name] for name in wanted})
    net.load_state_dict({name: own[layer_name(name)] for name in net.state_dict()})


def freeze_layers(net: nn.Module, layers: Sequence[str]) -> list[nn.Module]:
    """Take layers out of the training: their weights have no gradient from here on.

    Args:
        net: the network.
        layers: names of modules, such as ``conv`` or ``conv.0``.

    Returns:
        The modules; they must be kept in evaluation mode, where dropout and batch normalization stand still.

    Raises:
        ConfigError: the network has no such layer.
    """
    modules = [_module(net, layer, "model.freeze") for layer in layers]
    for module in modules:
        module.requires_grad_(False)
    return modules


def _module(net: nn.Module, name: str, key: str) -> nn.Module:
    modules = {layer_name(child): module for child, module in net.named_modules() if child != "core"}
    if not name or name not in modules:
        children = [child for child, module in modules.items() if child and any(True for _ in module.parameters())]
        raise ConfigError(f"{key}={name}: the network has no such layer; it has {', '.join(children)}")
    return modules[name]


def _within(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")


class WarmStartModel(ImageModel):
    """A model whose network may begin with another run's layers, frozen or free.

    The weights are read when a training begins, not when the module is built: a checkpoint of this run rebuilds its
    network without the file it once began from.

    Args:
        spec: the description of the data.
        init_from: a checkpoint or a run's folder whose layers to begin with, or None.
        init_layers: the layers that are taken from it.
        freeze: layers that are not trained.
        settings: see :class:`ImageModel`.

    Raises:
        ConfigError: a layer to freeze does not exist, or nothing would be left to train.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        init_from: str | None = None,
        init_layers: Sequence[str] = ("conv",),
        freeze: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        super().__init__(spec, **settings)
        self.init_from, self.init_layers = init_from, _names(init_layers, "model.init_layers")
        self._resumed = False
        names = _names(freeze, "model.freeze")
        self._frozen = [module for net in self.networks for module in freeze_layers(net, names)]
        if self._frozen and not any(weight.requires_grad for weight in self.net.parameters()):
            raise ConfigError(f"model.freeze={list(freeze)} leaves nothing to train")
        self.train(self.training)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note that this training is resumed: it does not read ``init_from`` again."""
        super().on_load_checkpoint(checkpoint)
        self._resumed = True

    def on_fit_start(self) -> None:
        """Copy the weights of ``init_from`` into the network, unless the training is resumed."""
        super().on_fit_start()
        if self.init_from is not None and not self._resumed:
            source = f"model.init_from={self.init_from}"
            weights = read_network(self.init_from)
            for net in self.networks:
                restore_layers(net, weights, self.init_layers, source)

    def train(self, mode: bool = True) -> WarmStartModel:
        """Training mode for all but the frozen layers."""
        super().train(mode)
        for module in getattr(self, "_frozen", ()):
            module.eval()
        return self


def _names(layers: Any, key: str) -> list[str]:
    if isinstance(layers, str) or not all(isinstance(layer, str) for layer in layers or ()):
        raise ConfigError(f"{key}={layers}: give a list of layers, such as [conv]")
    return list(layers or ())
