"""Where data lie in the latent plane, read back from the artists; prior and posteriors beside them."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.collections import PathCollection

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.reports import figures
from pyrovae.reports.figures.latents.plane import plane_of


def points_of(axes):
    return np.concatenate([one.get_offsets() for one in axes.collections if isinstance(one, PathCollection)])


def test_two_latents_stand_where_they_are(fits, digits):
    axes = figures.latent_means(fits[2].model, fits[2].guide, digits.test[:30]).axes[0]
    drawn = points_of(axes)
    means = pv.posterior(fits[2].model, fits[2].guide, digits.test[:30]).means["z"][0].double().numpy()
    order = np.argsort(digits.test.labels[:30].numpy(), kind="stable")
    np.testing.assert_allclose(drawn, means[order], rtol=1e-5)
    assert axes.get_xlabel() == "mean of z[0] under q(z|x)"


def test_legend_names_the_classes(fits, digits):
    axes = figures.latent_means(fits[2].model, fits[2].guide, digits.test).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [str(i) for i in range(10)]


def test_one_colour_without_labels(fits, digits):
    axes = figures.latent_means(fits[2].model, fits[2].guide, digits.test.x[:30]).axes[0]
    assert axes.get_legend() is None and len([one for one in axes.collections if isinstance(one, PathCollection)]) == 1


def test_principal_components_of_more_latents(fits, digits):
    axes = figures.latent_means(fits[4].model, fits[4].guide, digits.test[:30]).axes[0]
    assert "principal component 1 of 4 latents" in axes.get_xlabel() and "% of variance" in axes.get_xlabel()
    drawn = points_of(axes)
    means = pv.posterior(fits[4].model, fits[4].guide, digits.test[:30]).means["z"][0].double()
    exact = torch.linalg.eigvalsh(torch.cov(means.T))[-2:].flip(0)
    np.testing.assert_allclose(drawn.var(0, ddof=1), exact.numpy(), rtol=1e-5)


def test_one_latent_is_a_strip(fits, digits):
    axes = figures.latent_means(fits[1].model, fits[1].guide, digits.test[:30]).axes[0]
    assert axes.get_xlabel() == "mean of z under q(z|x)" and len(axes.get_yticks()) == 0


def test_two_data_have_no_principal_components(fits, digits):
    with pytest.raises(InputError, match="at least three data, got 2"):
        figures.latent_means(fits[4].model, fits[4].guide, digits.test[:2])


def test_classes_have_no_posterior_mean():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(2)))

    with pytest.raises(InputError, match="site 'k' holds whole numbers"):
        figures.latent_means(model, guide, torch.ones(4))


def test_lines_hold_half_and_nine_tenths_of_the_prior(fits, digits):
    """Of a standard normal the radii are known; 4000 draws, smoothed: within a tenth."""
    axes = figures.latent_means(fits[2].model, fits[2].guide, digits.test[:30]).axes[0]
    (contours,) = [one for one in axes.collections if hasattr(one, "levels")]
    radii = sorted(np.linalg.norm(path.vertices, axis=1).mean() for path in contours.get_paths())
    exact = [(-2 * np.log(1 - mass)) ** 0.5 for mass in (0.5, 0.9)]
    assert np.allclose(radii, exact, rtol=0.1)


def test_ellipses_have_the_standard_deviations_of_q(fits, digits):
    """From 64 draws each: the mean ratio over 30 data is within 4 standard errors, 9% / sqrt(30) each, of 1."""
    fit = fits[2]
    axes = figures.latent_means(fit.model, fit.guide, digits.test[:30]).axes[0]
    draws = pv.posterior(fit.model, fit.guide, digits.test[:30], num_draws=2000, seed=5).values["z"]
    exact = draws.std(0).log().sum(1).exp()  # its product
    shown = [ellipse.get_width() * ellipse.get_height() / 4 for ellipse in axes.patches]
    assert len(shown) == 30
    assert abs(np.mean(np.array(shown) / exact.numpy()) - 1) < 4 * 0.09 * 2**0.5 / 30**0.5 + 0.02


def test_one_latent_has_bars_and_lines(fits, digits):
    axes = figures.latent_means(fits[1].model, fits[1].guide, digits.test[:30]).axes[0]
    lines = sorted(line.get_xdata()[0] for line in axes.lines if line.get_linestyle() in ("--", ":"))
    assert np.allclose(lines, [-1.645, -0.674, 0.674, 1.645], atol=0.12)  # 4 standard errors of 4000 draws


def test_values_and_means_have_the_same_plane():
    torch.manual_seed(0)
    means = {"a": torch.randn(20, 3), "b": torch.randn(20)}
    plane = plane_of(means)
    assert plane.num_axes == 2 and plane.place(means).shape == (20, 2)
    assert np.allclose(plane.place(means).mean(0), 0, atol=1e-12)
    assert np.allclose(plane.directions @ plane.directions.T, np.eye(2), atol=1e-12)
    assert plane_of({"z": torch.randn(5)}).num_axes == 1
