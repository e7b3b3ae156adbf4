"""What a pair makes of data, read back from the artists."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.reports import figures


class TestImages:
    def test_reconstructions(self, every):
        (axes,) = every["reconstructions"].axes
        assert len(axes.images) == 1
        assert axes.images[0].get_extent() == [0, 10, 2, 0]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["data", "mean of p(x|z)"]

    def test_prior_samples(self, every, fits, digits):
        assert every["prior_samples"].axes[0].images[0].get_extent() == [0, 4, 3, 0]
        draws = figures.prior_samples(fits[2].model, digits.test, num=4, draws=True)
        assert draws.axes[0].get_title().startswith("draws")

    def test_manifold_places_z(self, fits, digits):
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

    def test_manifold_keeps_to_the_support_of_the_prior(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Gamma(torch.tensor([2.0, 5.0]), 1.0).to_event(1))
                pyro.sample(
                    "x", dist.Poisson(z.sum(-1)[..., None, None].expand(*z.shape[:-1], 4, 4)).to_event(2), obs=x
                )

        (axes,) = figures.manifold(model, torch.ones(2, 4, 4), num=3, central=0.5).axes
        shown = [
            [float(one.get_text()) for one in labels] for labels in (axes.get_xticklabels(), axes.get_yticklabels())
        ]
        exact = [scipy.stats.gamma.ppf([0.25, 0.5, 0.75], shape) for shape in (2, 5)]
        assert np.allclose(shown, exact, atol=0.12)

    def test_interpolation(self, every):
        (axes,) = every["interpolation"].axes
        assert len(axes.images) == 3
        assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "0", "0.5", "1", "x′"]

    def test_manifold_needs_a_plane(self, fits, digits):
        with pytest.raises(InputError, match=r"one latent site of event shape \(2,\), got .*'z': \(4,\)"):
            figures.manifold(fits[4].model, digits.test)

    def test_a_line_needs_two_data(self, fits, digits):
        with pytest.raises(InputError, match="a line needs two data and two steps, got 1 data"):
            figures.interpolation(fits[2].model, fits[2].guide, digits.test[:1])


class TestLatentMeans:
    def test_two_latents_stand_where_they_are(self, fits, digits):
        axes = figures.latent_means(fits[2].model, fits[2].guide, digits.test[:30]).axes[0]
        drawn = np.concatenate([points.get_offsets() for points in axes.collections])
        means = pv.posterior(fits[2].model, fits[2].guide, digits.test[:30]).means["z"][0].double().numpy()
        order = np.argsort(digits.test.labels[:30].numpy(), kind="stable")
        np.testing.assert_allclose(drawn, means[order], rtol=1e-5)
        assert axes.get_xlabel() == "posterior mean of z[0]"

    def test_legend_names_the_classes(self, fits, digits):
        axes = figures.latent_means(fits[2].model, fits[2].guide, digits.test).axes[0]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [str(i) for i in range(10)]

    def test_one_colour_without_labels(self, fits, digits):
        axes = figures.latent_means(fits[2].model, fits[2].guide, digits.test.x[:30]).axes[0]
        assert axes.get_legend() is None and len(axes.collections) == 1

    def test_principal_components_of_more_latents(self, fits, digits):
        axes = figures.latent_means(fits[4].model, fits[4].guide, digits.test[:30]).axes[0]
        assert "principal component 1 of 4 latents" in axes.get_xlabel() and "% of variance" in axes.get_xlabel()
        drawn = np.concatenate([points.get_offsets() for points in axes.collections])
        means = pv.posterior(fits[4].model, fits[4].guide, digits.test[:30]).means["z"][0].double()
        exact = torch.linalg.eigvalsh(torch.cov(means.T))[-2:].flip(0)
        np.testing.assert_allclose(drawn.var(0, ddof=1), exact.numpy(), rtol=1e-5)

    def test_one_latent_is_a_strip(self, fits, digits):
        axes = figures.latent_means(fits[1].model, fits[1].guide, digits.test[:30]).axes[0]
        assert axes.get_xlabel() == "posterior mean of z" and len(axes.get_yticks()) == 0

    def test_two_data_have_no_principal_components(self, fits, digits):
        with pytest.raises(InputError, match="at least three data, got 2"):
            figures.latent_means(fits[4].model, fits[4].guide, digits.test[:2])

    def test_classes_have_no_posterior_mean(self):
        def model(x):
            with pyro.plate("data", len(x)):
                k = pyro.sample("k", dist.Categorical(torch.ones(2)))
                pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("k", dist.Categorical(torch.ones(2)))

        with pytest.raises(InputError, match="site 'k' holds whole numbers"):
            figures.latent_means(model, guide, torch.ones(4))
