"""The Hydra config groups; a package so that a wheel can carry them."""
