"""Families: parameters -> Distribution. A likelihood and a variational family are the same kind of thing.

To add one: a file here, and its line in ``FAMILIES`` where it serves as a likelihood, in
:data:`pyrovae.programs.guides.GUIDES` as a guide.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyrovae.base.choices import handed_on, resolve

_CONTINUOUS, _COUNTS, _DISCRETE, _FAMILY, _LEVELS, _SPREAD, _MIXED = (
    f"{__name__}.{module}" for module in ("continuous", "counts", "discrete", "family", "levels", "spread", "columns")
)


@dataclass(frozen=True)
class Likelihood:
    """A family as p(x|z) of a decoder.

    Args:
        about: one line on its data.
        path: of its constructor.
        natural_for: the kind of data that take it where none is named: "counts", "bytes", "binary", "unit", "real" or
            "table".
        sizes: largest value of the data -> the constructor's arguments.
        source: where it comes from: authors and year.
        takes: the keyword arguments that numbers behind its name are, in this order: ``student-t:5``.
        of_columns: whether it is made of the columns of a table: its constructor takes ``kinds`` and ``means``.
    """

    about: str
    path: str
    natural_for: str | None = None
    sizes: Callable[[int], tuple[int, ...]] = lambda maximum: ()
    source: str = ""
    takes: tuple[str, ...] = ()
    of_columns: bool = False

    def __call__(self, maximum: int | None, **options: Any) -> Any:
        """The family for data whose largest value is ``maximum``, None where they have none."""
        return resolve(self.path)(*self.sizes(maximum or 1), **options)


def _largest(maximum: int) -> tuple[int, ...]:
    return (maximum,)


def _classes(maximum: int) -> tuple[int, ...]:
    return (maximum + 1,)


FAMILIES = {
    "bernoulli": Likelihood("binary data", f"{_DISCRETE}:bernoulli", "binary"),
    "categorical": Likelihood("classes from 0", f"{_DISCRETE}:categorical", sizes=_classes),
    "categorical-256": Likelihood("pixels of 8 bits, each level by itself", f"{_DISCRETE}:categorical_256"),
    "ordinal": Likelihood(
        "ordered classes from 0, by cut points", f"{_LEVELS}:ordinal", sizes=_classes, source="McCullagh (1980)"
    ),
    "binomial": Likelihood("counts up to their largest", f"{_DISCRETE}:binomial", "counts", _largest),
    "beta-binomial": Likelihood("the same, spread more", f"{_COUNTS}:beta_binomial", sizes=_largest),
    "poisson": Likelihood("counts without a bound", f"{_DISCRETE}:poisson"),
    "negative-binomial": Likelihood("the same, spread more", f"{_COUNTS}:negative_binomial"),
    "zero-inflated-poisson": Likelihood(
        "counts too many of which are zero", f"{_COUNTS}:zero_inflated_poisson", source="Lambert (1992)"
    ),
    "zero-inflated-negative-binomial": Likelihood(
        "the same, spread more", f"{_COUNTS}:zero_inflated_negative_binomial"
    ),
    "multinomial": Likelihood(
        "counts given their total: words of documents", f"{_COUNTS}:multinomial", takes=("total_count",)
    ),
    "discretised-logistic": Likelihood(
        "pixels of 8 bits; :5 is a mixture of five",
        f"{_LEVELS}:discretised_logistic",
        "bytes",
        source="Salimans et al. (2017)",
        takes=("num_components",),
    ),
    "binned-normal": Likelihood(
        "counts up to their largest, by bins of a normal", f"{_LEVELS}:binned_normal", sizes=_largest
    ),
    "continuous-bernoulli": Likelihood(
        "values from 0 to 1",
        f"{_CONTINUOUS}:continuous_bernoulli",
        "unit",
        source="Loaiza-Ganem and Cunningham (2019)",
    ),
    "beta": Likelihood("values between 0 and 1, both excluded", f"{_SPREAD}:beta"),
    "normal": Likelihood("real values, one learned scale for all", f"{_CONTINUOUS}:normal_of_one_scale", "real"),
    "normal-fixed": Likelihood("the same, of a fixed scale", f"{_CONTINUOUS}:normal_of", takes=("scale",)),
    "normal-per-feature": Likelihood("the same, a learned scale for each", f"{_CONTINUOUS}:normal_of_scales"),
    "normal-predicted": Likelihood("the same, scales that the decoder predicts", f"{_CONTINUOUS}:normal"),
    "low-rank-normal": Likelihood("real values, correlated by factors", f"{_SPREAD}:low_rank_normal", takes=("rank",)),
    "laplace": Likelihood("real values with exponential tails", f"{_SPREAD}:laplace"),
    "logistic": Likelihood("the same with a round top", f"{_SPREAD}:logistic"),
    "student-t": Likelihood(
        "real values with heavy tails; 5 degrees of freedom", f"{_SPREAD}:student_t", takes=("df",)
    ),
    "log-normal": Likelihood("positive values", f"{_SPREAD}:log_normal"),
    "gamma": Likelihood("positive values, less skewed", f"{_SPREAD}:gamma"),
    "mixed": Likelihood(
        "a table, each column by its kind",
        f"{_MIXED}:of_kinds",
        "table",
        source="Nazabal et al. (2020)",
        of_columns=True,
    ),
}

_PATHS = {
    **{name: f"{_DISCRETE}:{name}" for name in ("bernoulli", "binomial", "categorical", "poisson")},
    **{name: f"{_CONTINUOUS}:{name}" for name in ("continuous_bernoulli", "normal", "normal_of_scales")},
    **{name: f"{_COUNTS}:{name}" for name in ("beta_binomial", "multinomial", "negative_binomial")},
    **{name: f"{_COUNTS}:{name}" for name in ("zero_inflated_negative_binomial", "zero_inflated_poisson")},
    **{name: f"{_LEVELS}:{name}" for name in ("binned", "binned_normal", "discretised_logistic", "ordinal")},
    **{name: f"{_SPREAD}:{name}" for name in ("beta", "gamma", "laplace", "log_normal", "logistic")},
    **{name: f"{_SPREAD}:{name}" for name in ("low_rank_normal", "student_t")},
    **{name: f"{_MIXED}:{name}" for name in ("mixed", "of_kinds")},
    **{name: f"{__name__}.latents:{name}" for name in ("dirichlet", "one_hot", "power_spherical", "unimodal_beta")},
    **{name: f"{_FAMILY}:{name}" for name in ("Family", "Learned", "learned", "positive", "positive_inverse")},
}
__all__ = ["FAMILIES", "Likelihood", *_PATHS]
__getattr__, __dir__ = handed_on(__name__, _PATHS, "FAMILIES", "Likelihood")
