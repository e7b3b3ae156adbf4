"""What a page runs itself of a VAE: the layers of its networks, the families' names and constants, the prior."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyro.distributions as dist
import torch
from torch import Size, Tensor

from pyrovae.apps.explorer.layers import Unreadable, read
from pyrovae.programs.conditional import Conditional
from pyrovae.programs.distributions.mixtures import NormalMixture
from pyrovae.programs.families.family import positive
from pyrovae.programs.priors.exemplars import Kernels
from pyrovae.programs.vae import VAE
from pyrovae.reports.explorer.plane import Box, nodes_of

MOST_COMPONENTS = 2000
NODES = 161  # along each axis, of a prior that is tabled
OWN_FAMILIES = "pyrovae.programs.families."
_LEARNED = ("normal(scale learned)", "normal(scales learned)")
_ELEMENTWISE = ("bernoulli", "poisson", "continuous_bernoulli", "normal", "laplace", "logistic", "log_normal", "gamma")
_PLAIN = (*_ELEMENTWISE, "beta")


class Live(NamedTuple):
    """What a page runs: of p(x|z), of q(z|x) where it can, of p(z)."""

    decoder: dict[str, Any]
    encoder: dict[str, Any] | None
    prior: dict[str, Any]
    guide: dict[str, np.ndarray] | None  # mean and scale of q(z|x), (n, D), where it is a normal of such
    reason: str  # why there is no encoder


def live(model: Any, guide: Any, box: Box, x: Tensor, prior_draws: np.ndarray) -> Live:
    """What of a pair a page can run; for use inside ``isolated``.

    Args:
        model: program of p(x, z), unwrapped.
        guide: program of q(z|x), unwrapped.
        box: of the plane, where there are two latents and their prior has to be tabled.
        x: rows of data (n, *shape).
        prior_draws: (S, D).

    Raises:
        Unreadable: where its decoder cannot be run, in words that say why.
    """
    vae = _vae(model, guide)
    z = torch.from_numpy(prior_draws[:1]).to(x.device)
    decoder, prior = _decoder(vae.decoder, z), _prior(vae.prior(), box, prior_draws)
    guide = _normal(vae.encoder(x), z.shape[1])
    try:
        return Live(decoder, _encoder(vae.encoder, x, z.shape[1]), prior, guide, "")
    except Unreadable as reason:
        return Live(decoder, None, prior, guide, str(reason))


def _vae(model: Any, guide: Any) -> Any:
    vae = getattr(model, "__self__", None)
    whole = type(vae) is VAE and model.__func__ is VAE.model and getattr(guide, "__func__", None) is VAE.guide
    if not (whole and guide.__self__ is vae):
        raise Unreadable("the programs are not those of a pyrovae.VAE")
    return vae


def _conditional(part: Any, whose: str) -> Conditional:
    if type(part) is not Conditional or not isinstance(part.event_shape, Size):
        raise Unreadable(f"the {whose} is a {type(part).__name__}, not a pyrovae.Conditional")
    if not part.family.build.__module__.startswith(OWN_FAMILIES):
        raise Unreadable(f"the family of the {whose} is one's own, {part.family.name}")
    return part


def _decoder(part: Any, z: Tensor) -> dict[str, Any]:
    decoder = _conditional(part, "decoder")
    return {"layers": read(decoder.network, z.shape[1:])[0], "family": _family(decoder, z)}


def _family(decoder: Conditional, z: Tensor) -> dict[str, Any]:
    """What ``FAMILIES`` of the page's densities calls it, with its constant and what is learned without a network."""
    family, base = decoder.family, getattr(decoder(z), "base_dist", None)
    name = family.name.partition("(")[0]
    found: dict[str, Any] = {"size": decoder.event_shape.numel(), "constant": None, "free": None}
    if family.name in _LEARNED:
        return found | {"name": "normal of learned scales", "free": _flat(positive(decoder.free[0]))}
    if name == "normal" and family.name != "normal":
        return found | {"name": "normal of a scale", "constant": float(base.scale.flatten()[0])}  # type: ignore[union-attr]
    constant = _CONSTANTS.get(name)
    if constant is None and name not in (*_PLAIN, "negative_binomial"):
        raise Unreadable(f"the likelihood is {family.name}")
    free = _flat(decoder.free[0]) if name == "negative_binomial" else None
    return found | {"name": name, "constant": constant and constant(base), "free": free}


_CONSTANTS: dict[str, Callable[[Any], float]] = {
    "binomial": lambda base: base.total_count,
    "beta_binomial": lambda base: base.total_count,
    "categorical": lambda base: base.logits.shape[-1],
    "student_t": lambda base: float(base.df.flatten()[0]),
}


def _normal(q: Any, num_latents: int) -> dict[str, np.ndarray] | None:
    base = getattr(q, "base_dist", None)
    if type(base) is not dist.Normal or q.event_shape != Size([num_latents]) or len(q.batch_shape) != 1:
        return None
    return {"mean": base.loc.cpu().numpy(), "scale": base.scale.expand(base.loc.shape).cpu().numpy()}


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().float().reshape(-1).numpy()


def _encoder(part: Any, x: Tensor, num_latents: int) -> dict[str, Any]:
    encoder = _conditional(part, "guide's encoder")
    if encoder.family.name != "normal" or encoder.event_shape != Size([num_latents]):
        raise Unreadable(f"the encoder gives another family, {encoder.family.name}")
    return {"layers": read(encoder.network, x.shape[1:])[0]}


# ---------------------------------------------------------------------------------------------------------- the prior


def _prior(prior: Any, box: Box, draws: np.ndarray) -> dict[str, Any]:
    """A mixture of normals as it is; another in the plane of two latents as a table, or else as draws alone."""
    parts = _components(prior)
    if parts is not None and len(parts[2]) <= MOST_COMPONENTS:
        arrays = (part.float().cpu().numpy() for part in parts)
        return {"kind": "mixture", **dict(zip(("locs", "scales", "logits"), arrays, strict=True))}
    if draws.shape[1] != 2:
        return {"kind": "draws", "values": None, "box": None, "draws": draws[:MOST_COMPONENTS]}
    nodes = torch.from_numpy(nodes_of(box, NODES)).float()
    values = prior.log_prob(nodes.to(_device(prior))).cpu().numpy()
    return {"kind": "table", "values": np.maximum(values, -1e4), "box": list(box), "draws": draws[:MOST_COMPONENTS]}


def _device(prior: Any) -> torch.device:
    return prior.sample().device


def _components(prior: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    """Means and scales (C, D) and logits (C,), where a prior is a mixture of normals, each coordinate by itself."""
    if isinstance(prior, NormalMixture):
        return prior.locs, prior.scales, prior.logits
    if isinstance(prior, Kernels):
        scales = prior.scale.expand(prior.centres.shape)
        return prior.centres, scales, torch.zeros(len(prior.centres))
    if isinstance(prior, dist.MixtureSameFamily):
        one = _components(prior.component_distribution)
        return None if one is None else (one[0], one[1], prior.mixture_distribution.logits)
    base = getattr(prior, "base_dist", None)
    if type(base) is not dist.Normal or prior.event_shape != base.batch_shape[-1:]:
        return None
    locs = base.loc.reshape(-1, base.loc.shape[-1])
    return locs, base.scale.reshape(locs.shape), torch.zeros(len(locs))
