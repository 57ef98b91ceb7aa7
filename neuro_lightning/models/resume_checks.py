"""Whether a run can be resumed from a checkpoint: with the same data, and with the same model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.identity import Identity
from neuro_lightning.data.same_data import differences
from neuro_lightning.errors import CheckpointError
from neuro_lightning.nn.sessions_net import first_difference


def check_same_data(saved: Mapping[str, Any], spec: DataSpec, identity: Identity | None) -> None:
    """Refuse other data than the run was started with.

    Args:
        saved: what the checkpoint says of them: ``spec``, and ``identity`` unless it is older.
        spec: the description of the data.
        identity: of the data; None for a model without a config.

    Raises:
        CheckpointError: naming what differs.
    """
    found = differences(saved["identity"], identity) if identity and saved.get("identity") else []
    theirs = DataSpec.from_dict(saved["spec"]).to_dict() if "spec" in saved else {}
    own = _without_new_keys(spec.to_dict(), saved.get("spec", {}))
    described = [(key, theirs.get(key), value) for key, value in own.items() if theirs.get(key) != value]
    for key, one, other in [*found, *described]:
        raise CheckpointError(
            f"the checkpoint cannot be resumed with these data: {key} was {one!s:.120} and is {other!s:.120}; resume "
            "with the data that it was trained on, or train anew"
        )


def _without_new_keys(own: dict[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """A description with what an older version did not say of data left as it is by default, session by session."""
    if not saved:
        return own
    default = DataSpec("").to_dict()
    found = {key: value if key in saved else default[key] for key, value in own.items()}
    parts = zip(own["sessions"], saved.get("sessions", ()), strict=False)
    return {**found, "sessions": [_without_new_keys(*pair) for pair in parts]} if saved.get("sessions") else found


def check_same_weights(saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse the weights of another model.

    Raises:
        CheckpointError: naming the first that has another shape.
    """
    if different := first_difference(saved, own):
        name, *shapes = different
        raise CheckpointError(
            f"the checkpoint does not fit the model: {name} has the shape {shapes[0]} in it and {shapes[1]} here; "
            "resume with the model that it is of"
        )
