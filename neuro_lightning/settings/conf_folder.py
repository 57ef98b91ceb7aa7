"""Where this package's configs lie."""

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2] / "conf"
CONF = str(_CHECKOUT) if (_CHECKOUT / "train.yaml").is_file() else "pkg://neuro_lightning.conf"
"""The folder ``conf`` of a checkout, or the copy inside an installed package, as Hydra's ``config_path``."""
