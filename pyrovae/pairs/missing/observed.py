r"""observed_entries(): a model of whole data as a model of what was observed of them, without an edit of the model.

.. math:: p(x_o, z) = p(z) \int p(x_o, x_m \mid z)\, dx_m

A missing entry is NaN. Whatever is done to a pair (a fit, evidence, gaps, surgery, calibration, annealing) is then done
to the observed entries; where what is missing depends on observed entries alone, nothing is lost by that (Rubin 1976).
"""

from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from pyrovae.base.arguments import checked
from pyrovae.pairs.handlers import inside
from pyrovae.pairs.missing.entries import check_whole, completed, of_entries
from pyrovae.pairs.supports import a_value, layers, of_full_shape, over_event, scored, support_of
from pyrovae.pairs.traces import GIVEN, Program

COMPLETE = "_complete"  # in a site's ``infer``: the latent site that holds what it would observe, were it complete
MOMENTS = "_moments"  # in a site's ``infer``: mean and variance of what was observed in part, see :func:`completing`


def may_have_missing(msg: Any) -> bool:
    """Whether a site observes values that may be missing: numbers of a family with a support."""
    value, infer = msg["value"], msg["infer"] or {}
    if not msg["is_observed"] or infer.get("_deterministic") or support_of(layers(msg["fn"])[-1]) is None:
        return False
    return isinstance(value, Tensor) and value.is_floating_point()


class Observed(Messenger):
    """Leaves what is missing out of the densities of what is observed; see :func:`observed_entries`."""

    def __init__(self) -> None:
        super().__init__()
        self.fillers: dict[tuple[str, ...], float | None] = {}  # found in a first run: later ones look at no value

    def _pyro_sample(self, msg: Any) -> None:
        if not may_have_missing(msg) or GIVEN in (msg["infer"] or {}):  # which another such handler has left out
            return
        fn, value = msg["fn"], of_full_shape(msg["fn"], msg["value"])
        seen = ~value.isnan()
        if get_proxy_mode() is None:
            check_whole(msg["name"], fn, seen)
        msg["infer"] = {GIVEN: msg["value"], **(msg["infer"] or {})}
        msg["fn"], msg["value"] = of_entries(fn, seen), self._filled((msg["name"],), fn, value, seen)

    def _filled(self, key: tuple[str, ...], fn: Any, value: Tensor, seen: Tensor) -> Tensor:
        """Values with a harmless one where they are missing: under a mask, a NaN would still make the gradient NaN."""
        base = layers(fn)[-1]
        if hasattr(base, "parts") and hasattr(base, "columns"):
            filled = torch.zeros_like(value)
            for label, part, places in zip(base.names, base.parts, base.columns, strict=True):
                filled[..., places] = self._filled((*key, label), part, value[..., places], seen[..., places])
            return filled
        support = support_of(base)
        if key not in self.fillers:
            self.fillers[key] = inside(support, value)
        filler = self.fillers[key]
        if filler is not None:
            return torch.where(seen, value, filler)
        harmless, event_dim = a_value(base, value), support.event_dim
        whole = over_event(seen.flatten(seen.dim() - event_dim).all(-1), event_dim) if event_dim else seen
        return value.nan_to_num() if harmless is None else torch.where(whole, value, harmless)


@checked
def observed_entries(model: Program) -> Program:
    """The model of what was observed: missing entries (NaN) do not count in its density.

    Entries are left out one by one where they are independent given the latents, inside an event too (a pixel of an
    image, a column of a row); normals and mixtures are integrated over them. An event of any other family
    (a multinomial count) may be missing as a whole, not in part. Whether anything is missing is not looked at, so that
    a compiled fit stays one graph.

    The guide is to read NaN: :func:`pyrovae.networks.masked_input` makes a network that does.

    Args:
        model: program of p(x, z), whose data may hold NaN.

    Raises:
        InputError: when it is run, naming the site, where a part of an event is missing whose family has no density of
            a part.

    References:
        Rubin (1976), Inference and missing data, Biometrika 63:581.
        Mattei and Frellsen (2019), MIWAE: deep generative modelling and imputation of incomplete data sets,
        arXiv:1812.02633.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.missing_entries(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> model = observed_entries(oracle.complete.model)  # which knows of no missing entries
        >>> report = pv.evaluate(model, oracle.guide, x)
        >>> bool((report.log_evidence - oracle.log_evidence(x)).abs().max() < 1e-9)
        True
    """
    return Observed()(model)


class _Completing(Messenger):
    def _pyro_sample(self, msg: Any) -> None:
        if may_have_missing(msg):
            given = (msg["infer"] or {}).get(GIVEN, msg["value"])
            value = of_full_shape(msg["fn"], given)
            found = completed(msg["fn"], value, ~value.isnan() & scored(msg, value, 0))
            msg["infer"] = {**(msg["infer"] or {}), MOMENTS: (found.mean, found.variance), GIVEN: given}
            msg["value"] = found.value


def completing(model: Program) -> Program:
    """The model with what is missing drawn from p(x_m | x_o, z); moments of all entries go with a site.

    That is what is NaN, and what a mask of the model's own leaves out.
    """
    return _Completing()(model)
