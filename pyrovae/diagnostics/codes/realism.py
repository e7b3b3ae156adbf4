r"""How real an image is, in numbers: its distance to the training data, a classifier's confidence, another's log p.

.. math:: \min_n |x - x_n|, \qquad \max_y \hat p(y \mid x), \qquad \log p_0(x)

None is the truth: a copy of a training datum is at distance 0, a classifier may be sure of nonsense, and the mean of
all images is likely under many densities. They are to be read beside those of data that no fit has seen.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.diagnostics.codes.geometry import nearest

Density = Callable[[Tensor], Tensor]


class Scores(NamedTuple):
    """Of M groups of T images each, (M, T) float64; NaN where nothing tells."""

    distance: Tensor  # Euclidean, to the nearest training datum
    confidence: Tensor  # largest class probability
    log_density: Tensor  # nats
    kept: Tensor  # of walks: whether the class is that of the middle one of the group, 0 or 1


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of (M, T), and its standard error over the M groups."""
    each = values.mean(1)
    return float(each.mean()), float(each.std() / len(each) ** 0.5) if len(each) > 1 else float("nan")


class Judges:
    """What images are judged by.

    Args:
        train: the training data, (N, *shape).
        labels: their classes, (N,), or None.
        classifier: fitted, with scikit-learn's ``predict_proba`` on rows (n, D); None fits a forest of 100 trees.
        density: images (n, *shape) -> log p in nats, (n,); None gives NaN.
        seed: of the forest.
    """

    def __init__(
        self, train: Tensor, labels: Tensor | None, *, classifier: Any, density: Density | None, seed: int
    ) -> None:
        self.rows = train.flatten(1).double()
        self.shape, self.density = train.shape[1:], density
        self.is_whole = bool((train == train.round()).all())
        self.classifier = classifier or (None if labels is None else _forest(self.rows, labels, seed))

    def image(self, mean: Tensor) -> Tensor:
        """An image from means of pixels: the nearest whole numbers, where the data are such."""
        return mean.round() if self.is_whole else mean

    def __call__(self, images: Tensor, *, of_walks: bool = False) -> Scores:
        """The scores of (M, T, *shape)."""
        flat, size = images.flatten(0, 1).double(), images.shape[:2]
        rows = flat.flatten(1)
        distance, _ = nearest(rows, self.rows)
        log_density = rows.new_full((len(rows),), torch.nan) if self.density is None else self.density(flat).double()
        confidence = kept = torch.full(size, torch.nan, dtype=torch.float64)
        if self.classifier is not None:
            chances = torch.as_tensor(self.classifier.predict_proba(rows.numpy()), dtype=torch.float64)
            confidence, found = chances.unflatten(0, size).max(-1)
            kept = kept if not of_walks else (found == found[:, size[1] // 2, None]).double()
        return Scores(distance.view(size), confidence, log_density.detach().cpu().view(size), kept)


def _forest(rows: Tensor, labels: Tensor, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, random_state=seed).fit(rows.numpy(), labels.cpu().numpy())
