"""The private names of other libraries that this package cannot do without, all in one place.

An upgrade may move or change a private name without notice. ``tests/test_private_names.py`` therefore checks each of
them, and that no other module uses one. ``pyproject.toml`` pins the libraries to a minor version. Nothing heavy
is imported here.
"""

# Hydra's own launchers name their loggers after the module that launches. A sweep shortens what these loggers say.
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher"
LAUNCHER_LOGGERS = (
    BASIC_LAUNCHER, "hydra_plugins.hydra_joblib_launcher._core", "hydra_plugins.hydra_ray_launcher._core",
)  # fmt: skip
