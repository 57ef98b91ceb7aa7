"""What all sweepers share: they propose jobs, and the chosen Hydra launcher runs them."""

from __future__ import annotations

from pathlib import Path

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class BaseSweeper(Sweeper):
    """A sweeper with Hydra's config loader, the sweep's folder and its launcher."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Build the launcher; Hydra calls this before :meth:`sweep`."""
        from hydra.core.plugins import Plugins

        self.config, self.loader = config, hydra_context.config_loader
        self.folder = Path(config.hydra.sweep.dir)
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )
