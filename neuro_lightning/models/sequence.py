"""Models of spikes or traces whose network is a read-in, a core and a readout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import Loss, readout_names
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.attention import round_up_to_heads
from neuro_lightning.nn.heads import Heads, HeadSettings
from neuro_lightning.nn.masking import configure_masking
from neuro_lightning.nn.rate_readout import ReadoutSettings
from neuro_lightning.nn.readin import ReadInSettings
from neuro_lightning.nn.sessions_net import build_for_sessions

COUNTS = ReadInSettings()
LINEAR = ReadoutSettings()


class SequenceModel(PopulationModule):
    """Base class: a subclass names its network, whose settings are the model's own.

    Args:
        spec: the description of the data.
        readin: what the core reads of a step.
        readout: how rates are read out of the core's latents.
        loss: see ``neuro_lightning.losses``; None is Poisson for spikes and squared error for traces.
        masking: hides a part of the input in training, see ``neuro_lightning.nn.masking``.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and the number of steps, or None.
        heads: what is decoded from the latents, by name; several sessions share the heads.
        core_bins: bins that the core is made for, where the data have fewer: other sessions have trained it.
        core_neurons: neurons of the largest session that the core is made for, likewise; 0 for one recording alone.
        settings: of the network, see its class.

    Raises:
        ConfigError: an embedding of traces, or of counts that the masking rescales.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes", "traces")
    network_class: ClassVar[Any] = None  # a SequenceNet, called with the description, read-in, readout and settings
    masks_whole_steps: ClassVar[bool] = False

    def __init__(
        self,
        spec: DataSpec,
        *,
        readin: ReadInSettings = COUNTS,
        readout: ReadoutSettings = LINEAR,
        loss: Loss | None = None,
        masking: nn.Module | None = None,
        optimizer: Callable | None = None,
        scheduler: Callable | None = None,
        heads: Mapping[str, HeadSettings] | None = None,
        core_bins: int = 0,
        core_neurons: int = 0,
        **settings: Any,
    ) -> None:
        if getattr(masking, "marks_unrecorded", False) and not all(part.partial for part in spec.parts):
            raise ConfigError(
                f"masking=neurons hides neurons as not recorded, which {spec.dataset} does not know: give "
                "masking@model.masking=random model.masking.mode=neuron"
            )
        if readin.count_width:
            _check_whole_counts(f"model.readin.count_width={readin.count_width}", spec, masking)
        if spec.sessions or core_neurons:
            core_neurons = core_neurons or max(part.n_neurons for part in spec.sessions)
            readin, settings = _settings_of_shared_core(core_neurons, readin, settings)
        settings |= {"readin": readin, "readout": readout, "names": readout_names(loss, spec)}
        net = build_for_sessions(lambda part: self.network_class(part, **settings), spec, core_bins)
        if self.masks_whole_steps:
            steps = (net.sessions[0] if spec.sessions else net).steps
            configure_masking(masking, block=steps.stride, kind=spec.kind)
        add_heads(net, heads, spec)
        super().__init__(net, spec, loss=loss, masking=masking, optimizer=optimizer, scheduler=scheduler)
        self.readin_start = readin.start  # of several sessions, see runs/stitching.py


def add_heads(net: Any, settings: Mapping[str, HeadSettings] | None, spec: DataSpec) -> None:
    """Add heads to a network, or to those of several sessions, which share them.

    Args:
        net: the network, a SequenceNet, or the networks of several sessions.
        settings: of the heads by name.
        spec: the description of the data.

    Raises:
        ConfigError: the data do not have what a head is to decode.
    """
    if settings := {name: each for name, each in (settings or {}).items() if each is not None}:
        nets = net.sessions if spec.sessions else [net]
        heads = Heads(settings, spec, nets[0].readout.linear.in_features)
        for each in nets:
            each.heads = heads


def _settings_of_shared_core(
    neurons: int, readin: ReadInSettings, settings: dict[str, Any]
) -> tuple[ReadInSettings, dict[str, Any]]:
    """Settings with which the core of every session has the same shape.

    A read-in without a map gets one to the core's width, and a width of one channel for each neuron is that of the
    session with the most neurons.

    Args:
        neurons: of that session.
        readin: of the model.
        settings: of the model's network.
    """
    if readin.width is None:
        readin = replace(readin, width="auto")
    if "width" in settings and settings["width"] is None:
        settings = {**settings, "width": round_up_to_heads(neurons, settings["attention_heads"])}
    return readin, settings


def _check_whole_counts(key: str, spec: DataSpec, masking: nn.Module | None) -> None:
    """Check that the network is shown whole counts, which alone have an embedding.

    Raises:
        ConfigError: the data are no counts, or the masking rescales them.
    """
    if spec.kind != "spikes":
        raise ConfigError(f"{key}: {spec.dataset} has {spec.kind}, not counts; set it to 0")
    if getattr(masking, "rescale", False):
        raise ConfigError(
            f"{key}: only whole counts have an embedding, and the masking rescales them; give "
            "model.masking.rescale=false or masking@model.masking=random"
        )
