"""``init=RUN``: a run that starts with the core of another one, and with that run's model settings."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from neuro_lightning.artifacts.lines import say
from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.identity import Identity, identify
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.same_data import differences, find_training_trials, of_one_recording, same_session
from neuro_lightning.display.table import relative
from neuro_lightning.errors import CheckpointError, ConfigError, DataError
from neuro_lightning.models.adaptation import Adaptation, copy_units
from neuro_lightning.models.base import CHECKPOINT_KEY, PopulationModule
from neuro_lightning.models.loading import Saved, find_checkpoint, load_checkpoint, read_checkpoint
from neuro_lightning.nn.sequence_net import SequenceNet
from neuro_lightning.nn.sessions_net import first_difference
from neuro_lightning.runs.heads import carry_heads
from neuro_lightning.runs.stitching import Session, start_as_others
from neuro_lightning.settings.config import instantiate
from neuro_lightning.settings.settings import TrainSettings


def with_initial_model(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The config with the model settings of the run that ``init`` names; what was typed about the model stays.

    Args:
        cfg: the composed config of ``conf/train.yaml``.
        overrides: what was typed.

    Raises:
        CheckpointError: there is no such run.
        ConfigError: another kind of model was typed.
    """
    if cfg.get("init") is None:
        return cfg
    source = cfg.resume if cfg.resume is not None else cfg.init
    recipe = read_checkpoint(_checkpoint(source, "resume" if cfg.resume else "init"))[CHECKPOINT_KEY]
    saved = OmegaConf.create(copy.deepcopy(recipe["model"]))
    for key in _typed_model_keys(overrides):
        if not key:
            if cfg.model.get("_target_") != saved["_target_"]:
                raise ConfigError(
                    f"init={cfg.init} is a {_class(saved)}, whose core fits no {_class(cfg.model)}: leave out "
                    "model=..., its settings are those of the run"
                )
            continue
        OmegaConf.update(saved, key, OmegaConf.select(cfg.model, key), force_add=True)
    if recipes := [word for word in overrides if word.lstrip("+").startswith("experiment=")]:
        say(
            f"init        the model's settings are those of {relative(cfg.init)}: what {recipes[0].lstrip('+')} says "
            "of the model does not count; type it as model.KEY=VALUE",
            12,
        )
    changed = copy.deepcopy(cfg)
    OmegaConf.set_struct(changed, False)
    changed.model = saved
    if cfg.resume is None:
        _fit_core(changed.model, DataSpec.from_dict(recipe["spec"]), recipe["model"])
    return changed


def _class(model: DictConfig) -> str:
    return str(model.get("_target_")).rpartition(".")[2]


def _typed_model_keys(overrides: Sequence[str]) -> Iterator[str]:
    """Which keys of the model were typed; an empty one for the model itself."""
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        place = key.partition("@")[2] or key
        if place == "model" or place.startswith("model."):
            yield place.removeprefix("model").removeprefix(".")


def _fit_core(model: DictConfig, spec: DataSpec, saved: dict[str, Any]) -> None:
    """Say in the settings what the core of several sessions took from their data, so that one session has the same."""
    OmegaConf.set_struct(model, False)
    if "readin" not in saved or not spec.sessions:
        return
    if model.readin.get("width") is None:
        model.readin.width = "auto"
    model.core_bins = max(model.get("core_bins") or 0, *(part.n_total for part in spec.sessions))
    model.core_neurons = max(model.get("core_neurons") or 0, *(part.n_neurons for part in spec.sessions))


def adapt(model: PopulationModule, data: PopulationDataModule, settings: TrainSettings) -> None:
    """Give a new model the core of the run that ``init`` names, and the weights of the units that both know.

    A run that is resumed has its own weights.

    Args:
        model: new, of the settings.
        data: its data.
        settings: of the run.

    Raises:
        CheckpointError: there is no such run, or its core has another shape.
        ConfigError: the settings of the adaptation have no meaning, or the model has no core.
    """
    model.adaptation = instantiate(settings.adapt, trusted=settings.trusted)
    if settings.resume is not None:
        return
    path = find_checkpoint(_checkpoint(settings.init, "init"))
    saved = load_checkpoint(path, trusted=settings.trusted)
    core, own = (getattr(each.networks[0], "core", None) for each in (saved.model, model))
    if not isinstance(core, nn.Module) or not isinstance(own, nn.Module):
        raise ConfigError(f"init={settings.init}: {type(model).__name__} has no core that new data could share")
    _load_core(own, core, settings.init)
    heads = carry_heads(model, saved.model, settings.init)
    sources = list(_sources(saved.model, saved.spec, saved.identity))
    for module in data.by_session().values():
        for _, _, identity in sources:
            _check_unseen(identity, saved.fitted_on, module.recording, settings.init)
    others, refusal = _sessions_of(saved, model.adaptation, settings.trusted)
    known = 0
    for net, spec, module in zip(model.networks, model.spec.parts, data.by_session().values(), strict=True):
        ids, session = set(spec.unit_ids[: spec.n_in]), module.recording.info.get("session")
        same = [
            (other, other_spec)
            for other, other_spec, identity in sources
            if model.adaptation.same_units or same_session(identity["session"], session)
        ]
        if refusal is None:
            # weights of known units, and those with which the others give as much by themselves, would add up
            read_in = not any(ids & set(other_spec.unit_ids[: other_spec.n_in]) for _, other_spec in same)
            average = model.adaptation.start == "average"
            refusal = start_as_others(Session(net, module), others, average=average, read_in=read_in)
        known += sum(_copy_known_units(net, spec, *pair) for pair in same)
    say(
        f"init        the core of {relative(path)}: {sum(p.numel() for p in own.parameters()):,} parameters"
        + (f"; {', '.join(heads)} as decoded there" if heads else "")
        + (f"; read-in and readout of {known} units by their ids, others" if known else "; read-in and readout")
        + f" {_start_in_words(model.adaptation.start, refusal)}",
        12,
    )


def _sessions_of(saved: Saved, adaptation: Adaptation, trusted: Sequence[str]) -> tuple[list[Session], str | None]:
    """The sessions by which new read-ins and readouts begin, or why they do not."""
    if adaptation.start == "random":
        return [], "as adapt.start says"
    if not isinstance(saved.model.networks[0], SequenceNet):
        return [], f"{type(saved.model).__name__} has no read-in"
    try:
        modules = _training_data(saved, trusted)
    except DataError as error:
        return [], str(error)
    pairs = zip(saved.model.networks, saved.spec.parts, strict=True)
    return [Session(net, modules[part.session]) for net, part in pairs], None


def _start_in_words(start: str, refusal: str | None) -> str:
    """Where read-ins and readouts begin.

    Raises:
        ConfigError: they cannot begin as ``adapt.start`` says.
    """
    if refusal is None:
        return "begin with the average over all trials" if start == "average" else "begin with the shared conditions"
    if start in ("conditions", "average"):
        raise ConfigError(f"adapt.start={start}: {refusal}; give adapt.start=random")
    return "begin at random" + (f" ({refusal})" if start == "auto" else "")


def _training_data(saved: Saved, trusted: Sequence[str]) -> dict[str, PopulationDataModule]:
    """The data modules of the sessions that a model was trained on, by their names.

    Raises:
        DataError: the data are not there any more, or have changed.
    """
    data = instantiate(OmegaConf.create(saved.data), trusted=trusted)
    data.prepare_data()
    modules = data.by_session()
    identities = saved.identity.get("sessions") or {"": saved.identity}
    for name, identity in identities.items():
        if name not in modules:
            raise DataError(f"session {name} of the run is not there any more")
        if changed := differences(identity, identify(modules[name].recording, identity["config"])):
            raise DataError(f"the data of the run have changed: {changed[0].key}")
    return modules


def _check_unseen(trained: Identity, fitted_on: Sequence[str], recording: Recording, name: str) -> None:
    """Check that no trial that is validated or tested here has trained the core.

    Other neurons' responses to the same images are other trials.

    Raises:
        CheckpointError: some have.
    """
    own = identify(recording, {})
    if recording.kind == "images" and not of_one_recording(trained, own):
        return
    for split in set(own["trials"]) - {"train"}:
        if n := int(find_training_trials(trained, fitted_on, own, split).sum()):
            raise CheckpointError(
                f"init={name}: {n} {split} trials of {recording.name} have trained its core, and scores on them would "
                "mean nothing: leave this recording out of that run, or give both runs the same split (data.seed)"
            )


def _checkpoint(name: str, key: str) -> str:
    try:
        return str(find_checkpoint(name))
    except CheckpointError as error:
        raise CheckpointError(f"{key}={name}: {error}") from None


def _load_core(own: nn.Module, core: nn.Module, name: str) -> None:
    if different := first_difference(core.state_dict(), own.state_dict()):
        key, *shapes = different
        raise CheckpointError(
            f"init={name}: its core does not fit this model: {key} has the shape {shapes[0]} there and {shapes[1]} "
            "here; leave the settings of model.* as they are there, and train it with readin@model.readin=linear, "
            "whose core knows no neurons"
        )
    own.load_state_dict(core.state_dict())


def _sources(
    model: PopulationModule, spec: DataSpec, identity: Identity
) -> Iterator[tuple[nn.Module, DataSpec, Identity]]:
    """Network, description and identity of each session of a trained model."""
    identities = identity.get("sessions") or {"": identity}
    for net, part in zip(model.networks, spec.parts, strict=True):
        yield net, part, identities[part.session]


def _copy_known_units(net: Any, spec: DataSpec, other: Any, other_spec: DataSpec) -> int:
    """Copy the weights of the units that two sessions share; how many units there are."""
    if not isinstance(net, SequenceNet):
        return 0
    heldin = spec.unit_ids[: spec.n_in], other_spec.unit_ids[: other_spec.n_in]
    read = net.readin.unit_weights(spec.n_in), other.readin.unit_weights(other_spec.n_in)
    for target, source in zip(*read, strict=True):
        copy_units(target, source, *heldin)
    if read[0] and set(heldin[0]) & set(heldin[1]):
        net.readin.linear.load_state_dict({**net.readin.linear.state_dict(), "bias": other.readin.linear.bias})
    if net.readin.token is not None and other.readin.token is not None:
        copy_units(net.readin.token, other.readin.token, *heldin)
    known = 0
    for target, source in zip(net.readout.unit_weights(), other.readout.unit_weights(), strict=True):
        known = copy_units(target, source, spec.unit_ids, other_spec.unit_ids)
    return known
