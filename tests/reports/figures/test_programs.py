"""What a pair makes of data, read back from the artists."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

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

    def test_photographs_are_no_negatives(self, digits):
        """Faces have no ground of one value; digits do: their paper is white."""
        faces = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
        faces[0, 2, 3], faces[0, 5, 5] = 1.0, 0.0

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                loc = torch.zeros(8, 8).expand(*z.shape, 8, 8)
                pyro.sample("x", dist.Normal(loc, 1.0).to_event(2), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        def first(data, **options):
            (axes,) = figures.reconstructions(model, guide, data, num=4, **options).axes
            shown = axes.images[0].get_array()[..., 0]
            scale = (shown.shape[0] // 2 - 2) // 8
            return shown[1 : 1 + 8 * scale : scale, 1 : 1 + 8 * scale : scale]

        assert np.corrcoef(first(faces).ravel(), faces[0].ravel())[0, 1] > 0.99
        assert np.corrcoef(first(faces, invert=True).ravel(), faces[0].ravel())[0, 1] < -0.99
        ink = digits.test.x[:4]
        assert np.corrcoef(first(ink).ravel(), ink[0].ravel())[0, 1] < -0.99

    def test_interpolation(self, every):
        (axes,) = every["interpolation"].axes
        assert len(axes.images) == 3
        assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "0", "0.5", "1", "x′"]

    def test_a_line_needs_two_data(self, fits, digits):
        with pytest.raises(InputError, match="a line needs two data and two steps, got 1 data"):
            figures.interpolation(fits[2].model, fits[2].guide, digits.test[:1])
