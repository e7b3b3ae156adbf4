"""Families: parameters -> Distribution. A likelihood and a variational family are the same kind of thing."""

from pyrovae.programs.families.continuous import continuous_bernoulli, normal
from pyrovae.programs.families.discrete import bernoulli, binomial, categorical, poisson
from pyrovae.programs.families.family import Family, Learned, learned, positive, positive_inverse

__all__ = [
    "Family",
    "Learned",
    "bernoulli",
    "binomial",
    "categorical",
    "continuous_bernoulli",
    "learned",
    "normal",
    "poisson",
    "positive",
    "positive_inverse",
]
