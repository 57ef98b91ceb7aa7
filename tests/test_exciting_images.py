from types import SimpleNamespace

import numpy as np
import pytest
import torch
from figure_checks import drawn, titles

from neuro_lightning.callbacks.drawings import image_drawings, trace_shares
from neuro_lightning.contracts import DataSpec
from neuro_lightning.display.figures_images import discriminative_figure, exciting_figure, triggered_figure
from neuro_lightning.functional.exciting_images import contrast_of, most_discriminative_images, most_exciting_images
from neuro_lightning.functional.explainable import explainable, feve
from neuro_lightning.functional.receptive_fields import mean_gradients, triggered_averages

DRAW = torch.Generator().manual_seed(0)
FILTERS = torch.randn(3, 2, 4, 5, generator=DRAW)


def linear(images):
    return {"rates": images.flatten(1) @ FILTERS.flatten(1).T}


def rectified(images):
    return {"rates": (linear(images)["rates"] - 3).relu()}


def test_the_best_image_of_a_linear_neuron_is_its_filter():
    grey = torch.full((2, 4, 5), 0.5)
    found, answers = most_exciting_images(linear, grey, 2.0, [2, 0])
    chosen = FILTERS[[2, 0]]
    expected = 2 * chosen / chosen.flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(answers, linear(grey + expected)["rates"][[0, 1], [2, 0]])
    assert most_exciting_images(linear, grey, 2.0, [])[0].shape == (0, 2, 4, 5)


def test_a_neuron_that_is_flat_at_grey_begins_with_noise():
    found, answers = most_exciting_images(rectified, torch.zeros(2, 4, 5), 20.0, [1], n_steps=60, seed=1)
    expected = 20 * FILTERS[1] / FILTERS[1].norm()
    assert float(rectified(expected[None])["rates"][0, 1]) == pytest.approx(float(answers[0]), rel=1e-3)
    assert float(torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), 0)) > 0.999


def test_the_best_image_of_an_energy_is_its_first_axis():
    def energy(images):
        return {"rates": (images.flatten(1) * torch.arange(20.0)).square().sum(1, keepdim=True)}

    def pushed(images):  # at grey itself the slope would be zero
        return {"log_rates": (energy(images)["rates"] + images.sum((1, 2, 3))[:, None]).log()}

    found, _ = most_exciting_images(pushed, torch.full((1, 4, 5), 0.01), 1.0, [0], n_steps=200)
    assert float(found.abs().flatten()[-1]) > 0.95


def test_the_image_that_tells_a_linear_neuron_from_another_is_the_difference_of_their_filters():
    def two(images):
        return {"rates": linear(images)["rates"][:, :2]}

    mean, spread = torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.5])
    found, shares = most_discriminative_images(
        two, torch.zeros(2, 4, 5), 1.5, [1, 0], mean=mean, spread=spread, temperature=4.0, n_steps=100
    )
    difference = FILTERS[1] / 0.5 - FILTERS[0] / 2
    expected = 1.5 * difference / difference.norm()
    torch.testing.assert_close(found, torch.stack([expected, -expected]), rtol=1e-3, atol=1e-3)
    gap = 1.5 * difference.norm() - (-1 / 0.5 - 3 / 2)
    torch.testing.assert_close(shares[0], (gap / 4).sigmoid())
    assert most_discriminative_images(two, torch.zeros(2, 4, 5), 1.5, [])[1].shape == (0,)


def test_neurons_that_want_the_same_are_not_told_apart_and_a_constant_one_is_no_rival():
    def twins(images):
        rates = linear(images)["rates"]
        return {"rates": torch.stack([rates[:, 0], rates[:, 0], torch.full_like(rates[:, 0], 9.0)], 1)}

    _, shares = most_discriminative_images(
        twins, torch.zeros(2, 4, 5), 5.0, [0, 1, 2], mean=torch.zeros(3), spread=torch.tensor([1.0, 1, 0])
    )
    assert shares[:2].tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert float(shares[2]) > 0.9, "the image that silences the others"


def test_contrast_is_that_of_the_median_image():
    images = torch.full((3, 2, 4, 5), 0.5)
    images[:, :, ::2] += torch.tensor([1.0, 2, 3])[:, None, None, None]
    images[:, :, 1::2] -= torch.tensor([1.0, 2, 3])[:, None, None, None]
    grey, contrast = contrast_of(images)
    torch.testing.assert_close(grey, torch.full((2, 1, 1), 0.5))
    assert contrast == pytest.approx(2 * 40**0.5)


def test_mean_gradients_are_those_of_the_images_that_drive_a_neuron():
    images = torch.randn(30, 2, 4, 5, generator=DRAW)
    share = (rectified(images)["rates"][:, 2] > 0).float().mean()
    assert 0 < share < 1
    torch.testing.assert_close(mean_gradients(rectified, images, [2])[0], share * FILTERS[2])
    assert mean_gradients(rectified, images, []).shape == (0, 2, 4, 5)


def test_triggered_averages_are_covariances_over_the_images_that_were_seen():
    images = torch.randn(50, 2, 4, 5, generator=DRAW)
    responses = torch.rand(50, 2, generator=DRAW)
    responses[:20, 1] = torch.nan
    found = triggered_averages(images, responses)
    mean = images[20:].mean(0)
    expected = ((images[20:] - mean) * (responses[20:, 1] - responses[20:, 1].mean())[:, None, None, None]).mean(0)
    torch.testing.assert_close(found[1], expected)
    spikes = torch.poisson(torch.rand(50, 1, generator=DRAW) * 3, generator=DRAW)
    triggered = (images * spikes[:, :, None, None]).sum(0) / spikes.sum() - images.mean(0)
    torch.testing.assert_close(triggered_averages(images, spikes)[0], triggered * spikes.mean())
    assert not triggered_averages(images, torch.full((50, 1), torch.nan)).any()


def test_the_triggered_average_of_white_noise_is_the_filter_whatever_follows_it():
    images = torch.randn(20_000, 2, 4, 5, generator=DRAW)
    found = triggered_averages(images, rectified(images)["rates"])
    alike = torch.nn.functional.cosine_similarity(found.flatten(1), FILTERS.flatten(1))
    assert (alike > 0.97).all()


def test_figure_of_exciting_images():
    figure = drawn(exciting_figure(FILTERS.numpy(), neurons=[4, 0, 9], responses=[1.5, 0.25, 3], simulated=True))
    assert titles(figure) == ["neuron 4 · 1.5", "neuron 0 · 0.25", "neuron 9 · 3"]
    assert (figure.axes[1].get_images()[0].get_array() == FILTERS[1].mean(0).numpy()).all()


def test_figures_of_discriminative_images_and_of_triggered_averages():
    figure = drawn(discriminative_figure(FILTERS.numpy(), neurons=[4, 0, 9], shares=[0.5, 0.997, 0.04]))
    assert titles(figure) == ["neuron 4 · 50%", "neuron 0 · 100%", "neuron 9 · 4%"]
    recorded, predicted = FILTERS.numpy(), -2 * FILTERS.numpy()
    predicted[2] = 0
    figure = drawn(triggered_figure(recorded, predicted, neurons=[4, 0, 9]))
    assert titles(figure)[:2] == ["neuron 4", "predicted · r -1.00"] and titles(figure)[5] == "predicted · none"
    assert (figure.axes[2].get_images()[0].get_array() == recorded[1].mean(0)).all()
    assert (figure.axes[3].get_images()[0].get_array() == predicted[1].mean(0)).all()
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == 6
    drawn(triggered_figure(recorded[:0], predicted[:0], neurons=[]))


class Train(list):
    """The data set of some images, whose responses are given."""

    def __init__(self, images, responses):
        super().__init__(images)
        self.images, self.responses = images, responses

    def __getitem__(self, index):
        targets = self.responses[index]
        return {"inputs": self.images[index], "targets": targets, "mask": torch.ones_like(targets, dtype=torch.bool)}


class Linear(torch.nn.Module):
    def forward(self, images):
        return rectified(images)


def test_a_runs_figures_show_what_was_computed():
    images = torch.randn(40, 2, 4, 5, generator=DRAW)
    rates = rectified(images)["rates"]
    repeats = rates[:, None] + 0.5 * torch.randn(40, 6, 3, generator=DRAW)
    trials = {
        "targets": repeats.mean(1), "mask": torch.ones(40, 3, dtype=torch.bool), "predicted": rates, "repeats": repeats,
    }  # fmt: skip
    data = SimpleNamespace(dataset=lambda split, evaluate: Train(images, repeats[:, 0]))
    spec = DataSpec("toy", kind="images", n_out=3, image_shape=(2, 4, 5), simulated=True)
    found = image_drawings(trials, SimpleNamespace(net=Linear().eval(), spec=spec, device="cpu"), data, 3)
    panel = drawn(found["feve"]()).axes[0]
    points = np.stack([explainable(repeats).fev, feve(repeats, rates)], 1)
    np.testing.assert_allclose(panel.lines[0].get_xydata(), points)
    assert (points[:, 1] > 0.95).all()
    pictures = drawn(found["exciting_images"]()).axes
    neuron = int(pictures[0].get_title(loc="left").split()[1])
    shown = pictures[0].get_images()[0].get_array()
    best = contrast_of(images)[1] * (FILTERS[neuron] / FILTERS[neuron].norm()).mean(0)
    np.testing.assert_allclose(shown, best, rtol=1e-3, atol=1e-4)
    told = drawn(found["discriminative_images"]()).axes
    shares = [float(panel.get_title(loc="left").split()[-1].rstrip("%")) for panel in told]
    assert min(shares) > 80, "three filters that have little in common"
    averages = drawn(found["triggered_averages"]()).axes
    expected = triggered_averages(images, repeats[:, 0])[neuron].mean(0)
    np.testing.assert_allclose(averages[0].get_images()[0].get_array(), expected, rtol=1e-4, atol=1e-5)
    expected = triggered_averages(images, rates)[neuron].mean(0)
    np.testing.assert_allclose(averages[1].get_images()[0].get_array(), expected, rtol=1e-4, atol=1e-5)
    fields = drawn(found["receptive_fields"]()).axes  # all are flat at the mean image
    assert np.abs(fields[0].get_images()[0].get_array()).max() > 0


def test_shared_variance_of_traces_ends_at_what_neurons_have_in_common():
    signal = torch.randn(1, 2000, 1, generator=DRAW)
    noise = torch.randn(1, 2000, 40, generator=DRAW)
    trials = {"targets": signal + noise, "mask": torch.ones(1, 2000, 40, dtype=torch.bool), "predicted": signal}
    trials["mask"][0, 5, 3], trials["targets"][0, 5, 3] = False, torch.nan  # a neuron that was not always seen
    shares = trace_shares(trials)
    assert shares["predicted activity"].tolist() == [1.0]
    assert shares["recorded, reliable (SVCA)"][0] == pytest.approx(0.5, abs=0.06)
    assert abs(shares["recorded, reliable (SVCA)"][1:].sum()) < 0.06
