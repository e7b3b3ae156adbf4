"""A plane through a latent space: its axes, and the regions that contours hold."""

import numpy as np
import pytest

from pyrovae.base.errors import InputError
from pyrovae.reports.explorer import plane

BOX = (-5.0, 5.0, -5.0, 5.0)


def test_coordinates_and_latents_are_each_others_inverse():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(50, 4)) * [0.1, 3.0, 1.0, 0.5] + 1
    for which in (None, (3, 0)):
        found = plane.chosen(codes, list("abcd"), which)
        np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(4), atol=1e-12)
        np.testing.assert_allclose(found.latents(found.coordinates(codes)), codes)
    assert plane.chosen(codes, list("abcd"), (3, 0)).names == list("dabc")
    first = plane.chosen(codes, list("abcd"), None)
    assert np.abs(first.axes[0]).argmax() == 1 and first.names[0].startswith("principal axis 1 (")
    assert plane.chosen(codes[:, :2], ["a", "b"], None).origin.tolist() == [0, 0]


def test_what_spans_no_plane_is_refused():
    with pytest.raises(InputError, match="at least three data, got 2"):
        plane.chosen(np.zeros((2, 3)), list("abc"), None)
    with pytest.raises(InputError, match=r"two of the coordinates 0..2, got \(1, 1\)"):
        plane.chosen(np.zeros((9, 3)), list("abc"), (1, 1))


def test_contours_hold_their_mass():
    nodes = plane.nodes_of(BOX, 201)
    density = np.exp(-0.5 * (nodes**2).sum(-1))
    for found in plane.contours(density, BOX):
        radii = np.hypot(*np.concatenate(found["lines"]).reshape(-1, 2).T)
        np.testing.assert_allclose(radii, np.sqrt(-2 * np.log(1 - found["mass"])), atol=0.02)


def test_shades_have_their_place_and_a_square_holds_the_points():
    points = np.random.default_rng(0).normal([2.0, -3.0], 0.2, (4000, 2))
    picture = plane.shades(plane.smoothed(points, BOX, 50))
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert (picture.max(), picture.dtype) == (255, np.uint8)
    assert abs(column - 35) <= 2 and abs(row - 40) <= 2  # from the left, and from the top
    left, right, bottom, top = plane.square_about(points)
    assert right - left == pytest.approx(top - bottom)
    inside = (points > [left, bottom]).all(1) & (points < [right, top]).all(1)
    assert inside.mean() > 0.99
