"""Families: parameters -> Distribution. A likelihood and a variational family are the same kind of thing.

To add one: a file here, and its line in ``FAMILIES`` where it serves as a likelihood, in ``GUIDES`` as a guide.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyrovae.base.choices import Choice, handed_on, resolve

_DISCRETE, _CONTINUOUS, _FAMILY = (f"{__name__}.{module}" for module in ("discrete", "continuous", "family"))


@dataclass(frozen=True)
class Likelihood:
    """A family as p(x|z) of a decoder.

    Args:
        about: one line on its data.
        path: of its constructor.
        natural_for: the kind of data that take it where none is named: "counts", "binary", "unit" or "real".
        sizes: largest value of the data -> the constructor's arguments.
    """

    about: str
    path: str
    natural_for: str | None = None
    sizes: Callable[[int], tuple[int, ...]] = lambda maximum: ()

    def __call__(self, maximum: int | None) -> Any:
        """The family for data whose largest value is ``maximum``, None where they have none."""
        return resolve(self.path)(*self.sizes(maximum or 1))


FAMILIES = {
    "bernoulli": Likelihood("binary data", f"{_DISCRETE}:bernoulli", "binary"),
    "continuous-bernoulli": Likelihood("values from 0 to 1", f"{_CONTINUOUS}:continuous_bernoulli", "unit"),
    "binomial": Likelihood("counts up to their largest", f"{_DISCRETE}:binomial", "counts", lambda largest: (largest,)),
    "categorical": Likelihood("classes from 0", f"{_DISCRETE}:categorical", sizes=lambda largest: (largest + 1,)),
    "poisson": Likelihood("counts without a bound", f"{_DISCRETE}:poisson"),
    "normal": Likelihood("real values, one learned scale for all", f"{_CONTINUOUS}:normal_of_one_scale", "real"),
}
GUIDES = {"normal": Choice("a mean and a scale for each latent", f"{_CONTINUOUS}:normal")}

_PATHS = {
    **{name: f"{_DISCRETE}:{name}" for name in ("bernoulli", "binomial", "categorical", "poisson")},
    **{name: f"{_CONTINUOUS}:{name}" for name in ("continuous_bernoulli", "normal")},
    **{name: f"{_FAMILY}:{name}" for name in ("Family", "Learned", "learned", "positive", "positive_inverse")},
}
__all__ = ["FAMILIES", "GUIDES", "Likelihood", *_PATHS]
__getattr__ = handed_on(__name__, _PATHS)
