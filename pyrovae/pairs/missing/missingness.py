r"""with_missingness(): a pair for data whose missing entries are missing for what they are.

.. math:: p(x_o, s, z, x') = p(z) \, p(x_o \mid z) \, p(x' \mid z) \, p(s \mid x_o, x'_m), \qquad
    q(z, x' \mid x_o) = q(z \mid x_o) \, p(x' \mid z)

The latent x' holds a value for each entry, of which those that were not observed are told by s. Both programs draw it
from p(x | z), so that its density cancels in every weight, and the bound of many particles is that of not-MIWAE.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.pairs.missing.observed import COMPLETE, Observed, may_have_missing
from pyrovae.pairs.supports import layers, of_full_shape
from pyrovae.pairs.traces import GIVEN, Program, family

MASK = "missingness"  # the site of s, and the name of its module
COMPLETED = "{name}.complete"  # the site of x'


class _Captured(Messenger):
    """The distribution of what is observed with missing entries, and the plates around it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, tuple[Any, Tensor, tuple[Any, ...]]] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if may_have_missing(msg):
            name, fn = msg["name"], msg["fn"]
            if GIVEN in (msg["infer"] or {}):
                raise InputError(f"site '{name}': give the model as it is for complete data, without observed_entries")
            self.found[name] = fn, of_full_shape(fn, msg["value"]), tuple(msg["cond_indep_stack"])
            msg["infer"] = {**(msg["infer"] or {}), COMPLETE: COMPLETED.format(name=name)}

    def one(self) -> tuple[str, Any, Tensor, tuple[Any, ...]]:
        """The one such site.

        Raises:
            InputError: naming the sites, where there is none or more than one, or entries depend on each other.
        """
        if len(self.found) != 1:
            names = ", ".join(f"'{name}'" for name in self.found) or "none"
            raise InputError(f"a model of what is missing goes with one site that observes real numbers; found {names}")
        ((name, (fn, value, plates)),) = self.found.items()
        base = layers(fn)[-1]
        if base.event_shape and not hasattr(base, "columns"):
            raise InputError(
                f"site '{name}' ({family(base)}): its entries depend on each other given the latents; a model of what "
                "is missing takes a family of each entry by itself"
            )
        return name, fn, value, plates


def _inside(plates: Sequence[Any]) -> ExitStack:
    """Inside of plates that a program was in; nobody is told that they are made again."""
    stack = ExitStack()
    with poutine.block():
        made = [
            pyro.plate(one.name, one.full_size, subsample=torch.arange(one.size), dim=one.dim)
            if one.full_size not in (None, one.size)
            else pyro.plate(one.name, one.size, dim=one.dim)
            for one in plates
        ]
    for plate in made:
        stack.enter_context(plate)
    return stack


@checked
def with_missingness(model: Program, guide: Program, missingness: Callable[..., Any]) -> tuple[Program, Program]:
    """The pair for data that are missing not at random: with a model of the mask as a further observed site.

    Everything that is done to a pair is done to this one: ``fit`` with ``objectives.IWAE(20)`` is not-MIWAE, evidence
    is that of the observed entries and the mask together, and :func:`~pyrovae.impute` draws by both.

    Args:
        model: program of p(x, z), for complete data, whose entries are independent given z.
        guide: program of q(z|x_o), which reads missing entries (NaN).
        missingness: complete data (..., *event) -> the distribution of the mask, 1 where an entry is observed; a module
            is trained with the pair: :func:`~pyrovae.self_masking`.

    Returns:
        Model and guide, for data with NaN where entries are missing: each of them is taken to be missing by this
        mechanism, entries hidden by ``observed=`` too. Sites are added: "missingness", which is observed, and a latent
        "x.complete" for the site "x".

    Raises:
        InputError: when they are run, naming the sites, where the model observes no site of real numbers or several, or
            entries depend on each other given the latents.

    References:
        Ipsen, Mattei and Frellsen (2021), not-MIWAE: deep generative modelling with missing not at random data, ICLR.
        Rubin (1976), Inference and missing data, Biometrika 63:581.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.missing_entries(3, 1)
        >>> x, _ = oracle.draw(20, seed=0)
        >>> pair = with_missingness(oracle.complete.model, oracle.guide, pv.self_masking(3, sign=1))
        >>> pv.evaluate(*pair, x, method="importance").measure
        {'x': 'density', 'missingness': 'mass'}
    """
    observed = Observed()

    def of_mask(*args: Any) -> None:
        if isinstance(missingness, nn.Module):
            pyro.module(MASK, missingness)
        with observed, _Captured() as captured:  # which meets sites first, as they are for complete data
            model(*args)
        name, fn, value, plates = captured.one()
        with _inside(plates):
            drawn = pyro.sample(COMPLETED.format(name=name), fn)
            seen = ~value.isnan()
            whole = torch.where(seen, value.nan_to_num(0.0), drawn.to(value.dtype))
            pyro.sample(MASK, missingness(whole), obs=seen.to(value.dtype))

    def of_guide(*args: Any) -> None:
        with poutine.trace() as drawn:
            guide(*args)
        with poutine.block(), _Captured() as captured, poutine.replay(trace=drawn.trace):
            model(*args)
        name, fn, _, plates = captured.one()
        with _inside(plates):
            pyro.sample(COMPLETED.format(name=name), fn)

    return of_mask, of_guide
