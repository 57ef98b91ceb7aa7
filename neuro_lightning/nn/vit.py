"""The transformer core: patches of an image attend to each other, and stay in their places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.nn.core import on_map


class ViTCore(nn.Module):
    """A small vision transformer without a class token; its tokens, put back in their places, are the feature map.

    In the manner of V1T (Li et al., TMLR 2023; repository bryanlimy/V1T), which has overlapping patches of 8 pixels
    at a stride of 1 and four blocks of about 155 channels: without the behavior, and with blocks that are normalised
    before (pre-norm).

    Args:
        image_shape: (C, H, W) of the images.
        patch: pixels of a patch's side.
        stride: pixels between patches; they overlap where it is smaller than ``patch``.
        channels: width of the tokens.
        blocks: of attention and a two-layer network.
        heads: of the attention; they divide ``channels``.
        mlp: hidden units of each block's network.
        dropout: of the tokens at the input and in every block.

    Raises:
        ValueError: no stride, a patch larger than the image, or heads that do not divide the channels.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        patch: int = 8,
        stride: int = 4,
        channels: int = 64,
        blocks: int = 2,
        heads: int = 4,
        mlp: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if stride < 1:
            raise ValueError(f"core.stride={stride} must be 1 at least")
        height, width = ((size - patch) // stride + 1 for size in image_shape[1:])
        if min(image_shape[1:]) < patch:
            raise ValueError(
                f"core.patch={patch} is larger than the images, {image_shape[1]} x {image_shape[2]} pixels"
            )
        if channels % heads:
            raise ValueError(f"core.heads={heads} must divide core.channels={channels}")
        self.out_shape, self.patch, self.stride = (channels, height, width), patch, stride
        self.embedding = nn.Conv2d(image_shape[0], channels, patch, stride=stride)
        self.position = nn.Parameter(torch.randn(1, height * width, channels) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(channels, heads, mlp, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) images -> (B, channels, H', W') features."""
        tokens = self.embedding(images).flatten(2).mT
        tokens = self.dropout(tokens + self.position)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens).mT.unflatten(2, self.out_shape[1:])

    def on_map(self, pixels: Tensor) -> Tensor:
        """Points (x, y) of the map, see :func:`neuro_lightning.nn.core.on_map`, above places (n, 2) in the image."""
        return on_map(pixels, self.out_shape, (self.patch - 1) / 2, self.stride)

    def filters(self) -> Tensor:
        """(channels, C, patch, patch) weights of the patches' embedding."""
        return self.embedding.weight

    def penalties(self) -> dict[str, Tensor]:
        """No terms: weight decay and dropout are the transformer's regularizers."""
        return {}


class Block(nn.Module):
    """Self-attention and a two-layer network, each on normalised tokens and added to them.

    Args:
        channels: width of the tokens.
        heads: of the attention.
        mlp: hidden units of the network.
        dropout: of what each half adds, and of the attention's weights.
    """

    def __init__(self, channels: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, dropout
        self.norm_attention, self.norm_mlp = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, mlp), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp, channels))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, S, D) tokens -> the same shape."""
        tokens = tokens + self.dropout(self._attend(self.norm_attention(tokens)))
        return tokens + self.dropout(self.mlp(self.norm_mlp(tokens)))

    def _attend(self, tokens: Tensor) -> Tensor:
        query, key, value = self.to_qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.attention_dropout if self.training else 0.0
        return self.out(F.scaled_dot_product_attention(query, key, value, dropout_p=dropout).transpose(1, 2).flatten(2))
