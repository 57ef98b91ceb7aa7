"""The separable readout of NDN3: what a unit reads times where it reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.regularizers import SPATIAL, penalties


class SeparableLinear(nn.Module):
    """Each unit's weights are the outer product of a feature vector (F,) and a spatial mask (H, W).

    The feature vector has unit norm whenever it is used, so that the mask carries the scale (NDN3's default).

    Args:
        in_shape: (F, H, W) of the map that is read.
        units: units U.
    """

    def __init__(self, in_shape: Sequence[int], units: int) -> None:
        super().__init__()
        filters, height, width = in_shape
        self.feature = nn.Parameter(torch.empty(units, filters))
        self.spatial = nn.Parameter(torch.empty(units, height, width))
        self.bias = nn.Parameter(torch.empty(units))

    def normalised(self) -> Tensor:
        """(U, F) feature vectors of unit norm."""
        return F.normalize(self.feature, dim=1)

    @property
    def weight(self) -> Tensor:
        """The outer products, (U, F, H, W)."""
        return torch.einsum("uf,uhw->ufhw", self.normalised(), self.spatial)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, F, H, W) -> (B, U)."""
        return F.linear(maps.flatten(1), self.weight.flatten(1), self.bias)

    def penalties(self, strengths: Mapping[str, float]) -> dict[str, Tensor]:
        """Penalties as NDN3 defines them on separable weights.

        ``l1``, ``l2`` and ``norm2`` take the normalised feature vector and the mask together; ``d2x``, ``max_space``
        and ``center`` the mask, ``max_filt`` the feature vector.

        Raises:
            ConfigError: ``max`` or ``group``, which are not defined for them.
        """
        terms: dict[str, Tensor] = {}
        for name, strength in strengths.items():
            if name in ("max", "group"):
                raise ConfigError(f"reg.{name} is not defined for a separable layer; take max_filt, max_space or l1")
            feature, mask = self.normalised()[:, :, None, None], self.spatial[:, None]
            if name in SPATIAL:
                part = mask
            elif name == "max_filt":
                part = feature
            else:
                part = torch.cat([feature.flatten(1), mask.flatten(1)], dim=1)[:, :, None, None]
            terms |= penalties(part, {name: strength})
        return terms
