import pytest
import torch
from torch import nn

from neuro_lightning.nn.readouts import DenseReadout, FactorisedReadout, GaussianReadout

SHAPE = (3, 4, 5)  # C, H, W


def features(n: int = 2) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(0))


def put(parameter: nn.Parameter, values) -> None:
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(values, dtype=parameter.dtype).expand_as(parameter))


def test_gaussian_readout_picks_pixels():
    readout, given = GaussianReadout(SHAPE, 20).eval(), features()
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")
    xy = torch.stack([columns / 4 * 2 - 1, rows / 3 * 2 - 1], dim=-1).reshape(20, 2)
    put(readout.position, xy)
    put(readout.features, torch.randn(20, 3))
    put(readout.bias, torch.randn(20))
    expected = torch.einsum("bcn,nc->bn", given.flatten(2), readout.features) + readout.bias
    torch.testing.assert_close(readout(given), expected)


def test_gaussian_readout_interpolates_bilinearly():
    readout, given = GaussianReadout(SHAPE, 1).eval(), features()
    put(readout.features, [0.0, 1.0, 0.0])
    put(readout.position, [(2.25 / 4) * 2 - 1, (1.5 / 3) * 2 - 1])  # column 2.25, row 1.5
    pixels = given[:, 1]
    expected = 0.5 * (0.75 * pixels[:, 1, 2] + 0.25 * pixels[:, 1, 3]) + 0.5 * (
        0.75 * pixels[:, 2, 2] + 0.25 * pixels[:, 2, 3]
    )
    torch.testing.assert_close(readout(given)[:, 0], expected)


@pytest.mark.parametrize(
    ("kind", "spread", "covariance"),
    [
        ("full", [[0.1, 0.05], [-0.02, 0.2]], [[0.0125, 0.008], [0.008, 0.0404]]),  # A A'
        ("uncorrelated", [0.1, 0.2], [[0.01, 0], [0, 0.04]]),
        ("isotropic", [0.15], [[0.0225, 0], [0, 0.0225]]),
    ],
)
def test_gaussian_readout_draws_from_its_gaussian_in_training(kind, spread, covariance):
    torch.manual_seed(0)
    readout = GaussianReadout(SHAPE, 2, kind=kind)
    put(readout.spread, spread)
    put(readout.position, [0.1, -0.2])
    drawn = readout.train().positions(40_000)
    for neuron in range(2):
        torch.testing.assert_close(drawn[:, neuron].mean(0), torch.tensor([0.1, -0.2]), atol=0.005, rtol=0)
        torch.testing.assert_close(drawn[:, neuron].T.cov(), torch.tensor(covariance), atol=0.001, rtol=0)
    assert abs(torch.corrcoef(drawn[:, :, 0].T)[0, 1]) < 0.03  # neurons draw apart
    put(readout.position, [0.95, 0.0])
    assert readout.positions(1000).abs().max() <= 1
    assert (readout.eval().positions(3) == torch.tensor([0.95, 0.0])).all()


def test_a_position_outside_the_map_comes_back():
    """Neuron 1 lies far to the right of the map, whose features say: go left."""

    def trained(keep_inside: bool) -> torch.Tensor:
        torch.manual_seed(0)
        readout = GaussianReadout((1, 1, 9), 2, keep_inside=keep_inside)
        put(readout.position, [[0.0, 0.0], [3.0, 0.0]])
        rising = torch.linspace(-1, 1, 9)[None, None, None]
        optimizer = torch.optim.SGD([readout.position], lr=0.1)
        for _ in range(10):
            optimizer.zero_grad()
            readout(rising).sum().backward()
            optimizer.step()
        return readout.position[:, 0].detach()

    assert (trained(True) < -0.05).tolist() == [True, False] and trained(True)[1] < 0.9
    assert trained(False)[0] == trained(True)[0] and trained(False)[1] == 3
    readout = GaussianReadout(SHAPE, 1, keep_inside=True).eval()
    put(readout.position, [2.0, 0.0])
    assert (readout.positions(1) == torch.tensor([1.0, 0.0])).all() and readout.position[0, 0] == 2


def test_positions_from_the_cortex():
    torch.manual_seed(0)
    readout = GaussianReadout(SHAPE, 50, from_cortex=30).eval()
    assert sum(p.numel() for p in readout.parameters()) == 50 * (4 + 3 + 1) + 2 * 30 + 30 + 30 * 2 + 2
    placed = torch.rand(50, 2, generator=torch.Generator().manual_seed(1)) * 900 + 100
    readout.place_units(placed)
    assert readout.units.mean(0).abs().max() < 1e-6 and readout.units.abs().max() == 1
    first, last = readout.predictor[0], readout.predictor[2]
    hidden = torch.nn.functional.elu(readout.units @ first.weight.T + first.bias)
    torch.testing.assert_close(readout.positions(3)[2], (hidden @ last.weight.T + last.bias).tanh())
    other = GaussianReadout(SHAPE, 50, from_cortex=30)
    other.load_state_dict(readout.state_dict())
    assert torch.equal(other.means(), readout.means())
    # shifted and scaled alike, the places are the same
    other.place_units(placed * 2 - 7)
    torch.testing.assert_close(other.units, readout.units)
    drawn = readout.train().positions(1000)
    assert drawn.std(0).min() > 0 and drawn.abs().max() <= 1
    readout(features()).sum().backward()
    assert first.weight.grad.abs().sum() > 0


def test_positions_from_the_cortex_follow_a_map():
    """Neuron n looks at column n of a row: half of the neurons are enough to learn that."""
    torch.manual_seed(0)
    n = 40
    row = torch.eye(n)[:, None, None]  # image i shows column i alone
    readout = GaussianReadout((1, 1, n), n, from_cortex=10, kind="isotropic", init_spread=0.02)
    readout.place_units(torch.stack([torch.arange(float(n)), torch.zeros(n)], 1))
    target = torch.linspace(-1, 1, n) * 0.8
    optimizer = torch.optim.Adam(readout.predictor.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (readout.means()[::2, 0] - target[::2]).square().mean().backward()
        optimizer.step()
    assert (readout.means()[1::2, 0] - target[1::2]).abs().max() < 0.1
    assert readout.eval()(row).shape == (n, n)


def test_gaussian_readout_starts_as_published():
    readout = GaussianReadout((64, 28, 56), 7863)
    assert sum(p.numel() for p in readout.parameters()) == 7863 * (2 + 4 + 64 + 1)
    assert (readout.features == 1 / 64).all()
    assert readout.position.abs().max() <= 0.3
    assert readout.position.std().item() == pytest.approx(0.3 / 3**0.5, rel=0.05)
    assert readout.spread.abs().max() <= 0.1 and readout.spread.min() < 0


def test_gaussian_penalty_is_the_mean_over_neurons_of_the_features_1_norm():
    """So that a strength means the same for any number of neurons."""
    readout = GaussianReadout(SHAPE, 6, l1=0.5)
    put(readout.features, torch.randn(6, 3))
    torch.testing.assert_close(readout.penalties(), {"l1": 0.5 * readout.features.abs().sum() / 6})
    assert GaussianReadout(SHAPE, 6).penalties() == {}


def test_positions_learn():
    """The only bright pixel of the map lies at the right: the point that is to see it moves there."""
    torch.manual_seed(0)
    bright = torch.zeros(16, 1, 1, 9)
    bright[:, 0, 0, 6] = 1.0
    readout = GaussianReadout((1, 1, 9), 1, init_position=0.0, init_spread=0.3)
    put(readout.features, 1.0)
    optimizer = torch.optim.Adam([readout.position], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (readout(bright) - 1).square().mean().backward()
        optimizer.step()
    assert readout.position[0, 0].item() == pytest.approx(0.5, abs=0.1)  # pixel 6 of 0..8


@pytest.mark.parametrize("positive", [False, True])
def test_factorised_readout_is_its_einsum(positive):
    readout, given = FactorisedReadout(SHAPE, 6, l1=0.5, positive=positive), features()
    put(readout.bias, torch.randn(6))
    mask = readout.mask.abs() if positive else readout.mask
    mask = mask / mask.square().sum((1, 2), keepdim=True).sqrt()
    expected = torch.einsum("bchw,nhw,nc->bn", given, mask, readout.features) + readout.bias
    torch.testing.assert_close(readout(given), expected)
    weight = torch.einsum("nhw,nc->nchw", mask, readout.features)
    torch.testing.assert_close(readout.penalties()["l1"], 0.5 * weight.abs().sum((1, 2, 3)).mean())


def test_the_masks_scale_does_not_matter():
    readout, given = FactorisedReadout(SHAPE, 6, l1=1.0), features()
    before, penalty = readout(given), readout.penalties()["l1"]
    with torch.no_grad():
        readout.mask *= 37.0
    torch.testing.assert_close(readout(given), before)
    torch.testing.assert_close(readout.penalties()["l1"], penalty)


def test_dense_readout():
    readout, given = DenseReadout(SHAPE, 6, dropout=0.5, l2=2.0).eval(), features()
    expected = torch.einsum("bchw,nchw->bn", given, readout.weight.view(6, *SHAPE))
    torch.testing.assert_close(readout(given), expected)
    torch.testing.assert_close(readout.penalties()["l2"], 2 * readout.weight.square().sum() / 6)


def test_penalties_do_not_grow_with_the_number_of_neurons():
    for build in (
        lambda n: GaussianReadout(SHAPE, n, l1=1.0),
        lambda n: FactorisedReadout(SHAPE, n, l1=1.0),
        lambda n: DenseReadout(SHAPE, n, l2=1.0),
    ):
        one, many = build(1), build(50)
        for a, b in zip(one.parameters(), many.parameters(), strict=True):
            put(b, a.detach())
        for name, term in one.penalties().items():
            torch.testing.assert_close(many.penalties()[name], term)
    assert GaussianReadout(SHAPE, 3).penalties() == {}


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"readout\.kind=round is none of full, uncorrelated, isotropic"):
        GaussianReadout(SHAPE, 3, kind="round")
