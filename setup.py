"""List the packages, which pyproject.toml cannot do: those that are found, and conf/, which lies elsewhere."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["neuro_lightning*"]), "neuro_lightning.conf"])
