"""What a config may build: all that can be reached is known, and all else is refused before it runs."""

import contextlib
import pkgutil
import sys
from importlib import import_module

import pytest
from omegaconf import OmegaConf

from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.config import check_config, check_targets, instantiate
from neuro_lightning.settings.registry import CLASSES, HYDRA_NAMES, NAMED, derives, find_target
from neuro_lightning.settings.settings import TrainSettings

# classes of libraries whose constructors or later calls write files, open connections or call what they are given: each
# was looked at, and none runs code that a config could bring along
LIGHTNING = {
    "": "Trainer",
    ".callbacks": """BackboneFinetuning BaseFinetuning BasePredictionWriter BatchSizeFinder Callback Checkpoint
        DeviceStatsMonitor EMAWeightAveraging EarlyStopping GradientAccumulationScheduler LambdaCallback
        LearningRateFinder LearningRateMonitor ModelCheckpoint ModelPruning ModelSummary OnExceptionCheckpoint
        ProgressBar RichModelSummary RichProgressBar SpikeDetection StochasticWeightAveraging TQDMProgressBar
        ThroughputMonitor Timer WeightAveraging""",
    ".loggers": "CSVLogger CometLogger LitLogger Logger MLFlowLogger NeptuneLogger TensorBoardLogger WandbLogger",
    ".strategies": """DDPStrategy DeepSpeedStrategy FSDPStrategy ModelParallelStrategy ParallelStrategy
        SingleDeviceStrategy SingleDeviceXLAStrategy Strategy XLAStrategy""",
    ".profilers": "AdvancedProfiler PassThroughProfiler Profiler PyTorchProfiler SimpleProfiler XLAProfiler",
    ".plugins": """AsyncCheckpointIO BitsandbytesPrecision CheckpointIO ClusterEnvironment DeepSpeedPrecision
        DoublePrecision FSDPPrecision HalfPrecision KubeflowEnvironment LSFEnvironment LayerSync LightningEnvironment
        MPIEnvironment MixedPrecision Precision SLURMEnvironment TorchCheckpointIO TorchElasticEnvironment
        TorchSyncBatchNorm TransformerEnginePrecision XLACheckpointIO XLAEnvironment XLAPrecision""",
}
# of this package, beside networks and their parts (neuro_lightning.models and .nn)
OWN = {
    "callbacks": """Checkpoint StopOnSignal EMA Explore Figures FitProgress Pause Prune SWA StepClock StepSeed
        WeightAverage""",
    "data": """AntolikV1 ArrayImages ArraySpikes ArrayTraces BrainWideBench Brainset ChaoticRNN ImageDataModule LFADSH5
        Lorenz NLB NWB NaturalImages Orientations Sessions PopulationDataModule SimulatedDataModule SpikeFileDataModule
        Spontaneous TraceDataModule TwinDataModule UWNDC19""",
    "runs.distributed": "JobDDPStrategy",
    "metrics": """Agreement AngleError BitsPerSpike DecodedClass DecodedR2 PoissonD2 PsthR2 RatesR2 RepeatedResponses
        SumMetric TpCorrelation TraceErrors TrialMetric VelocityR2""",
    "optim": "SAM",
}
PACKAGES = ("neuro_lightning", "torch.nn", "torch.optim", "pytorch_lightning", "lightning_fabric", "torchmetrics",
            "optuna", "hydra", "omegaconf", "logging", "os", "subprocess", "builtins")  # fmt: skip


@pytest.fixture(scope="module")
def reached():
    """Every name of every module that is imported here, and of this package's own, that ``find_target`` gives."""
    own = import_module("neuro_lightning")
    for module in pkgutil.walk_packages(own.__path__, "neuro_lightning."):
        import_module(module.name)
    for module in CLASSES:
        import_module(module)
    found = {}
    for module in [m for m in list(sys.modules) if m.startswith(PACKAGES)]:
        for name in {*vars(sys.modules[module]), *getattr(sys.modules[module], "__all__", ())}:
            with contextlib.suppress(ConfigError):
                found[f"{module}.{name}"] = find_target(f"{module}.{name}")
    return found


def test_all_that_can_be_reached_is_a_class_of_a_known_kind(reached):
    assert len(reached) > 500
    bases = {base for rule in CLASSES.values() for base in rule.bases}
    homes = (*CLASSES, "lightning_fabric.plugins")
    for name, found in reached.items():
        if name in NAMED:
            continue
        assert isinstance(found, type) and derives(found, *bases), f"{name} is no class of a known kind"
        assert found.__module__.startswith(homes), f"{name} is defined in {found.__module__}"
        assert not found.__name__.startswith("_") and name.endswith(f".{found.__name__}"), name


def test_nothing_new_can_be_reached(reached):
    """Look at what a class does with its arguments (files, commands, functions), then name it here."""
    for package, names in LIGHTNING.items():
        known, home = set(names.split()), f"pytorch_lightning{package}"
        new = {n.rpartition(".")[2] for n in reached if n.startswith(f"{home}.") and (package or n.count(".") == 1)}
        assert new <= known, f"new in {home}: {sorted(new - known)}"
    for package, names in OWN.items():
        home = f"neuro_lightning.{package}"
        new = {n.rpartition(".")[2] for n in reached if n.startswith(f"{home}.") and n not in NAMED}
        assert new == set(names.split()), f"changed in {home}: {sorted(new ^ set(names.split()))}"
    rest = {n for n in reached.keys() - NAMED if not n.startswith(("neuro_lightning.", "pytorch_lightning."))}
    prefixes = ("torch.nn.", "torch.optim.", "torchmetrics.", "optuna.samplers.")
    assert all(n.startswith(prefixes) for n in rest), sorted(n for n in rest if not n.startswith(prefixes))
    parts = [n for n in reached if n.startswith(("neuro_lightning.models.", "neuro_lightning.nn."))]
    assert 60 <= len(parts) <= 110, f"{len(parts)} networks and parts; raise the bound if they are meant to be there"


def test_what_is_named_is_there_and_callable():
    for name in NAMED:
        assert callable(find_target(name))
    assert not any(name.startswith(("logging.config", "hydra._internal", "hydra.utils")) for name in HYDRA_NAMES)


def test_hydra_builds_no_launcher_or_sweeper_but_those_that_are_registered():
    from hydra.core.plugins import Plugins
    from hydra.plugins.launcher import Launcher
    from hydra.plugins.sweeper import Sweeper

    from neuro_lightning.cli import LAUNCHERS, SWEEPERS, _register_plugins

    for kind, own in ((Launcher, LAUNCHERS), (Sweeper, SWEEPERS)):
        with _register_plugins(()):
            names = {f"{cls.__module__}.{cls.__qualname__}" for cls in Plugins.instance().discover(kind)}
        assert {f"{cls.__module__}.{cls.__qualname__}" for cls in own} <= names
        assert all(name.startswith(("neuro_lightning.sweeps.", "hydra.", "hydra_plugins.")) for name in names)


ATTEMPTS = [
    # proven once
    "pytorch_lightning.cli.instantiate_class", "pytorch_lightning.__setup__._load_py_module",
    "pytorch_lightning.LightningModule.load_from_checkpoint", "torch.nn.attention._fa3.register_flash_attention_fa3",
    "neuro_lightning.models.gru.GRU.load_from_checkpoint", "neuro_lightning.artifacts.records._git",
    "neuro_lightning.settings.config.instantiate", "shutil.rmtree",
    # their like
    "neuro_lightning.models.base.PopulationModule.load_from_checkpoint", "neuro_lightning.artifacts.records.git_state",
    "neuro_lightning.artifacts.records.RunRecord", "neuro_lightning.artifacts.records.write_json",
    "neuro_lightning.artifacts.records.subprocess.run",
    "neuro_lightning.cli.train", "neuro_lightning.runs.train.train", "neuro_lightning.runs.train.instantiate",
    "neuro_lightning.settings.registry.find_target", "neuro_lightning.settings.registry.import_module",
    "neuro_lightning.runs.factory.instantiate", "neuro_lightning.models.loading.load_checkpoint",
    "neuro_lightning.runs.distributed.JobLauncher", "neuro_lightning.runs.distributed.DDPStrategy",
    "neuro_lightning.runs.distributed.write_job_settings", "neuro_lightning.runs.distributed.subprocess.Popen",
    "neuro_lightning.sweeps.launchers.Slurm", "neuro_lightning.sweeps.launchers.Task",
    "neuro_lightning.artifacts.studies.open_storage", "neuro_lightning.artifacts.atomic.atomic_path",
    "neuro_lightning.submission.write.write_submission", "neuro_lightning.data.nlb.download.Path",
    "neuro_lightning.data.module.DataLoader", "neuro_lightning.models.gru.nn.Linear",
    "neuro_lightning.models.warm_start.read_network", "neuro_lightning.models.gru.PopulationModule",
    "neuro_lightning.callbacks.figures.pl.Trainer", "neuro_lightning.callbacks.checkpoint.ModelCheckpoint",
    "neuro_lightning.__builtins__.eval", "neuro_lightning.models.gru.__builtins__",
    "torch.load", "torch.save", "torch.hub.load", "torch.serialization.load", "torch.utils.cpp_extension.load",
    "torch.jit.load", "torch.nn.functional.relu", "torch.nn.utils.parametrize.register_parametrization",
    "torch.nn.Module.load_state_dict", "torch.nn.init.constant_", "torch.nn.modules.module.Module.apply",
    "torch.nn.quantized.Linear", "torch.nn.parallel.DistributedDataParallel",
    "torch.nn.factory_kwargs", "torch.nn.Parameter",
    "torch.optim.swa_utils.AveragedModel", "torch.optim.lr_scheduler.Optimizer",
    "torch.optim.Optimizer.load_state_dict",
    "torch.distributed.init_process_group", "torchmetrics.text.BERTScore", "torchmetrics.functional.accuracy",
    "torchmetrics.image.fid.FrechetInceptionDistance", "torchmetrics.MetricCollection",
    "pytorch_lightning.seed_everything", "pytorch_lightning.LightningDataModule", "pytorch_lightning.cli.LightningCLI",
    "pytorch_lightning.callbacks.ModelCheckpoint.setup", "pytorch_lightning.loggers.wandb.WandbLogger.save",
    "pytorch_lightning.utilities.cloud_io.get_filesystem", "pytorch_lightning.core.saving._load_from_checkpoint",
    "lightning_fabric.utilities.cloud_io._load", "hydra.utils.instantiate", "hydra.utils.get_method",
    "hydra.compose", "omegaconf.OmegaConf.load", "optuna.load_study", "optuna.storages.JournalStorage",
    "hydra_plugins.hydra_optuna_sweeper._impl.create_nsgaii_sampler", "logging.config.dictConfig",
    "logging.FileHandler",
    "os.system", "subprocess.check_output", "builtins.eval", "builtins.open", "importlib.import_module",
    "functools.partial", "pathlib.Path.unlink", "pickle.loads", "runpy.run_path", "pip.main",
    # no names at all
    "Adam", "", ".", "torch.optim.", ".torch.optim.Adam", "torch..optim.Adam", "torch.optim.Adam\n",
    " torch.optim.Adam", "torch.optim.Adam ", "torch.\u043eptim.Adam", "torch.optim.Adam()", "torch/optim.Adam",
    "../a.b", 3, None, True, ["torch.optim.Adam"],
]  # fmt: skip


@pytest.mark.parametrize("name", ATTEMPTS, ids=str)
def test_no_other_name_is_found(name):
    before = set(sys.modules)
    with pytest.raises(ConfigError) as caught:
        find_target(name)
    assert len(str(caught.value).strip().splitlines()) == 1
    new = {module.split(".")[0] for module in set(sys.modules) - before}
    assert not new & {"shutil", "pip", "runpy", "cpp_extension"}, "a name that is refused imports nothing"
    for config in ({"_target_": name}, {"a": [{"b": {"_target_": name, "_partial_": True}}]}):
        with pytest.raises(ConfigError):
            instantiate(OmegaConf.create(config))
        with pytest.raises(ConfigError):
            instantiate(config)


def test_a_name_is_found_where_its_library_defines_it_too():
    from torch.optim import Adam

    assert find_target("torch.optim.Adam") is find_target("torch.optim.adam.Adam") is Adam
    assert find_target("pytorch_lightning.callbacks.early_stopping.EarlyStopping") is find_target(
        "pytorch_lightning.callbacks.EarlyStopping"
    )


@pytest.mark.parametrize(
    "config",
    [
        {"_target_": "pytorch_lightning.cli.instantiate_class", "args": [],
         "init": {"class_path": "builtins.open", "init_args": {"file": "HARM", "mode": "w"}}},
        {"_target_": "neuro_lightning.settings.config.instantiate", "trusted": ["pathlib"],
         "cfg": {"_target_": "pathlib.Path.touch", "self": "HARM"}},
        {"_target_": "neuro_lightning.artifacts.records._git", "_args_": [".", "-c", "alias.x=!touch HARM", "x"]},
        {"_target_": "torch.nn.Linear", "_args_": [2, 3]},
        {"_target_": "torch.nn.Linear", "in_features": {"_target_": "builtins.open", "file": "HARM", "mode": "w"}},
        {"_target_": "torch.nn.Linear", "_recursive_": False, "in_features": 1, "out_features": 1},
        {"_target_": "torch.nn.Sequential", "_execution_whitelist_": ["builtins.*"],
         "a": {"_target_": "builtins.open", "file": "HARM", "mode": "w"}},
        {"name": "builtins.open", "x": {"_target_": "${name}", "file": "HARM", "mode": "w"}},
        {"x": "${oc.create:{_target_: builtins.open, file: HARM, mode: w}}"},
        {"x": {"${oc.decode:_target_}": "builtins.open", "_target_": "builtins.open", "file": "HARM", "mode": "w"}},
        [{"_target_": "builtins.open", "file": "HARM", "mode": "w"}],
        {"_target_": "neuro_lightning.optim.SAM", "base": {"_target_": "builtins.open", "_partial_": True}},
    ],
)  # fmt: skip
def test_nothing_else_is_called(tmp_path, monkeypatch, config):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        instantiate(OmegaConf.create(config))
    assert len(str(caught.value).splitlines()) == 1 and not list(tmp_path.iterdir())


def test_an_interpolation_cannot_change_its_mind(tmp_path, monkeypatch):
    """Checked under one name, Hydra meets another when it resolves the config again."""
    monkeypatch.chdir(tmp_path)
    names = iter(["torch.nn.Identity", *["pathlib.PosixPath"] * 9])
    OmegaConf.register_resolver("turncoat", lambda: next(names), replace=True)
    try:
        with pytest.raises(ConfigError, match="pathlib"):
            instantiate(OmegaConf.create({"_target_": "${turncoat:}"}))
    finally:
        OmegaConf.clear_resolver("turncoat")


def test_each_part_of_a_config_holds_its_own_kind():
    def wrong(**config):
        return "\n".join(check_targets(OmegaConf.create(config)))

    adam = {"_target_": "torch.optim.Adam", "_partial_": True}
    assert "Adam is no PopulationModule" in wrong(model=adam)
    assert "torch.optim.Adam is nothing that data is made of" in wrong(data=adam)
    assert "GRU is no Callback" in wrong(callbacks={"a": {"_target_": "neuro_lightning.models.gru.GRU"}})
    csv = {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": "x"}
    assert "is nothing that model is made of" in wrong(model={**adam, "optimizer": csv})
    cfg = OmegaConf.create({"model": {**adam, "_args_": [1]}, "trusted": []})
    with pytest.raises(ConfigError, match=r"model\._args_: no config may have this key"):
        check_config(cfg, known=TrainSettings.config_keys())


def test_a_trusted_package_brings_nothing_but_what_it_defines(tmp_path, monkeypatch):
    (tmp_path / "my_own_lab.py").write_text(
        "import os\nfrom os import system\nfrom shutil import rmtree as remove\n"
        "class Net: pass\ndef make(): return Net()\nTABLE = {}\nclass _Net: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"my_own_lab.Net is not in a trusted package; add trusted=\[my_own_lab\]"):
        find_target("my_own_lab.Net")
    assert "my_own_lab" not in sys.modules, "it is not even imported"
    for name in ("Net", "make"):
        assert find_target(f"my_own_lab.{name}", ["my_own_lab"]).__name__ == name
    for name in ("os.system", "system", "remove", "TABLE", "_Net", "Net.__init__", "nothing", "os"):
        with pytest.raises(ConfigError, match=f"my_own_lab.{name}"):
            find_target(f"my_own_lab.{name}", ["my_own_lab"])
    with pytest.raises(ConfigError, match="my_own_laboratory"):
        find_target("my_own_laboratory.Net", ["my_own_lab"])


def test_a_package_that_is_not_found_says_how_to_be_found():
    with pytest.raises(ConfigError, match=r"nobodys_lab\.nets\.Net cannot be imported: .*set PYTHONPATH to the folder"):
        find_target("nobodys_lab.nets.Net", ["nobodys_lab"])
