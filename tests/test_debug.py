"""``debug=fast`` is fast whatever else is chosen."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

CONF = Path(__file__).parents[1] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml") if path.stem[0] != "_")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_is_one_epoch_of_three_batches(experiment):
    with initialize_config_dir(str(CONF)):
        trainer = compose("train", overrides=[f"experiment={experiment}", "debug=fast"]).trainer
    assert (trainer.max_epochs, trainer.check_val_every_n_epoch, trainer.limit_train_batches) == (1, 1, 3)
    assert trainer.accelerator == "cpu"
