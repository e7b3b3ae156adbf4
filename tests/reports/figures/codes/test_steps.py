"""Steps of EM as a curve, and as ellipses where there are two values."""

import numpy as np
import pytest
import torch
from examples.drawing import assert_legible

import pyrovae as pv
from pyrovae.reports.figures.codes.steps import _ellipse


def record(dim):
    noise = torch.randn(80, dim, generator=torch.Generator().manual_seed(0)).double()
    x = noise + 4 * (torch.arange(80) % 2)[:, None]
    return pv.baselines.Steps.of("a mixture", x, pv.baselines.mixture_steps(x, 2, num_steps=30))


def test_a_mixture_in_a_plane_is_shown_at_some_of_its_steps():
    found = record(2)
    curve, *panels = pv.figures.draw(found).axes
    np.testing.assert_allclose(curve.lines[0].get_ydata(), found.log_evidence)
    assert panels[0].get_title() == "step 0" and panels[-1].get_title() == f"step {len(found) - 1}"
    assert all(len(axes.patches) == 2 and axes.get_xlabel() == "x[0]" for axes in panels)
    assert panels[0].get_ylabel() == "x[1]"


def test_more_values_have_the_curve_alone():
    assert len(pv.figures.em_steps(record(3)).axes) == 1


def test_an_ellipse_is_two_standard_deviations():
    turned = torch.linalg.qr(torch.tensor([[3.0, 1.0], [1.0, 2.0]]).double()).Q
    covariance = turned @ torch.diag(torch.tensor([9.0, 1.0]).double()) @ turned.T
    shape = _ellipse(torch.zeros(2), covariance)
    assert (shape.width, shape.height) == (pytest.approx(12), pytest.approx(4))
    axis = np.array([np.cos(np.radians(shape.angle)), np.sin(np.radians(shape.angle))])
    assert abs(axis @ turned[:, 0].numpy()) == pytest.approx(1)


def test_it_is_legible():
    assert_legible(pv.figures.em_steps(record(2)))
