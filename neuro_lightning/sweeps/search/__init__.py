"""Searches by Optuna: the study, its trials, and what prunes them."""
