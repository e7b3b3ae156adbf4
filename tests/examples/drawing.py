"""What the tests of figures read back from them."""

import math
from dataclasses import replace

import numpy as np
import torch

import pyrovae as pv

QUIET = {"progress": False}


def posterior(oracle, scale=0.6, shift=0.4, **more):
    return pv.reference_posterior(
        oracle.model, pv.widened(oracle.guide, scale, shift=shift), oracle.draw(1, seed=0)[0], **more, **QUIET
    )


def boxes(figure):
    """Titles, labels, legends and the texts in the axes, and where they stand, in pixels."""
    figure.canvas.draw()
    artists = [figure._suptitle, figure._supxlabel, *figure.legends]
    for axes in figure.axes:
        artists += [axes.title, *axes.texts, axes.get_legend()]
        if axes.axison:
            artists += [axes.xaxis.label, axes.yaxis.label]
    found = [(artist, artist.get_window_extent()) for artist in artists if artist is not None]
    return [(str(artist), box) for artist, box in found if box.width > 0]


def text_boxes(figure):
    """The texts written into the axes and where they stand, in pixels."""
    figure.canvas.draw()
    return [(text.get_text(), text.get_window_extent()) for axes in figure.axes for text in axes.texts]


def whiskers(container):
    """(C, 2): both ends of each whisker of an errorbar."""
    (lines,) = container.lines[2]
    vertical = container.has_yerr
    return np.array([segment[:, int(vertical)] for segment in lines.get_segments()])


def infinite(record, name):
    return replace(record, **{name: torch.full_like(getattr(record, name), -math.inf)})


def assert_legible(figure):
    """Nothing is cut off, and no two texts overlap."""
    found = boxes(figure)
    width, height = figure.canvas.get_width_height()
    for place, (text, box) in enumerate(found):
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1, text
        for other, other_box in found[:place]:
            assert not box.overlaps(other_box), (text, other)
