"""From a feature map that all neurons share to each neuron's response.

Every readout takes features (B, C, H, W) and gives the linear responses (B, N). Its ``penalties()`` are means over
neurons: beside a loss per observed entry, their strength means the same for ten neurons and for ten thousand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SPREADS = {"full": (2, 2), "uncorrelated": (2,), "isotropic": (1,)}  # shape of a Gaussian's parameters


class Readout(nn.Module):
    """What all readouts share: each neuron's bias.

    Args:
        in_shape: (C, H, W) of the features.
        n_neurons: neurons N.
    """

    def __init__(self, in_shape: Sequence[int], n_neurons: int) -> None:
        super().__init__()
        self.in_shape = tuple(in_shape)
        self.bias = nn.Parameter(torch.zeros(n_neurons))

    def penalties(self) -> dict[str, Tensor]:
        """The terms to add to the loss, by name; only those with a strength."""
        return {}


class DenseReadout(Readout):
    """Every neuron weighs every feature at every place.

    Args:
        in_shape: (C, H, W) of the features.
        n_neurons: neurons N.
        dropout: of the features.
        l2: strength of each neuron's summed squared weights.
    """

    def __init__(self, in_shape: Sequence[int], n_neurons: int, *, dropout: float = 0.0, l2: float = 0.0) -> None:
        super().__init__(in_shape, n_neurons)
        self.l2, self.dropout = l2, nn.Dropout(dropout)
        n_features = in_shape[0] * in_shape[1] * in_shape[2]
        self.weight = nn.Parameter(torch.randn(n_neurons, n_features) / n_features)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) features -> (B, N)."""
        return F.linear(self.dropout(features.flatten(1)), self.weight, self.bias)

    def penalties(self) -> dict[str, Tensor]:
        """The mean over neurons of the squared weights' sum."""
        return {"l2": self.l2 * self.weight.square().sum(1).mean()} if self.l2 else {}


class FactorisedReadout(Readout):
    """Each neuron has one mask over places and one vector over features: where it looks, and for what.

    Klindt et al. 2017 (repository david-klindt/NIPS2017) and ``FullFactorized2d`` of sinzlab/neuralpredictors. The
    mask's 2-norm is 1 at every use, so that the features alone carry the scale.

    Args:
        in_shape: (C, H, W) of the features.
        n_neurons: neurons N.
        l1: strength of the product of both factors' 1-norms, which is the 1-norm of the whole weight.
        positive: masks without a negative place.
    """

    def __init__(self, in_shape: Sequence[int], n_neurons: int, *, l1: float = 0.0, positive: bool = False) -> None:
        super().__init__(in_shape, n_neurons)
        channels, height, width = in_shape
        self.l1, self.positive = l1, positive
        self.mask = nn.Parameter(torch.randn(n_neurons, height, width) / (height * width) ** 0.5)
        self.features = nn.Parameter(torch.randn(n_neurons, channels) / channels)

    def masks(self) -> Tensor:
        """(N, H, W) masks as they are used, of norm 1."""
        mask = self.mask.abs() if self.positive else self.mask
        return mask / mask.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) features -> (B, N)."""
        seen = features.flatten(2) @ self.masks().flatten(1).T
        return (seen * self.features.T).sum(1) + self.bias

    def penalties(self) -> dict[str, Tensor]:
        """The mean over neurons of the weights' 1-norm."""
        if not self.l1:
            return {}
        return {"l1": self.l1 * (self.masks().flatten(1).abs().sum(1) * self.features.abs().sum(1)).mean()}


class GaussianReadout(Readout):
    """Each neuron reads the features at one point, which is learnt.

    The point is drawn from a Gaussian in training, anew for every image, and is its mean in evaluation: the spread
    lets gradients see the surroundings of the point, and shrinks as it becomes sure (Lurz et al. 2021;
    ``FullGaussian2d`` of sinzlab/neuralpredictors). Positions are (x, y) in [-1, 1], the centers of the outermost
    pixels; features between pixels are interpolated bilinearly.

    Args:
        in_shape: (C, H, W) of the features.
        n_neurons: neurons N.
        kind: ``full`` (a 2 x 2 matrix), ``uncorrelated`` (one spread an axis) or ``isotropic`` (one spread).
        init_position: positions start uniformly in +- this.
        init_spread: spreads start at this; the entries of full matrices uniformly in +- this.
        from_cortex: hidden units of a network that predicts each position from where the neuron lies in the cortex (see
            :meth:`place_units`), so that neighbours look at neighbouring places; 0 learns each position freely.
        from_images: start the positions where the training images show the neurons to look, see
            :func:`neuro_lightning.functional.field_centers.field_centers`, instead of at random; the training does it.
        keep_inside: put a position that has left the map back to its edge in each step of the training, as published.
            A position outside has no gradient where its draws are outside, too, and may never come back.
        l1: strength of each neuron's summed absolute features.

    Raises:
        ValueError: another ``kind``, a negative ``from_cortex``, or one beside ``from_images``.
    """

    units: Tensor
    predictor: nn.Module

    def __init__(
        self,
        in_shape: Sequence[int],
        n_neurons: int,
        *,
        kind: str = "full",
        init_position: float = 0.3,
        init_spread: float = 0.1,
        from_cortex: int = 0,
        from_images: bool = False,
        keep_inside: bool = False,
        l1: float = 0.0,
    ) -> None:
        super().__init__(in_shape, n_neurons)
        if kind not in SPREADS:
            raise ValueError(f"readout.kind={kind} is none of {', '.join(SPREADS)}")
        if from_cortex < 0:
            raise ValueError(f"readout.from_cortex={from_cortex} must not be negative; 0 is none")
        if from_cortex and from_images:
            raise ValueError(
                f"readout.from_images=true starts positions that are learnt freely, readout.from_cortex={from_cortex} "
                "predicts them: choose one"
            )
        self.l1, self.keep_inside = l1, keep_inside
        self.from_cortex, self.from_images = from_cortex, from_images
        if from_cortex:
            self.register_buffer("units", torch.zeros(n_neurons, 2))
            self.predictor = nn.Sequential(nn.Linear(2, from_cortex), nn.ELU(), nn.Linear(from_cortex, 2), nn.Tanh())
        else:
            self.position = nn.Parameter(torch.empty(n_neurons, 2).uniform_(-init_position, init_position))
        spread = torch.full((n_neurons, *SPREADS[kind]), float(init_spread))
        self.spread = nn.Parameter(spread.uniform_(-init_spread, init_spread) if kind == "full" else spread)
        self.features = nn.Parameter(torch.full((n_neurons, in_shape[0]), 1 / in_shape[0]))

    def place_units(self, positions: Tensor) -> None:
        """Say where the neurons lie, (N, 2) in any unit: the predictor sees it centred and over its largest value."""
        centred = positions.double() - positions.double().mean(0)
        self.units.copy_(centred / centred.abs().max().clamp_min(torch.finfo(torch.float64).tiny))

    @torch.no_grad()
    def start_at(self, positions: Tensor) -> None:
        """Let the neurons look at (N, 2) points (x, y), which may lie beyond the map's edges."""
        self.position.copy_(positions.clamp(-1, 1))

    def means(self) -> Tensor:
        """(N, 2) the points (x, y) that evaluation reads."""
        return self.predictor(self.units) if self.from_cortex else self.position

    def positions(self, n_samples: int) -> Tensor:
        """(B, N, 2) points (x, y) in [-1, 1]: drawn for every image in training, the means in evaluation."""
        if self.training and self.keep_inside and not self.from_cortex:
            with torch.no_grad():
                self.position.clamp_(-1, 1)
        position = self.means().expand(n_samples, -1, -1)
        if self.training:
            noise = torch.randn_like(position)
            full = self.spread.dim() == 3
            position = position + ((self.spread @ noise[..., None])[..., 0] if full else self.spread * noise)
        return position.clamp(-1, 1)

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """(B, C, H, W) features, and (B, 2) shifts of all positions -> (B, N)."""
        grid = self.positions(len(features))
        if shift is not None:
            grid = grid + shift[:, None]
        grid = grid[:, :, None].to(features.dtype)
        seen = F.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=True)[..., 0]
        return (seen * self.features.T).sum(1) + self.bias

    def penalties(self) -> dict[str, Tensor]:
        """The mean over neurons of the features' 1-norm."""
        return {"l1": self.l1 * self.features.abs().sum(1).mean()} if self.l1 else {}
