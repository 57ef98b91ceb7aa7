"""A trained model in an experiment: one bin at a time."""
