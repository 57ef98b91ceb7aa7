"""One architecture a file: its network and its LightningModule."""
