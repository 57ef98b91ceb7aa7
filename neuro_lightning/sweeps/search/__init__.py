"""Searches by Optuna: the study, its trials and its pruners."""
