"""What the model makes over its latents: where they are, and that the pictures are of these places."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.reports import figures


def numbers(labels):
    return [float(label.get_text().replace("−", "-")) for label in labels]


def test_it_places_z(fits, digits):
    figure = figures.manifold(fits[2].model, digits.test, num=3)
    (axes,) = figure.axes
    across, up = (
        [float(label.get_text().replace("−", "-")) for label in labels]
        for labels in (axes.get_xticklabels(), axes.get_yticklabels())
    )
    assert np.allclose([across, up], [[-2.05, 0, 2.05]] * 2, atol=0.12)  # 4 standard errors of 10,000 draws
    assert list(axes.get_yticks()) == [2.5, 1.5, 0.5]  # rows count downwards, z[1] upwards
    low_right = pv.decode(fits[2].model, digits.test, {"z": torch.tensor([[across[-1], up[0]]])})
    shown = axes.images[0].get_array()
    size, scale = len(shown) // 3, (len(shown) // 3 - 2) // 8
    tile = shown[2 * size + 1 : 3 * size - 1 : scale, 2 * size + 1 : 3 * size - 1 : scale, 0]
    mean = low_right.means["x"][0]
    assert np.corrcoef(tile.ravel(), -mean.flatten().numpy())[0, 1] > 0.9999


def test_it_keeps_to_the_support_of_the_prior():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(torch.tensor([2.0, 5.0]), 1.0).to_event(1))
            pyro.sample("x", dist.Poisson(z.sum(-1)[..., None, None].expand(*z.shape[:-1], 4, 4)).to_event(2), obs=x)

    (axes,) = figures.manifold(model, torch.ones(2, 4, 4), num=3, central=0.5).axes
    shown = [[float(one.get_text()) for one in labels] for labels in (axes.get_xticklabels(), axes.get_yticklabels())]
    exact = [scipy.stats.gamma.ppf([0.25, 0.5, 0.75], shape) for shape in (2, 5)]
    assert np.allclose(shown, exact, atol=0.12)


def test_it_reaches_where_the_codes_are(fits, digits):
    fit = fits[2]
    (axes,) = figures.manifold(fit.model, digits.test, guide=fit.guide, num=3, central=1.0).axes
    means = pv.posterior(fit.model, fit.guide, digits.test).means["z"][0]
    low, high = means.amin(0), means.amax(0)
    assert np.allclose(numbers(axes.get_xticklabels()), [low[0], (low[0] + high[0]) / 2, high[0]], atol=0.006)
    assert np.allclose(numbers(axes.get_yticklabels()), [low[1], (low[1] + high[1]) / 2, high[1]], atol=0.006)
    assert "over the codes of the data" in axes.get_title()


def test_one_latent_is_a_strip(fits, digits):
    (axes,) = figures.manifold(fits[1].model, digits.test, num=5).axes
    assert axes.images[0].get_extent() == [0, 5, 1, 0] and len(axes.get_yticks()) == 0
    assert np.allclose(numbers(axes.get_xticklabels()), scipy.stats.norm.ppf([0.02, 0.26, 0.5, 0.74, 0.98]), atol=0.12)
    assert axes.get_xlabel() == "z"


def test_more_latents_are_refused(fits, digits):
    with pytest.raises(InputError, match=r"of one or two coordinates, got .*'z': \(4,\)"):
        figures.manifold(fits[4].model, digits.test)
