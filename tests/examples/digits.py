"""Digits on the scale of any likelihood: the first of counts, bits, fractions and what lies strictly inside (0, 1)."""

from dataclasses import replace
from functools import cache

import torch
from examples.families import built

import pyrovae as pv
from pyrovae.data.split import as_split


@cache
def SCALES():
    """The digits on each scale, by its name."""
    counts = pv.data.load("digits")
    inside = {part: as_split((getattr(counts, part).x + 0.5) / 17) for part in ("train", "valid", "test")}
    return {
        "counts": counts,
        "bits": pv.data.load("digits", binarization="static"),
        "fractions": pv.data.load("digits", divisor=16),
        "inside": replace(counts, kind="unit", maximum=1, **inside),
    }


def digits_for(likelihood):
    """The digits where an entry of ``FAMILIES`` gives each of the first a finite log density."""
    return next(dataset for dataset in SCALES().values() if takes(likelihood, dataset))


def takes(likelihood, dataset):
    """Whether an entry of ``FAMILIES`` gives each of the first digits of a scale a finite log density."""
    with torch.random.fork_rng():
        family, x = built(likelihood(dataset.maximum), dataset.shape, dtype=torch.float32), dataset.train.x[:50]
    return bool(family.support.check(x).all()) and bool(family.log_prob(x).isfinite().all())
