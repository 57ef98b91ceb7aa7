"""The NMAs autoencoder: a bidirectional LSTM whose states are squeezed through a few latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec, Output, split_readout
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import Loss, readout_names
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.mean_rates import start_at_mean_rates
from neuro_lightning.nn.recurrent import TwoWay, mish_mlp


class LSTMAutoencoderNet(nn.Module):
    """Activity -> LSTM of both directions, averaged -> MLP -> latents -> linear map to all neurons.

    With 1131 neurons and 75 latents it has the 856,131 parameters of the published network (sazio/NMAs, "Net"). The
    latents are the MLP's output: the published figures analyse them.

    Args:
        n_in: neurons that are shown.
        n_neurons: all neurons N, of which those shown come first.
        latent_dim: latents, and units of the LSTM in each direction.
        cell: ``lstm``, ``gru`` or ``rnn``.
        layers: stacked recurrent layers.
        mlp_width: width of the MLP's layers as a multiple of ``latent_dim``.
        dropout: before the MLP's last layer.
        layer_dropout: between recurrent layers.
        mean_rates: (N,) mean activity, from which the readout starts; empty leaves it at random.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.
    """

    def __init__(
        self,
        n_in: int,
        n_neurons: int,
        *,
        latent_dim: int = 75,
        cell: str = "lstm",
        layers: int = 1,
        mlp_width: int = 2,
        dropout: float = 0.25,
        layer_dropout: float = 0.0,
        mean_rates: Sequence[float] = (),
        names: Sequence[str] = ("rates",),
    ) -> None:
        super().__init__()
        self.encoder = TwoWay(n_in, latent_dim, cell=cell, layers=layers, dropout=layer_dropout)
        self.mlp = mish_mlp(latent_dim, mlp_width * latent_dim, latent_dim, dropout=dropout)
        self.readout, self.names = _readout(latent_dim, n_neurons, mean_rates, names), tuple(names)

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) activity -> rates or log-rates (B, T, N) and, in evaluation, latents (B, T, latent_dim)."""
        latents = self.mlp(self.encoder(inputs))
        output = split_readout(self.readout(latents), self.names)
        return output if self.training else {**output, "latents": latents}


class FeedbackNet(nn.Module):
    """A first network's prediction of the population is fed, beside the activity, to a second one.

    The published "Feedback_LSTM": LSTM -> MLP of three times the population's width -> a prediction of all neurons,
    which joins the activity as the input of a second LSTM; its averaged states are the latents, read out linearly.

    Args:
        n_in: neurons that are shown.
        n_neurons: all neurons N, of which those shown come first.
        latent_dim: latents, and units of both LSTMs in each direction.
        cell: ``lstm``, ``gru`` or ``rnn``.
        layers: stacked recurrent layers in each of the two.
        mlp_width: width of the MLP's layers as a multiple of N.
        dropout: before the MLP's last layer.
        layer_dropout: between recurrent layers.
        mean_rates: (N,) mean activity, from which the readout starts; empty leaves it at random.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.
    """

    def __init__(
        self,
        n_in: int,
        n_neurons: int,
        *,
        latent_dim: int = 113,
        cell: str = "lstm",
        layers: int = 1,
        mlp_width: int = 3,
        dropout: float = 0.5,
        layer_dropout: float = 0.0,
        mean_rates: Sequence[float] = (),
        names: Sequence[str] = ("rates",),
    ) -> None:
        super().__init__()
        options = {"cell": cell, "layers": layers, "dropout": layer_dropout}
        self.first = TwoWay(n_in, latent_dim, **options)
        self.mlp = mish_mlp(latent_dim, mlp_width * n_neurons, n_neurons, dropout=dropout)
        self.second = TwoWay(n_in + n_neurons, latent_dim, **options)
        self.readout, self.names = _readout(latent_dim, n_neurons, mean_rates, names), tuple(names)

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) activity -> rates or log-rates (B, T, N) and, in evaluation, latents (B, T, latent_dim)."""
        feedback = self.mlp(self.first(inputs))
        latents = self.second(torch.cat([inputs, feedback], dim=2))
        output = split_readout(self.readout(latents), self.names)
        return output if self.training else {**output, "latents": latents}


def _readout(latent_dim: int, n_neurons: int, mean_rates: Sequence[float], names: Sequence[str]) -> nn.Linear:
    readout = nn.Linear(latent_dim, n_neurons * len(names))
    start_at_mean_rates(readout, mean_rates, log=names[0] == "log_rates")
    return readout


class LSTMAutoencoder(PopulationModule):
    """An autoencoder of whole sequences, trained to give back the activity that it was shown.

    Its latents sum up the population at every bin, from the past and the future alike: it reconstructs and does not
    predict. With as many latents as neurons it could copy, so give its score beside that of a PCA of the same size.
    Where neurons are held out they are predicted too, from those that are shown.

    Args:
        spec: the description of the data.
        latent_dim: latents.
        cell: ``lstm``, ``gru`` or ``rnn``.
        layers: stacked recurrent layers.
        mlp_width: width of the MLP's layers, as a multiple of ``latent_dim`` (with ``feedback``: of the neurons).
        dropout: before the MLP's last layer.
        layer_dropout: between recurrent layers.
        init_bias_mean: let the readout start at the neurons' mean activity.
        feedback: feed a first prediction of the population to a second LSTM.
        loss: of the reconstruction, see ``neuro_lightning.losses``.
        masking: hides a part of the input in training, see ``neuro_lightning.nn.masking``.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and the number of steps, or None.

    Raises:
        ConfigError: there are no latents, or the MLP has no width.
    """

    kinds: ClassVar[tuple[str, ...]] = ("traces", "spikes")

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dim: int,
        cell: str = "lstm",
        layers: int = 1,
        mlp_width: int = 2,
        dropout: float = 0.25,
        layer_dropout: float = 0.0,
        init_bias_mean: bool = True,
        feedback: bool = False,
        loss: Loss | None = None,
        masking: nn.Module | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
    ) -> None:
        if latent_dim < 1:
            raise ConfigError(f"latent_dim={latent_dim}: there must be at least one latent")
        if mlp_width < 1:
            raise ConfigError(f"mlp_width={mlp_width}: the MLP must be as wide as the latents at least")
        net = (FeedbackNet if feedback else LSTMAutoencoderNet)(
            spec.n_in,
            spec.n_neurons,
            latent_dim=latent_dim,
            cell=cell,
            layers=layers,
            mlp_width=mlp_width,
            dropout=dropout,
            layer_dropout=layer_dropout,
            mean_rates=spec.mean_rates if init_bias_mean else (),
            names=readout_names(loss, spec),
        )
        super().__init__(net, spec, loss=loss, masking=masking, optimizer=optimizer, scheduler=scheduler)

    @classmethod
    def refuse(cls, spec: DataSpec) -> str | None:
        """It has no bins beyond those it is shown."""
        if spec.n_forward:
            return f"it reconstructs what it is shown and predicts none of the {spec.n_forward} forward bins"
        return None
