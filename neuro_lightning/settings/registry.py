"""What a config may build: classes of known kinds, and the few functions that are named here.

Configs come from experiment files, sweeps and checkpoints, which others may have written. A name in one of them builds
something only if it is listed in :data:`NAMED`, or is a public class that derives from one of the bases that
:data:`CLASSES` gives for its module, or lies in a package that the user has named on the command line
(``trusted=[my_package]``). Methods, private names and what a module has merely imported are never reached. Nothing is
imported before its module is known to be one of these.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any, NamedTuple

from neuro_lightning.artifacts.old_names import MOVED
from neuro_lightning.errors import ConfigError
from neuro_lightning.private_names import OPTUNA_SAMPLER

MODULE = "torch.nn.modules.module.Module"
OPTIMIZER = "torch.optim.optimizer.Optimizer"
SCHEDULE = "torch.optim.lr_scheduler.LRScheduler"
METRIC = "torchmetrics.metric.Metric"
TRAINER = "pytorch_lightning.trainer.trainer.Trainer"
CALLBACK = "pytorch_lightning.callbacks.callback.Callback"
LOGGER = "pytorch_lightning.loggers.logger.Logger"
STRATEGY = "pytorch_lightning.strategies.strategy.Strategy"
PROFILER = "pytorch_lightning.profilers.profiler.Profiler"
PLUGINS = (
    "pytorch_lightning.plugins.precision.precision.Precision", "lightning_fabric.plugins.io.checkpoint_io.CheckpointIO",
    "lightning_fabric.plugins.environments.cluster_environment.ClusterEnvironment",
    "pytorch_lightning.plugins.layer_sync.LayerSync",
)  # fmt: skip
MODEL = "neuro_lightning.models.base.PopulationModule"
DATA = "neuro_lightning.data.module.PopulationDataModule"
DISTORTION = "neuro_lightning.nn.augment.Distortion"


class Rule(NamedTuple):
    """Which classes of a module may be built.

    Attributes:
        bases: a class derives from one of these.
        defined: packages in which it is defined; by default the module's own.
        below: whether the modules below count, too.
    """

    bases: tuple[str, ...]
    defined: tuple[str, ...] = ()
    below: bool = False


CLASSES = {
    "neuro_lightning.models": Rule((MODEL,), below=True),
    "neuro_lightning.nn": Rule((MODULE, DISTORTION), below=True),
    "neuro_lightning.optim": Rule((OPTIMIZER,)),
    "neuro_lightning.data": Rule((DATA,), below=True),
    "neuro_lightning.metrics": Rule((METRIC,), below=True),
    "neuro_lightning.callbacks": Rule((CALLBACK,), below=True),
    "neuro_lightning.runs.distributed": Rule((STRATEGY,)),
    "torch.nn": Rule((MODULE,)),
    "torch.optim": Rule((OPTIMIZER,)),
    "torch.optim.lr_scheduler": Rule((SCHEDULE,)),
    # metrics of texts, images and sounds load networks from files and from the net
    **dict.fromkeys(
        ("torchmetrics", "torchmetrics.regression", "torchmetrics.classification", "torchmetrics.aggregation"),
        Rule((METRIC,), ("torchmetrics.regression", "torchmetrics.classification", "torchmetrics.aggregation")),
    ),
    "pytorch_lightning": Rule((TRAINER,)),
    "pytorch_lightning.callbacks": Rule((CALLBACK,)),
    "pytorch_lightning.loggers": Rule((LOGGER,)),
    "pytorch_lightning.strategies": Rule((STRATEGY,)),
    "pytorch_lightning.profilers": Rule((PROFILER,)),
    **dict.fromkeys(
        ("pytorch_lightning.plugins", *(f"pytorch_lightning.plugins.{p}" for p in ("precision", "environments", "io"))),
        Rule(PLUGINS, ("pytorch_lightning.plugins", "lightning_fabric.plugins")),
    ),
    "optuna.samplers": Rule((OPTUNA_SAMPLER,)),
}
# functions, and classes that derive from nothing
NAMED = frozenset(
    [f"neuro_lightning.losses.{name}" for name in (
        "auto", "auto_normalised", "gamma", "gaussian", "gaussian_variance", "mse", "none", "poisson",
        "poisson_normalised", "zero_inflated_gamma",
    )]
    + [f"neuro_lightning.optim.{name}" for name in ("cosine", "plateau")]
    + [f"neuro_lightning.sweeps.search.pruners.{name}" for name in ("halving", "hyperband", "median", "patient")]
    + ["neuro_lightning.data.synthetic.simulate.Sizes", "neuro_lightning.models.lfads.Sizes"]
    + [f"neuro_lightning.nn.step_transformer.{name}" for name in ("Attention", "Dropouts")]
    + ["neuro_lightning.nn.readin.ReadInSettings", "neuro_lightning.nn.rate_readout.ReadoutSettings"]
    + ["neuro_lightning.models.stndt.Contrast", "neuro_lightning.models.adaptation.Adaptation"]
    + ["neuro_lightning.nn.heads.HeadSettings"]
)  # fmt: skip
# what Hydra's own part of a config may build, beside launchers and sweepers, which are registered with Hydra
HYDRA_NAMES = (
    "neuro_lightning.artifacts.folders.ClaimFolder", "neuro_lightning.sweeps.results.callback.SweepTable",
    "hydra.experimental.callbacks.LogJobReturnCallback",
    "logging.NullHandler", "logging.handlers.RotatingFileHandler", "logging.handlers.TimedRotatingFileHandler",
)  # fmt: skip
# what a key of a config holds; `*` stands for any name
KINDS = {
    "model": MODEL, "baselines.*": MODEL, "data": DATA, "trainer": TRAINER, "callbacks.*": CALLBACK,
    "adapt": "neuro_lightning.models.adaptation.Adaptation",
}  # fmt: skip
# where what may stand: a checkpoint's model holds no logger that writes files
PARTS = tuple(f"neuro_lightning.{name}." for name in ("models", "nn", "losses", "optim", "metrics"))
PLACES = {
    "model": (*PARTS, "torch.", "torchmetrics."),
    "baselines": (*PARTS, "torch.", "torchmetrics."),
    "data": ("neuro_lightning.data.", "neuro_lightning.nn."),
}
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def find_target(name: Any, trusted: Iterable[str] = ()) -> Any:
    """The object that a config may build under a name.

    Args:
        name: such as ``torch.optim.Adam``.
        trusted: packages of the user's own, from which everything may be built that they define.

    Raises:
        ConfigError: it may not be built, or is not there.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a class, such as torch.optim.Adam")
    if name in MOVED:
        raise ConfigError(f"{name} has moved: write {MOVED[name]}")
    module, _, last = name.rpartition(".")
    if name in NAMED:
        return _attribute(module, last, name)
    if any(part.startswith("_") for part in name.split(".")):
        raise ConfigError(f"{name} cannot be built: a part of its name begins with an underscore")
    packages = [package for package in trusted if name.startswith(f"{package}.")]
    if packages:
        found = _attribute(module, last, name)
        if not callable(found) or not _is_within(getattr(found, "__module__", None), packages):
            raise ConfigError(f"{name} cannot be built: it is no class or function that {packages[0]} defines")
        return found
    listed = _find_rule(module)
    if listed is None:
        raise ConfigError(_refusal_message(name))
    rule = CLASSES[listed]
    if module != listed and not rule.below and not hasattr(import_module(listed), last):
        raise ConfigError(_refusal_message(name))
    found = _attribute(module if rule.below else listed, last, name)
    if not isinstance(found, type) or not derives(found, *rule.bases):
        raise ConfigError(_refusal_message(name))
    # what is merely imported there is refused; the module where a library really defines a class is as good a name
    if not _is_within(found.__module__, rule.defined or (module if rule.below else listed,)):
        raise ConfigError(f"{name} cannot be built: it is defined in {found.__module__}")
    if module not in (listed, found.__module__):
        raise ConfigError(f"{name} cannot be built: its name is {listed}.{last}")
    return found


def is_out_of_place(name: str, place: str, trusted: Iterable[str] = ()) -> bool:
    """Whether a class that may be built does not belong into this part of the config.

    Args:
        name: as for :func:`find_target`.
        place: the key, such as ``model`` or ``model.optimizer``.
        trusted: packages of the user's own, which belong everywhere.
    """
    places = PLACES.get(place.partition(".")[0])
    return places is not None and not name.startswith((*places, *(f"{package}." for package in trusted)))


def derives(found: Any, *bases: str) -> bool:
    """Whether a class derives from one of these, which are given by name so that nothing needs to be imported."""
    return isinstance(found, type) and any(f"{c.__module__}.{c.__qualname__}" in bases for c in found.__mro__)


def _find_rule(module: str) -> str | None:
    """The entry of :data:`CLASSES` that rules a module, or under which a library shows its classes."""
    parts = module.split(".")
    return next((p for n in range(len(parts), 0, -1) if (p := ".".join(parts[:n])) in CLASSES), None)


def _is_within(module: str | None, packages: Iterable[str]) -> bool:
    return isinstance(module, str) and any(module == p or module.startswith(f"{p}.") for p in packages)


def _attribute(module: str, last: str, name: str) -> Any:
    try:
        return vars(import_module(module))[last]
    except KeyError:
        try:  # a package that imports its names when they are asked for
            return getattr(import_module(module), last)
        except AttributeError:
            raise ConfigError(f"{name} cannot be imported: {module} has no {last}") from None
    except Exception as error:
        package = name.split(".")[0]
        own = isinstance(error, ModuleNotFoundError) and error.name == package
        hint = f": install {package}, or set PYTHONPATH to the folder in which it lies" if own else ""
        raise ConfigError(f"{name} cannot be imported: {error}{hint}") from None


def _refusal_message(name: str) -> str:
    package = name.split(".")[0]
    if package in {"neuro_lightning", "hydra", "lightning", "lightning_fabric", *(m.split(".")[0] for m in CLASSES)}:
        return f"{name} is none of the classes that a config may build"
    if package in sys.stdlib_module_names:
        return f"{name} is not in a trusted package, and none of the classes that a config may build"
    return f"{name} is not in a trusted package; add trusted=[{package}] on the command line if you trust it"
