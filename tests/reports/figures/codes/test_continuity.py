"""Scores with their errors, and images with their scores."""

from dataclasses import replace

import numpy as np
import pytest
from examples.drawing import assert_legible
from examples.fits_of_codes import compared

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.diagnostics.codes.continuity import PARTS


def test_every_part_by_every_score():
    record = compared()
    figure = pv.figures.draw(record)
    assert len(figure.axes) == 3
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(PARTS)
    points = np.array(figure.axes[0].containers[1][0].get_xdata(), dtype=float)  # of the second fit
    expected = [record.named_rows()[f"VAE: {part}"]["distance"] for part in PARTS]
    np.testing.assert_allclose(points, expected)


@pytest.mark.parametrize("part", PARTS)
def test_images_of_a_part_and_their_scores(part):
    record = compared()
    (axes,) = pv.figures.continuity(record, part=part, num=2).axes
    assert len(axes.images) == 2
    told = [text.get_text() for text in axes.texts]
    whose = [text.split(",")[0] for text in told]
    assert {"autoencoder", "VAE"} <= set(whose)
    assert any("confidence" in text and "distance" in text for text in told)
    if part == "walk":
        assert "−2.0 sd" in told and any("ink moves by" in text for text in told)


def test_ink_is_dark_in_every_part_or_in_none():
    """The prior's draws have no clean ground by which to tell: reconstructions say which it is."""
    record = compared()
    reached = {part: each.clone() for part, each in record.images["VAE"].items()}
    reached["reconstruction"][..., :4] = 0  # a ground
    reached["prior"] = reached["prior"].clamp_min(4)  # and none
    shown = replace(record, names=["VAE"], images={"VAE": reached})
    signs = set()
    for part in PARTS:
        (axes,) = pv.figures.continuity(shown, part=part).axes
        drawn = np.asarray(axes.images[0].get_array(), dtype=float)[4:64:8, 4:64:8, 0]  # a dot of each pixel
        signs.add(np.sign(np.corrcoef(drawn.ravel(), reached[part][0, 0].ravel())[0, 1]))
    assert len(signs) == 1


def test_a_part_that_is_none():
    with pytest.raises(InputError, match=r"part must be one of reconstruction.* did you mean \"prior\""):
        pv.figures.continuity(compared(), part="pior")


@pytest.mark.parametrize("part", [None, "gaps", "linear", "walk"])
def test_they_are_legible(part):
    assert_legible(pv.figures.continuity(compared(), part=part))
