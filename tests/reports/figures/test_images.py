"""Grids of images: which site, which pixels, and what is refused."""

import math

import matplotlib
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.reports import figures
from pyrovae.reports.figures import images
from pyrovae.reports.figures import style as helpers
from pyrovae.reports.figures.images import completions


class TestImages:
    def test_colour_images(self):
        shape = (3, 6, 8)
        vae = pv.VAE(
            prior=pv.priors.StandardNormal(2),
            decoder=pv.Conditional(pv.families.normal(scale=1.0), shape, pv.networks.mlp(2, 5, seed=0)),
            encoder=pv.Conditional(pv.families.normal(), (2,), pv.networks.mlp(shape, 5, seed=1)),
        )
        red = torch.zeros(2, *shape)
        red[:, 0] = 1.0
        shown = figures.reconstructions(vae.model, vae.guide, red).axes[0].images[0].get_array()
        assert shown[1, 1].tolist() == [1.0, 0.0, 0.0]

    def test_ink_is_dark_and_missing_pixels_show(self):
        image = torch.tensor([[0.0, 16.0], [8.0, math.nan]])[None, None]
        _, axes = images.grid_figure(image, like=image, invert=True)
        shown = axes.images[0].get_array()
        corners = [shown[1, 1], shown[1, -2], shown[-2, 1]]
        assert [corner.tolist() for corner in corners] == [[1.0] * 3, [0.0] * 3, [0.5] * 3]
        assert shown[-2, -2].tolist() == pytest.approx(matplotlib.colors.to_rgb(helpers.MISSING))

    def test_data_that_are_no_images_are_refused(self):
        oracle = pv.oracles.ppca(5, 2)
        x, _ = oracle.draw(6, seed=0)
        with pytest.raises(InputError, match=r"expected images, \(H, W\) or .* site 'x' has shape \(5,\)"):
            figures.reconstructions(oracle.model, oracle.guide, x)
        with pytest.raises(InputError, match="expected images"):
            figures.manifold(oracle.model, x)
        with pytest.raises(InputError, match="expected images"):
            figures.interpolation(oracle.model, oracle.guide, x)

    def test_unknown_site_is_refused(self, fits, digits):
        with pytest.raises(InputError, match="site 'y' is not observed in the model"):
            figures.prior_samples(fits[2].model, digits.test, site="y")

    def test_several_image_sites_must_be_named(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))[..., None, None]
                for name in ("left", "right"):
                    pyro.sample(name, dist.Normal(z.expand(-1, 3, 3), 1.0).to_event(2), obs=x)

        x = torch.zeros(2, 3, 3)
        with pytest.raises(InputError, match=r"several observed sites hold images, .* with site="):
            figures.prior_samples(model, x)
        assert isinstance(figures.prior_samples(model, x, num=2, site="left"), Figure)


@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 4)])
def test_completions_show_truth_draws_mean_and_sd(shape):
    model, guide = pictures(shape)
    x = torch.rand(3, *shape)
    operator = pv.operators.named("left", shape)
    record = pv.restore(model, guide, operator.apply(x), operator, truth=x, num_draws=5, num_particles=50)
    for found, num_names in ((completions(record, num=3), 5), (pv.figures.draw(record, num=2, num_draws=2), 5)):
        assert [text.get_text() for text in found.axes[0].texts] == ["truth", "observed", "draws", "mean", "sd"][
            :num_names
        ]
    masked = pv.conditional(model, guide, x, ~operator.apply(x)[0].isnan(), num_draws=5, num_particles=50)
    for found in (completions(masked, num=2), pv.figures.draw(masked, num=2)):
        assert [text.get_text() for text in found.axes[0].texts] == ["observed", "draws", "mean", "sd"]


def pictures(shape):
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.Conditional(pv.families.normal(scale=0.3), shape, pv.networks.mlp(2, 8, seed=0)),
        pv.Conditional(pv.families.normal(), (2,), pv.networks.mlp(shape, 8, seed=1)),
    )
    return vae.model, vae.guide


def test_completions_of_what_is_no_image_are_refused():
    oracle = pv.oracles.ppca(4, 1)
    x, _ = oracle.draw(3, seed=0)
    operator = pv.operators.linear(torch.eye(4).double()[:2])
    record = pv.restore(oracle.model, oracle.guide, operator.apply(x), operator, num_particles=50)
    with pytest.raises(InputError, match=r"expected images, \(H, W\) or \(C, H, W\)"):
        completions(record)
