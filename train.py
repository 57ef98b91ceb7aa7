"""Train a model: ``python train.py model=gru data=mc_rtt``, ``-m`` for sweeps, ``--help`` for the choices."""

from neuro_lightning.cli import train

if __name__ == "__main__":
    train()
