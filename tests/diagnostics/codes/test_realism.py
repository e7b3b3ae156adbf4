"""Judges: what is a training datum is at distance zero, what is whole stays whole, and a group's class is its middle's."""

import pytest
import torch

from pyrovae.diagnostics.codes.realism import Judges, mean_and_error

X = torch.arange(4.0)[:, None, None].expand(4, 2, 2).contiguous()
LABELS = torch.tensor([0, 0, 1, 1])


class ByMean:
    """A classifier that is the surer of class 1 the larger the mean."""

    def predict_proba(self, rows):
        chance = torch.as_tensor(rows).mean(1) / 4
        return torch.stack([1 - chance, chance], 1).numpy()


def judges(**options):
    return Judges(
        X, LABELS, **({"classifier": ByMean(), "density": lambda x: -x.flatten(1).sum(1), "seed": 0} | options)
    )


def test_scores_of_images_by_hand():
    images = torch.stack([X[1], X[1] + 0.25, X[3]])[None]
    scores = judges()(images, of_walks=True)
    assert scores.distance.tolist() == [[0, 0.5, 0]]
    assert scores.confidence.tolist() == [[0.75, 0.6875, 0.75]]
    assert scores.log_density.tolist() == [[-4, -5, -12]]
    assert scores.kept.tolist() == [[1, 1, 0]] and judges()(images).kept.isnan().all()


def test_whole_numbers_are_shown_as_such():
    assert torch.equal(judges().image(torch.tensor([1.4, 1.6])), torch.tensor([1.0, 2.0]))
    fractions = Judges(X / 3, LABELS, classifier=ByMean(), density=None, seed=0)
    assert torch.equal(fractions.image(torch.tensor([1.4])), torch.tensor([1.4]))


def test_what_nothing_tells_is_not_a_number():
    scores = Judges(X, None, classifier=None, density=None, seed=0)(X[:, None])
    assert scores.confidence.isnan().all() and scores.log_density.isnan().all() and scores.distance.sum() == 0


def test_a_forest_knows_the_training_data():
    rows = torch.cat([X, X + 0.01]).repeat(5, 1, 1)
    found = Judges(rows, LABELS.repeat(10), classifier=None, density=None, seed=0)(X[:, None])
    assert found.confidence.min() > 0.8


def test_errors_are_over_groups():
    values = torch.tensor([[1.0, 3.0], [5.0, 7.0]]).double()
    assert mean_and_error(values) == (4.0, pytest.approx(2.0))
    assert mean_and_error(values[:1])[1] != mean_and_error(values[:1])[1]
