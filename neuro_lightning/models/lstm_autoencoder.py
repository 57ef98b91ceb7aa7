"""The NMAs autoencoder: a bidirectional LSTM whose states are squeezed through a few latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.sequence import SequenceModel
from neuro_lightning.nn.rate_readout import ReadoutSettings
from neuro_lightning.nn.readin import ReadInSettings
from neuro_lightning.nn.recurrent import TwoWay, mish_mlp
from neuro_lightning.nn.sequence_net import SequenceNet
from neuro_lightning.nn.steps import Steps


class AutoencoderCore(nn.Module):
    """Channels -> recurrent layers of both directions, averaged -> MLP -> latents.

    The latents are the MLP's output: the published figures analyse them.

    Args:
        channels: C of the input.
        latent_dim: latents, and units of the recurrent layers in each direction.
        mlp_width: width of the MLP's layers as a multiple of ``latent_dim``.
        dropout: before the MLP's last layer.
        recurrent: called with the channels of its input and the latents.
    """

    def __init__(
        self, channels: int, latent_dim: int, *, mlp_width: int, dropout: float, recurrent: Callable[..., TwoWay]
    ) -> None:
        super().__init__()
        self.encoder = recurrent(channels, latent_dim)
        self.mlp = mish_mlp(latent_dim, mlp_width * latent_dim, latent_dim, dropout=dropout)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, T, C), and the bins of each trial (B,) -> (B, T, latent_dim)."""
        return self.mlp(self.encoder(inputs, lengths))


class FeedbackCore(nn.Module):
    """A first network's prediction of the population is fed, beside the activity, to a second one.

    The published "Feedback_LSTM": LSTM -> MLP of three times the population's width -> a prediction of all neurons,
    which joins the activity as the input of a second LSTM; its averaged states are the latents.

    Args:
        channels: C of the input.
        n_neurons: all neurons N, which are predicted first.
        latent_dim: latents, and units of the recurrent layers in each direction.
        mlp_width: width of the MLP's layers as a multiple of N.
        dropout: before the MLP's last layer.
        recurrent: see :class:`AutoencoderCore`.
    """

    def __init__(
        self,
        channels: int,
        n_neurons: int,
        latent_dim: int,
        *,
        mlp_width: int,
        dropout: float,
        recurrent: Callable[..., TwoWay],
    ) -> None:
        super().__init__()
        self.first = recurrent(channels, latent_dim)
        self.mlp = mish_mlp(latent_dim, mlp_width * n_neurons, n_neurons, dropout=dropout)
        self.second = recurrent(channels + n_neurons, latent_dim)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, T, C), and the bins of each trial (B,) -> (B, T, latent_dim)."""
        return self.second(torch.cat([inputs, self.mlp(self.first(inputs, lengths))], dim=2), lengths)


class LSTMAutoencoderNet(SequenceNet):
    """One of the two cores between read-in and readout.

    With 1131 neurons and 75 latents it has the 856,131 parameters of the published network (sazio/NMAs, "Net").

    Args:
        spec: the description of the data.
        readin: what is read of a bin.
        readout: how rates are read out of the latents.
        latent_dim: latents.
        cell: ``lstm``, ``gru`` or ``rnn``.
        layers: stacked recurrent layers.
        mlp_width: width of the MLP's layers, as a multiple of ``latent_dim`` (with ``feedback``: of the neurons).
        dropout: before the MLP's last layer.
        layer_dropout: between recurrent layers.
        feedback: feed a first prediction of the population to a second LSTM.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.

    Raises:
        ConfigError: there are no latents, or the MLP has no width.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        readin: ReadInSettings,
        readout: ReadoutSettings,
        latent_dim: int,
        cell: str = "lstm",
        layers: int = 1,
        mlp_width: int = 2,
        dropout: float = 0.25,
        layer_dropout: float = 0.0,
        feedback: bool = False,
        names: Sequence[str] = ("rates",),
    ) -> None:
        if latent_dim < 1:
            raise ConfigError(f"latent_dim={latent_dim}: there must be at least one latent")
        if mlp_width < 1:
            raise ConfigError(f"mlp_width={mlp_width}: the MLP must be as wide as the latents at least")
        steps = Steps.of(spec, None)
        reads_in = readin.build(spec, steps, latent_dim)
        options: dict[str, Any] = {
            "mlp_width": mlp_width,
            "dropout": dropout,
            "recurrent": partial(TwoWay, cell=cell, layers=layers, dropout=layer_dropout),
        }
        core: nn.Module = (
            FeedbackCore(reads_in.width, spec.n_neurons, latent_dim, **options)
            if feedback
            else AutoencoderCore(reads_in.width, latent_dim, **options)
        )
        super().__init__(steps, reads_in, core, readout.build(spec, steps, latent_dim, names, lambda layer: None))


class LSTMAutoencoder(SequenceModel):
    """An autoencoder of whole sequences, trained to give back the activity that it was shown.

    Its latents sum up the population at every bin, from the past and the future alike: it reconstructs and does not
    predict. With as many latents as neurons it could copy, so give its score beside that of a PCA of the same size.
    Where neurons are held out they are predicted too, from those that are shown. Its arguments are those of
    :class:`SequenceModel` and :class:`LSTMAutoencoderNet`.
    """

    kinds: ClassVar[tuple[str, ...]] = ("traces", "spikes")
    network_class = LSTMAutoencoderNet

    @classmethod
    def refuse(cls, spec: DataSpec) -> str | None:
        """It has no bins beyond those it is shown."""
        if spec.n_forward:
            return f"it reconstructs what it is shown and predicts none of the {spec.n_forward} forward bins"
        return None
