"""Figures, TensorBoard, and loggers that a config may build."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger, MLFlowLogger
from wandb_files import artifacts, build, history, no_account, read_wandb, run_record, summary  # noqa: F401

from neuro_lightning.errors import ConfigError
from neuro_lightning.loggers.building import (
    close_loggers,
    log_figure,
    log_references,
    log_summary,
)

CONF = Path(__file__).parent.parent / "conf" / "logger"


def test_figures_reach_wandb_and_tensorboard(tmp_path):
    from matplotlib.figure import Figure
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"csv": {}, "wandb": {"project": "p", "entity": None, "mode": "auto"}, "tensorboard": {}}
    loggers = build(tmp_path, options)
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.add_subplot().plot([0, 1])
    figure.savefig(tmp_path / "rates.png")
    log_figure(loggers, "figures/rates", tmp_path / "rates.png", step=7)
    log_figure(loggers, "figures/curve", tmp_path / "rates.png", step=8)
    loggers[2].log_metrics({"val/loss": 1.0}, step=7)
    close_loggers(loggers)

    rows = history(read_wandb(tmp_path)[0])
    assert [row["trainer/global_step"] for row in rows] == [7, 8]
    assert rows[0]["figures/rates/width"] == 100
    assert len(list(tmp_path.rglob("media/images/figures/*.png"))) == 2
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert (events.Images("figures/curve")[0].width, events.Images("figures/curve")[0].step) == (100, 8)
    assert events.Scalars("val/loss")[0].value == 1.0
    assert (tmp_path / "metrics.csv").read_text() == "step,epoch\n"


@pytest.mark.parametrize(("kind", "count"), [("csv", 1), ("wandb", 2), ("tensorboard", 2), ("none", 0)])
def test_the_configs(tmp_path, kind, count):
    own = yaml.safe_load((CONF / f"{kind}.yaml").read_text())
    defaults = own.pop("defaults", [])
    options = {k: v for name in defaults for k, v in yaml.safe_load((CONF / f"{name}.yaml").read_text()).items()} | own
    loggers = build(tmp_path, options)
    assert len(loggers) == count and (tmp_path / "metrics.csv").exists() == (kind != "none")
    close_loggers(loggers)


def test_tensorboard_has_hyperparameters_and_final_values(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    loggers = build(tmp_path, {"tensorboard": {}}, config={"model": {"hidden": 8}, "tags": ["a"], "name": None})
    loggers[0].log_metrics({"val/co_bps": 0.1}, step=3)
    log_summary(loggers, {"val/co_bps": 0.3, "test/co_bps": 0.25, "objective": 0.3, "status": "finished", "x": None})
    close_loggers(loggers)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("val/co_bps")] == pytest.approx([0.1])
    for name, value in {"best/val/co_bps": 0.3, "test/co_bps": 0.25, "objective": 0.3}.items():
        assert events.Scalars(name)[0].value == pytest.approx(value)
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert HParamsPluginData.FromString(content).session_start_info.hparams["model/hidden"].number_value == 8


class OwnLogger(Logger):
    name, version = "own", 0

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def log_hyperparams(self, params):
        self.seen.append(params)

    def log_metrics(self, metrics, step=None):
        self.seen.append(metrics)


class Server(MLFlowLogger):
    """MLflow's logger without its server."""

    run_id, experiment = "r", None

    def __init__(self, run_name):
        self.figures, self.metrics, self.run_name = [], [], run_name
        self.experiment = SimpleNamespace(log_artifact=lambda *words: self.figures.append(words))

    def log_hyperparams(self, params):
        self.params = params

    def log_metrics(self, metrics, step=None):
        self.metrics.append((metrics, step))


def test_mlflow_gets_name_sizes_lines_and_figures(tmp_path):
    options = {"mlflow": {"_target_": f"{__name__}.Server", "run_name": None}}
    (logger,) = build(tmp_path, options, config={"trusted": [__name__]}, sizes={"parameters": 3}, swept={"seed": 1})
    log_figure([logger], "figures/rates", tmp_path / "rates.png", step=7)
    log_references([logger], {"oracle/val/co_bps": 0.3, "baseline/a/val/co_bps": float("nan")}, last_step=9)
    assert logger.run_name == "gru-lorenz-0" and logger.figures == [("r", str(tmp_path / "rates.png"), "figures")]
    assert logger.params == {"trusted": [__name__], "size/parameters": 3, "sweep/seed": 1}
    assert logger.metrics == [({"oracle/val/co_bps": 0.3}, 0), ({"oracle/val/co_bps": 0.3}, 9)]


def test_any_logger_that_a_config_may_build(tmp_path):
    here = __name__
    options = {"mine": {"_target_": f"{here}.OwnLogger", "folder": str(tmp_path)}}
    with pytest.raises(ConfigError, match="not in a trusted package"):
        build(tmp_path, options)
    (logger,) = build(tmp_path, options, config={"trusted": [here], "seed": 3})
    log_summary([logger], {"val/loss": 1.0, "status": "finished"})
    close_loggers([logger])
    assert logger.folder == str(tmp_path) and logger.seen == [{"trusted": [here], "seed": 3}, {"best/val/loss": 1.0}]


@pytest.mark.parametrize(
    ("kind", "module", "package"), [("mlflow", "mlflow", "mlflow"), ("comet", "comet_ml", "comet-ml")]
)
def test_a_missing_package_is_named_for_pip(tmp_path, kind, module, package):
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    with initialize_config_module("conf", version_base=None):
        cfg = compose("train", [f"logger={kind}", f"paths.output_dir={tmp_path}"])
    options = OmegaConf.to_container(cfg.logger, resolve=True)
    assert kind == "comet" or str(tmp_path) in str(options[kind])  # Comet is told by its environment
    with pytest.raises(ConfigError, match=f"logger.{kind} needs a package: pip install {package}$"):
        build(tmp_path, options)


def test_wrong_options(tmp_path):
    with pytest.raises(ConfigError, match=r"logger.wnb: no such logger; there are csv, wandb, tensorboard"):
        build(tmp_path, {"wnb": {}})
    with pytest.raises(
        ConfigError, match=r"logger.wandb.projekt: no such option; it takes project, entity, mode, checkp"
    ):
        build(tmp_path, {"wandb": {"projekt": "a"}})
    with pytest.raises(ConfigError, match=r"logger.wandb.mode=on: no such mode"):
        build(tmp_path, {"wandb": {"mode": "on"}})
    with pytest.raises(ConfigError, match=r"logger.wandb.checkpoint=best: give online, true or false"):
        build(tmp_path, {"wandb": {"checkpoint": "best"}})
