import pytest
import torch
from torch import nn

from neuro_lightning.nn.core import ConvCore, group_sparsity, laplacian_energy
from neuro_lightning.nn.vit import ViTCore

SENSORIUM = {"channels": 64, "layers": 4, "first_kernel": 9, "kernel": 7}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sensorium_sized_core():
    core = ConvCore((1, 36, 64), **SENSORIUM).eval()
    first = 9 * 9 * 64 + 2 * 64  # kernels, batch normalisation's scale and shift
    later = 64 * 64 + 7 * 7 * 64 + 64 * 64 + 2 * 64  # 1x1, depthwise, 1x1
    assert count(core) == first + 3 * later == 39_680
    features = core(torch.randn(2, 1, 36, 64))
    assert features.shape[1:] == core.out_shape == (64, 28, 56)
    assert core.filters().shape == (64, 1, 9, 9)


def test_full_convolutions():
    core = ConvCore((3, 20, 16), channels=8, layers=3, first_kernel=5, kernel=3, depth_separable=False, pad_first=True)
    assert count(core) == 8 * 3 * 25 + 2 * 8 * 8 * 9 + 3 * 16
    assert core(torch.randn(2, 3, 20, 16)).shape[1:] == core.out_shape == (8, 20, 16)


@pytest.mark.parametrize(("batch_norm", "extra"), [("full", 6 * 8), ("shift", 3 * 8), ("none", 3 * 8)])
@pytest.mark.parametrize("separable", [True, False])
def test_what_batch_normalisation_learns(batch_norm, extra, separable):
    sizes = {"channels": 8, "layers": 3, "first_kernel": 5, "kernel": 3, "depth_separable": separable}
    core = ConvCore((3, 20, 16), batch_norm=batch_norm, **sizes)
    kernels = 8 * 3 * 25 + 2 * (8 * 8 + 8 * 9 + 8 * 8 if separable else 8 * 8 * 9)
    assert count(core) == kernels + extra
    given = 3 + 5 * torch.randn(50, 3, 20, 16, generator=torch.Generator().manual_seed(0))
    first = core.train().layers[0][1](core.layers[0][0](given))
    assert (first.mean((0, 2, 3)).abs().max() < 1e-4) == (batch_norm != "none")
    for parameter in core.parameters():
        torch.nn.init.constant_(parameter, 1.0)  # of scale and shift, too
    assert core(given).isfinite().all()
    if batch_norm == "shift":
        shifted = core.layers[0][1](core.layers[0][0](given))
        torch.testing.assert_close(shifted.mean((0, 2, 3)), torch.ones(8), atol=1e-4, rtol=0)
    assert core(given).shape[1:] == core.out_shape and core.filters().shape == (8, 3, 5, 5)


def test_kernels_start_as_published():
    """Glorot's normal distribution: variance 2 / (inputs + outputs), with torch's count of a depthwise kernel's."""
    torch.manual_seed(0)
    core = ConvCore((1, 36, 64), **SENSORIUM, init="xavier")
    first, (mix, depthwise, _) = core.layers[0][0], core.layers[1][0]
    for kernel, inputs, outputs in ((first, 81, 64 * 81), (mix, 64, 64), (depthwise, 49, 64 * 49)):
        assert kernel.weight.std().item() == pytest.approx((2 / (inputs + outputs)) ** 0.5, rel=0.05)
        assert abs(kernel.weight.double().pow(4).mean() / kernel.weight.double().var() ** 2 - 3) < 0.5  # normal
    core = ConvCore((1, 20, 20), channels=4, layers=2, first_kernel=5, kernel=3, init="xavier", batch_norm="none")
    assert all(
        (layer.bias == 0).all() for layer in core.modules() if isinstance(layer, nn.Conv2d) and layer.bias is not None
    )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(15, 12), (31, 31)])
def test_cores_know_the_shape_of_their_map(size, stride):
    images = torch.randn(2, 1, *size)
    cores = [
        ConvCore((1, *size), channels=4, layers=2, first_kernel=5, kernel=3, stride=stride, pad_first=pad)
        for pad in (0, 1)
    ]
    cores.append(ViTCore((1, *size), patch=5, stride=stride, channels=8, heads=2, blocks=1, mlp=8))
    for core in cores:
        assert core(images).shape[1:] == core.out_shape


def test_a_linear_core_is_linear_in_the_images():
    core = ConvCore((1, 14, 14), channels=4, layers=3, first_kernel=5, kernel=3, linear=True).eval()
    a, b, zero = torch.randn(1, 1, 14, 14), torch.randn(1, 1, 14, 14), torch.zeros(1, 1, 14, 14)
    torch.testing.assert_close(core(a + 2 * b), core(a) + 2 * core(b) - 2 * core(zero))
    bent = ConvCore((1, 14, 14), channels=4, layers=3, first_kernel=5, kernel=3).eval()
    assert not torch.allclose(bent(a + 2 * b), bent(a) + 2 * bent(b) - 2 * bent(zero), atol=1e-3)


def test_laplacian_energy():
    spike = torch.zeros(1, 1, 5, 5)
    spike[0, 0, 2, 2] = 3.0
    assert laplacian_energy(spike).item() == pytest.approx(20)  # 4^2 + 4 * (-1)^2, whatever the height
    flat = torch.ones(2, 3, 5, 5)  # falls off at its edges: by 1 beside each of 12 pixels, by 2 at the 4 corners
    assert laplacian_energy(flat).item() == pytest.approx((12 * 1 + 4 * 4) / 25)
    checkers = 1 - 2 * ((torch.arange(5)[:, None] + torch.arange(5)) % 2).float()[None, None]
    assert laplacian_energy(checkers).item() == pytest.approx((9 * 8**2 + 12 * 7**2 + 4 * 6**2) / 25)
    bump = torch.exp(-(torch.arange(-4.0, 5) ** 2) / 8)
    assert laplacian_energy(bump.outer(bump)[None, None]) < 0.3 < laplacian_energy(torch.randn(1, 1, 9, 9))
    weight = torch.randn(4, 2, 7, 7)
    for scale in (1e-3, 7.0, -100.0):
        torch.testing.assert_close(laplacian_energy(scale * weight), laplacian_energy(weight))


def test_group_sparsity():
    alone, even = torch.zeros(3, 4, 3, 3), torch.ones(3, 4, 3, 3)
    alone[1, 2] = 0.7
    assert group_sparsity(alone).item() == pytest.approx(12**-0.5)
    assert group_sparsity(even).item() == pytest.approx(1)
    weight = torch.randn(3, 4, 3, 3, requires_grad=True)
    torch.testing.assert_close(group_sparsity(5 * weight), group_sparsity(weight))
    alone.requires_grad_()
    (gradient,) = torch.autograd.grad(group_sparsity(alone), alone)
    assert gradient.isfinite().all()  # where whole kernels are zero


def test_penalties_are_the_strengths_times_the_closed_forms():
    core = ConvCore(
        (1, 12, 12),
        channels=4,
        layers=3,
        first_kernel=5,
        kernel=3,
        depth_separable=False,
        laplace=0.3,
        group_sparsity=0.2,
    )
    terms = core.penalties()
    torch.testing.assert_close(terms["laplace"], 0.3 * laplacian_energy(core.layers[0][0].weight))
    deeper = group_sparsity(core.layers[1][0].weight) + group_sparsity(core.layers[2][0].weight)
    torch.testing.assert_close(terms["group_sparsity"], 0.2 * deeper)
    assert ConvCore((1, 12, 12), channels=4, layers=2, kernel=3).penalties() == {}


def test_attention_is_softmax_attention():
    core = ViTCore((1, 12, 12), patch=4, stride=4, channels=6, heads=2, blocks=1, mlp=5, dropout=0.3).eval()
    block, tokens = core.blocks[0], torch.randn(2, 9, 6)
    q, k, v = block.to_qkv(tokens).split(6, dim=2)
    heads = []
    for part in (slice(0, 3), slice(3, 6)):
        weights = (q[..., part] @ k[..., part].mT / 3**0.5).softmax(2)
        heads.append(weights @ v[..., part])
    torch.testing.assert_close(block._attend(tokens), block.out(torch.cat(heads, 2)))


def test_tokens_stay_at_their_positions():
    core = ViTCore((1, 12, 16), patch=4, stride=4, channels=8, heads=2, blocks=0).eval()
    images = torch.zeros(1, 1, 12, 16)
    images[0, 0, 4:8, 8:12] = torch.randn(4, 4)  # patch (1, 2) of (3, 4)
    with torch.no_grad():
        core.position.zero_()
        moved = (core(images) - core(torch.zeros_like(images))).abs().sum(1)[0]
    assert moved.argmax() == 1 * 4 + 2
    assert (moved > 1e-4).sum() == 1


def test_a_transformer_is_the_papers_formula():
    """Embedding plus position, then pre-norm residual halves, then a last normalisation; dropout in training only."""
    core = ViTCore((2, 12, 16), patch=4, stride=4, channels=8, heads=2, blocks=2, mlp=5, dropout=0.5).eval()
    images = torch.randn(3, 2, 12, 16)
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    tokens = patches @ core.embedding.weight.flatten(1).T + core.embedding.bias + core.position
    for block in core.blocks:
        tokens = tokens + block._attend(block.norm_attention(tokens))
        first, _, _, second = block.mlp
        tokens = tokens + second(nn.functional.gelu(first(block.norm_mlp(tokens))))
    wanted = core.norm(tokens).unflatten(1, (3, 4)).permute(0, 3, 1, 2)
    torch.testing.assert_close(core(images), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(core(images), core(images), rtol=0, atol=0)
    core.train()
    assert not torch.allclose(core(images), wanted, atol=1e-2)


def test_running_statistics_take_the_newest_batch_with_the_momentum():
    core = ConvCore((1, 9, 9), channels=3, layers=1, first_kernel=3, momentum=0.2)
    images = 3 + torch.randn(4, 1, 9, 9)
    mean = core.layers[0][0](images).mean((0, 2, 3))
    core(images)
    torch.testing.assert_close(core.layers[0][1].running_mean, 0.2 * mean)


def test_dropout_takes_whole_channels_in_training_only():
    core = ConvCore((1, 9, 9), channels=200, layers=1, first_kernel=3, dropout=0.4)
    images = torch.randn(1, 1, 9, 9)
    gone = (core(images) == 0).flatten(2)[0]
    assert torch.equal(gone.any(1), gone.all(1)) and 0.25 < float(gone.all(1).float().mean()) < 0.55
    assert not (core.eval()(images) == 0).any()


def test_vit_parameters():
    core = ViTCore((1, 31, 31), patch=8, stride=4, channels=64, blocks=2, heads=4, mlp=128)
    block = 3 * 64 * 64 + (64 * 64 + 64) + (64 * 128 + 128) + (128 * 64 + 64) + 2 * 2 * 64
    assert count(core) == (64 * 64 + 64) + 36 * 64 + 2 * block + 2 * 64


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: ConvCore((1, 8, 8)), "core.first_kernel=9"),
        (lambda: ConvCore((1, 31, 31), layers=0), "core.layers=0"),
        (lambda: ConvCore((1, 31, 31), kernel=4), "core.kernel"),
        (lambda: ConvCore((1, 31, 31), init="he"), "core.init=he is none of torch, xavier"),
        (lambda: ConvCore((1, 31, 31), batch_norm="scale"), "core.batch_norm=scale is none of full, shift, none"),
        (lambda: ConvCore((1, 31, 31), group_sparsity=1.0), "depth_separable=false"),
        (lambda: ViTCore((1, 31, 31), patch=40), "core.patch=40"),
        (lambda: ViTCore((1, 31, 31), channels=10, heads=4), "core.heads=4"),
    ],
)
def test_errors_of_invalid_cores_name_the_key(build, named):
    with pytest.raises(ValueError, match=named):
        build()
