"""The convolutional network that won the UW Neural Data Challenge of 2019, layer by layer from the config."""

from __future__ import annotations

from neuro_lightning.models.warm_start import WarmStartModel
from neuro_lightning.nn.conv import ConvNet


class CNN(WarmStartModel):
    """Responses to images from convolutions, dense layers and one output for each neuron.

    Args:
        spec: the description of the data.
        settings: see :class:`WarmStartModel`, :class:`ImageModel` and :class:`neuro_lightning.nn.conv.ConvNet`.
    """

    network_class = ConvNet
