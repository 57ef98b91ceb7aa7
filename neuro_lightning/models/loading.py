"""A checkpoint rebuilds its model by itself: tensors and plain values, nothing that has to be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from neuro_lightning.artifacts.checkpoint_files import BEST, LAST, REFIT, checkpoint_file, member_folders
from neuro_lightning.artifacts.old_names import update_names, update_weights
from neuro_lightning.artifacts.tensors import read_tensors
from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.identity import Identity, config_of_session, identity_of
from neuro_lightning.errors import CheckpointError, ConfigError, DivergedError
from neuro_lightning.models.base import CHECKPOINT_KEY, PopulationModule
from neuro_lightning.settings.config import check_plain, check_targets, instantiate

LARGEST_WEIGHT = 1e20
"""Beyond it no weight is the outcome of a training, and its products are not finite."""
CHOICES = {"best": BEST, "last": LAST, "refit": REFIT}  # by what predict.py calls them


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds besides weights.

    Attributes:
        path: the file.
        model: the trained model, in evaluation mode.
        spec: the data it was trained on.
        data: the config of its data.
        info: the recording's own notes (which neurons were held out, which trials trained).
        fitted_on: the splits that it was trained on: after a refit the validation trials are among them.
        identity: of its data, see :mod:`neuro_lightning.data.identity`.
    """

    path: Path
    model: PopulationModule
    spec: DataSpec
    data: dict[str, Any]
    info: dict[str, Any]
    fitted_on: tuple[str, ...]
    identity: Identity

    def by_session(self) -> dict[str, Saved]:
        """The same for each session alone, by its name; one recording has none."""
        return {name: self.of_session(name) for name in self.model.by_session()}

    def of_session(self, name: str) -> Saved:
        """The same for one session alone; of a single recording the whole.

        Raises:
            CheckpointError: it was trained on other sessions, or its description of this one is damaged.
        """
        if not self.spec.sessions:
            return self
        recipe = {"spec": self.spec.to_dict(), "data": self.data, "info": self.info, "identity": self.identity}
        own = recipe_of_session(recipe, name, self.path)
        model, identity = self.model.by_session()[name], {**own["identity"], "older": False}
        return replace(self, model=model, spec=model.spec, data=own["data"], info=own["info"], identity=identity)


def find_checkpoint(path: str | Path, name: str = BEST) -> Path:
    """The checkpoint file meant by a path: the file itself, or a run's folder.

    Raises:
        CheckpointError: nothing there.
    """
    if (found := checkpoint_file(path, name)) is not None:
        return found
    if networks := member_folders(path):
        raise CheckpointError(f"{path} holds several networks, each a run of its own: give one of them, {networks[0]}")
    raise CheckpointError(f"no checkpoint at {path}: give a .ckpt file or a run's folder that holds checkpoints/{name}")


def choose_checkpoint(path: str | Path, which: str, target: str) -> Path:
    """The checkpoint of a run that is to predict a split.

    ``auto`` takes a run's refit for test trials, if it has one, and its best checkpoint for all others: a refit has
    been trained on the validation trials. A path to a file means that file.

    Args:
        path: a checkpoint or a run's folder.
        which: ``auto``, ``best``, ``refit`` or ``last``.
        target: the split that is predicted.

    Raises:
        CheckpointError: nothing there, or it was trained on the trials that it is to predict.
        ConfigError: ``which`` is none of these, or another one than the file that ``path`` names.
    """
    if which != "auto" and which not in CHOICES:
        raise ConfigError(f"checkpoint={which}: give auto, {', '.join(list(CHOICES)[:-1])} or refit")
    if Path(path).is_file():
        chosen = Path(path)
        if which != "auto" and chosen.name != CHOICES[which]:
            raise ConfigError(f"checkpoint={which}: ckpt={path} names another file; give the run's folder")
    elif which == "auto":
        best = find_checkpoint(path)
        refit = best.with_name(REFIT)
        chosen = refit if target == "test" and refit.is_file() else best
    else:
        chosen = find_checkpoint(path, CHOICES[which])
    if target in fitted_on(chosen):
        raise CheckpointError(
            f"{chosen} was trained on the {target} trials that it is to predict: give checkpoint=best"
        )
    return chosen


def fitted_on(path: Path) -> tuple[str, ...]:
    """The splits that a checkpoint was trained on."""
    return tuple(read_checkpoint(path)[CHECKPOINT_KEY].get("fitted_on", ("train",)))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint's content, read without executing anything it carries.

    Raises:
        CheckpointError: not a checkpoint, damaged, or not of this package.
    """
    path = find_checkpoint(path)
    content = read_tensors(path)
    if not isinstance(content.get(CHECKPOINT_KEY), dict):
        raise CheckpointError(f"{path} was not written by neuro_lightning: it does not say how to build its model")
    content[CHECKPOINT_KEY] = recipe = update_names(content[CHECKPOINT_KEY])
    model = recipe.get("model")
    update_weights(content, str(model.get("_target_")) if isinstance(model, dict) else "")  # else it is refused later
    return content


def recipe_of_session(recipe: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """What a checkpoint of several sessions says of one, as one that was trained on it alone says it.

    Args:
        recipe: ``spec``, ``data``, ``info`` and ``identity`` of a checkpoint; of a single recording they are returned.
        name: of the session.
        path: the checkpoint, for messages.

    Raises:
        CheckpointError: it was trained on other sessions, or its description of this one is damaged.
    """
    specs = {part.get("session"): part for part in recipe["spec"].get("sessions", ())}
    if not specs:
        return dict(recipe)
    if name not in specs:
        raise CheckpointError(
            f"{path} was trained on the sessions {', '.join(specs)}"
            + (f", and on no session {name}" if name else ", the first checkpoint on one recording: give session=NAME")
        )
    try:
        own = {"data": config_of_session(recipe["data"], name), "info": recipe["info"][name]}
        return {**recipe, "spec": specs[name], **own, "identity": recipe["identity"]["sessions"][name]}
    except (KeyError, TypeError):
        raise CheckpointError(f"{path}: its description of session {name} is damaged: restore it from a copy") from None


def check_saved(path: Path, key: str, saved: Any, trusted: Sequence[str] = ()) -> None:
    """Look at a config that a checkpoint brings along before anything is built from it.

    Args:
        path: the checkpoint.
        key: ``model`` or ``data``.
        saved: its config.
        trusted: packages of the user's own.

    Raises:
        ConfigError: it names something that may not be built, or a key that nothing consumes.
    """
    if problems := check_plain({key: saved}) or check_targets({key: saved}, trusted):
        lines = "\n".join(f"  {line}" for line in problems)
        newer = "\n  a newer version may have written it: upgrade neuro_lightning" * ("takes no such" in lines)
        raise ConfigError(f"{path} cannot be used:\n{lines}{newer}")


def load_checkpoint(path: str | Path, *, trusted: list[str] | tuple[str, ...] = ()) -> Saved:
    """Rebuild a trained model from its file alone.

    Args:
        path: a checkpoint or a run's folder.
        trusted: packages of your own that the checkpoint may build from.

    Raises:
        CheckpointError: missing, damaged, or its weights do not fit its own description.
        DivergedError: its weights are not finite.
        ConfigError: its model is none that may be built.
    """
    path = find_checkpoint(path)
    content = read_checkpoint(path)
    recipe = content[CHECKPOINT_KEY]
    check_saved(path, "model", recipe.get("model"), trusted)
    try:
        spec = DataSpec.from_dict(recipe["spec"])
        model = instantiate(OmegaConf.create(recipe["model"]), trusted=trusted, spec=spec)
        weights = {k: v for k, v in content["state_dict"].items() if k.startswith("net.")}
        model.load_state_dict(weights, strict=False)
        missing = set(model.net.state_dict()) - {k.removeprefix("net.") for k in weights}
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: the weights do not fit the model they are said to be of: {error}") from None
    if missing:
        raise CheckpointError(f"{path} lacks the weights {sorted(missing)}")
    if wild := [name for name, weight in model.net.named_parameters() if not (weight.abs() < LARGEST_WEIGHT).all()]:
        raise DivergedError(
            f"{path}: the weights {', '.join(wild[:3])} are not finite or beyond {LARGEST_WEIGHT:g}: the training had "
            "diverged; take another checkpoint of the run, or train anew with a lower learning rate"
        )
    fitted = tuple(recipe.get("fitted_on", ("train",)))
    return Saved(path, model.eval(), spec, recipe["data"], recipe.get("info", {}), fitted, identity_of(recipe))
