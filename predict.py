"""Write a submission from a checkpoint: ``python predict.py ckpt=outputs/...``."""

from neuro_lightning.cli import predict

if __name__ == "__main__":
    predict()
