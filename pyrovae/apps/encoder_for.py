r"""encoder_for(): a guide for the latents of any model, amortized over its data, without a line of guide written.

.. math:: q(z_1, \ldots, z_L \mid x) = \prod_l q_l(z_l \mid x, z_1, \ldots, z_{l-1})

A few runs of the model show its latent sites, with their plates and supports, and where its prior draws: each site gets
a head on that support, all heads share a network of the data. Here a run is read and the guide is built, as only the
applications may import what reads runs and what writes programs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import biject_to, constraints

from pyrovae.apps.recipes import choose
from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, whole
from pyrovae.base.memory import blocks_of, out_of_memory
from pyrovae.base.random import seed_everything, seed_of
from pyrovae.data.split import Split, as_split
from pyrovae.pairs.context import isolated, own_scope
from pyrovae.pairs.structure import Generative, LatentSite, describe_model
from pyrovae.pairs.supports import (
    base_measure,
    bounds,
    innermost,
    is_narrowed,
    latent_support,
    layers,
    support_text,
    to_support,
)
from pyrovae.pairs.traces import Program
from pyrovae.pairs.traces import family as name_of
from pyrovae.programs import networks
from pyrovae.programs.guides import heads
from pyrovae.programs.guides.encoder import Encoder, Latent, Plate, Trunk
from pyrovae.programs.guides.inputs import Labels, Numbers
from pyrovae.programs.guides.layout import Layout
from pyrovae.programs.parameters import seeded

COVARIANCES = {
    "full covariance": "a Gaussian of full covariance in the unconstrained space of each site",
    "diagonal": "a scale for each coordinate",
    "flow": "a full covariance of noise from a spline autoregressive flow",
}
LOOKED_AT = 100  # rows that the model is run on, if it runs on fewer than all
NUM_DRAWS = 1000  # of each latent, over rows and runs, for where the prior draws
BLOCK = 10_000  # rows whose means are taken at once
MOST_CLASSES = 100  # of labels that are read one by one, else as a number
BY_HAND = "write its guide by hand"


@checked
def encoder_for(
    model: Program,
    data: Any,
    *,
    family: str = "full covariance",
    hidden: Sequence[int] = (200,),
    network: Callable[[int], nn.Module] | None = None,
    seed: int = 0,
    plate: str | None = None,
) -> Encoder:
    """A guide for a model: one network of the data, and a head for each latent site on the support of that site.

    Heads are drawn from in the order of the model, and each reads what was drawn before it, so that dependence between
    sites is kept. Locations and logits are linear in standardized data and earlier draws, plus what hidden layers
    add. Real, positive and bounded latents, simplices, ordered vectors and correlation matrices are Gaussian (or a
    flow) in unconstrained space; Bernoulli, categorical and one-hot latents have probabilities of
    their own for each datum, angles are von Mises.

    Args:
        model: program of p(x, z), with one plate over the data.
        data: what it takes: a :class:`~pyrovae.data.Split`, a tensor (N, ...), or a tuple of tensors. Missing entries
            (NaN) are read as zeros beside a mask; labels (whole numbers in one dimension) as classes.
        family: of the coordinates of one site: "full covariance", "diagonal", or "flow" (for what is skewed
            or has several modes; its density at values from elsewhere takes as many passes as there are coordinates,
            and its fit is not compiled).
        hidden: widths of the hidden layers that heads share; each head has one more of the last width.
        network: reads the first argument in their place: a function of how many features it must give, as
            :func:`pyrovae.networks.conv_encoder` returns; what it reads is standardized.
        seed: of the weights.
        plate: name of the data plate, where several plates hold all sites.

    Returns:
        The guide, a module: ``fit(model, guide, data)``, then ``evaluate(fitted.model, fitted.guide, data)``.

    Raises:
        InputError: naming the site, for a latent outside the data plate, one on an unbounded or unknown discrete
            support, on one that moves or is trained, or under a mask; for a model without latents; for data that are
            no rows.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(100, seed=0)
        >>> guide = encoder_for(oracle.model, x, hidden=(20,))
        >>> fitted = pv.fit(oracle.model, guide, x, epochs=2)
        >>> len(pv.evaluate(fitted.model, fitted.guide, x, num_particles=100).log_evidence)
        100
    """
    choose("family", family, COVARIANCES)
    split, hidden = as_split(data), _widths(hidden)
    with isolated(model, model) as (model, _, device):
        seed_everything("encoder_for looks", seed)
        args, found = _look(model, split, device, plate)
        if not found.latents:
            raise InputError("the model has no latent site: it needs no guide, log p(x) is its log density")
        layout = Layout(found.data.dim, found.depth)
        over_data = Plate(found.data.name, layout.dim, _fixed_size(model, args, found.data))
        dtype = _dtype(found.latents, args)
        with seeded(seed_of("encoder_for weights", seed)):
            latents = [_latent(name, site, layout, family) for name, site in found.latents.items()]
            columns = _columns(split, args, dtype)
            trunk = _trunk(columns, hidden, args[0], network)
            return Encoder(latents, over_data, found.depth, columns, trunk, hidden[-1]).to(device, dtype)


def _widths(hidden: Sequence[int]) -> tuple[int, ...]:
    widths = tuple(whole("hidden: a width", width) for width in hidden)
    if not widths or min(widths) < 1:
        raise InputError(
            f"hidden: give the width of at least one hidden layer, each from 1, (200,) for one; got {hidden}"
        )
    return widths


def _look(model: Program, split: Split, device: torch.device, plate: str | None) -> tuple[list[Tensor], Generative]:
    """The first rows, and what the model shows on them; all rows, where it runs on no fewer."""

    def look(rows: int) -> tuple[list[Tensor], Generative]:
        args = [tensor.to(device) for tensor in split.batch(slice(0, rows))]
        with own_scope(model, model), torch.enable_grad():  # gradients tell which bounds are trained
            num_runs = max(2, NUM_DRAWS // max(10, rows))
            return args, describe_model(model, args, plate=plate, num_runs=num_runs)

    few = min(LOOKED_AT, len(split))
    try:
        return look(few)
    except (ValueError, RuntimeError) as error:
        if few == len(split) or out_of_memory(error) or str(few) not in str(error):
            raise  # what is said is not of the number of rows
    return look(len(split))


def _fixed_size(model: Program, args: Sequence[Tensor], frame: Any) -> int | None:
    """How many data the plate stands for; None where that follows the rows, as a look at one row less shows."""
    if frame.full_size == frame.size > 1:
        try:
            with own_scope(model, model):
                frame = describe_model(model, [arg[:-1] for arg in args], plate=frame.name, num_runs=1).data
        except (ValueError, RuntimeError):
            return None  # it runs on all these rows alone
    return None if frame.full_size == frame.size else frame.full_size


def _dtype(latents: dict[str, LatentSite], args: Sequence[Tensor]) -> torch.dtype:
    """That of the model's real latents, else of the data, so that both programs compute alike."""
    drawn = [site.draws.dtype for site in latents.values()]
    found = [dtype for dtype in (*drawn, *(arg.dtype for arg in args)) if dtype.is_floating_point]
    return found[0] if found else torch.get_default_dtype()


# ----------------------------------------------------------------------------------------------- what is read


def _trunk(columns: Sequence[Any], hidden: tuple[int, ...], x: Tensor, network: Any) -> Trunk:
    size = sum(column.size for column in columns)
    if network is None:
        return Trunk(networks.mlp(size, *hidden[:-1], activation=nn.SiLU)(hidden[-1]), (size,), 0, hidden[-1])
    if not isinstance(columns[0], Numbers):
        raise InputError("network= reads the first argument, which holds labels: give the observations first")
    return Trunk(network(hidden[-1]), tuple(x.shape[1:]), size - x[0].numel(), hidden[-1])


def _columns(split: Split, args: Sequence[Tensor], dtype: torch.dtype) -> list[Numbers | Labels]:
    """What reads each argument, by all rows of the data."""
    numbers = [arg.double().nanmean(0).nan_to_num() for arg in args]  # near the means, so that sums keep their digits
    sums = [torch.zeros(4, *one.shape, dtype=torch.float64, device=one.device) for one in numbers]
    labels = [arg.dim() == 1 and not arg.is_floating_point() and arg.dtype != torch.bool for arg in args]
    classes = [arg.new_zeros(0, dtype=torch.int64) for arg in args]
    for rows in blocks_of(len(split), BLOCK):
        for i, x in enumerate(split.batch(rows)):
            sums[i] += _sums(x.to(numbers[i].device).double() - numbers[i])
            if labels[i]:
                classes[i] = torch.cat([classes[i], x.to(classes[i])]).unique()
                labels[i] = len(classes[i]) <= MOST_CLASSES
    like = torch.zeros((), dtype=dtype)
    return [
        Labels(found, like) if is_label else _numbers(near, total)
        for near, total, found, is_label in zip(numbers, sums, classes, labels, strict=True)
    ]


def _sums(x: Tensor) -> Tensor:
    """Over rows: how many entries were seen and how many not, their sum, and that of their squares."""
    seen, filled = ~x.isnan(), x.nan_to_num()
    return torch.stack([seen.sum(0), (~seen).sum(0), filled.sum(0), filled.square().sum(0)])


def _numbers(near: Tensor, total: Tensor) -> Numbers:
    count = total[0].clamp_min(1)
    mean = total[2] / count
    variance = (total[3] / count - mean.square()).clamp_min(0)
    return Numbers(near + mean, variance.sqrt(), has_missing=bool(total[1].any()))


# --------------------------------------------------------------------------------------------- what is drawn


def _latent(name: str, site: LatentSite, layout: Layout, family: str) -> Latent:
    plates = tuple(Plate(frame.name, frame.dim, frame.size) for frame in site.plates)
    return Latent(name, _head(name, site, layout, family), plates)


def _head(name: str, site: LatentSite, layout: Layout, family: str) -> heads.Head:
    """The head on the support of a site; refused by name where there is none."""
    fn = site.fns[0]
    base, measure = layers(fn)[-1], base_measure(fn)
    if isinstance(base, dist.Delta):
        raise InputError(
            f"site '{name}' (Delta) is a single point, which leaves a guide nothing to draw: compute '{name}' in the "
            "model, by pyro.deterministic if it is to have a name"
        )
    if measure == "mass":
        return _finite(name, fn, base)
    if isinstance(base, torch.distributions.VonMises):
        return heads.Angles(fn.event_shape)
    if measure == "factor" or is_narrowed(base):
        raise InputError(f"site '{name}' ({name_of(fn)}): its support is not known to be one of a bijection; {BY_HAND}")
    try:
        return _gaussian(name, site, layout, family)
    except NotImplementedError as error:
        raise InputError(
            f"site '{name}' ({name_of(fn)}): there is no bijection from unconstrained space onto its support "
            f"({support_text(base)}), or none with a density; {BY_HAND}"
        ) from error


def _finite(name: str, fn: Any, base: Any) -> heads.Head:
    if isinstance(base, torch.distributions.Bernoulli):
        return heads.Coins(fn.event_shape)
    if isinstance(base, torch.distributions.Categorical):
        return heads.Classes(fn.event_shape, base.param_shape[-1], is_one_hot=False)
    if isinstance(base, torch.distributions.OneHotCategorical):
        return heads.Classes(fn.event_shape, fn.event_shape[-1], is_one_hot=True)
    raise InputError(
        f"site '{name}' ({name_of(fn)}) is a latent count ({support_text(base)}): an encoder draws Bernoulli, "
        f"categorical and one-hot latents, whose probabilities it gives one by one. Sum '{name}' out, or {BY_HAND}"
    )


def _gaussian(name: str, site: LatentSite, layout: Layout, family: str) -> heads.Head:
    fn = site.fns[0]
    is_real = isinstance(innermost(fn.support), constraints._Real)
    support, ends = (None, ()) if is_real else _support(name, site, layout.dim)
    move = to_support(fn) if support is None else biject_to(support(*ends))
    size = torch.Size(fn.event_shape if ends else move.inverse_shape(fn.event_shape)).numel()
    batch = site.draws.shape[: site.draws.dim() - len(fn.event_shape)]
    real = move.inv(site.draws).reshape(*batch, size)
    start = _center_and_spread(real, layout.dim, fn.support)
    head = heads.Gaussian(fn.event_shape, support, ends, *start, family).to(real.dtype)
    if support is not None:
        built = head.build(head.center.new_zeros(*head.center.shape[:-1], head.num_raw))
        built.log_prob(built.sample().clone())
    return head


def _center_and_spread(real: Tensor, dim: int, support: Any) -> tuple[Tensor, Tensor]:
    """Median and scaled quartiles over runs and data: (runs, *batch, D) -> twice (*batch, D), 1 for the data.

    Logs and logits have a natural unit, which no spread exceeds. A sparse prior on the positive line has its median so
    near zero that nothing comes of it: there the centre is such that nine in ten are below 1.28 spreads from it.
    """
    draws = real.movedim(dim - 1, 1).flatten(0, 1).sort(0).values
    low, middle, high, top = (draws[int(len(draws) * part)] for part in (0.25, 0.5, 0.75, 0.9))
    spread = (high - low) / 1.349  # of a Gaussian, its standard deviation
    spread = torch.where(spread.isfinite() & (spread > 0), spread, 1.0)
    single = innermost(support)
    if not isinstance(single, constraints._Real):
        spread = spread.clamp(max=1.0)
    if isinstance(single, constraints._GreaterThan | constraints._GreaterThanEq):
        middle = top - 1.28 * spread
    center = torch.where(middle.isfinite(), middle, 0.0)
    at = real.dim() - 1 + dim - 1  # where the data are, behind the runs
    return center.unsqueeze(at), spread.unsqueeze(at)


def _support(name: str, site: LatentSite, dim: int) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    """Bounds -> the support of a site, and its bounds, where they are tensors: the same for all data and latents."""
    fn = site.fns[0]
    found = [_bounds_of(one) for one in site.fns]
    ends = []
    for each in zip(*found, strict=True):
        at = len(fn.batch_shape) + dim  # where the data are
        end = each[0].narrow(at, 0, 1)
        if not all(bool((one == end).all()) for one in each):
            raise InputError(
                f"site '{name}' ({name_of(fn)}): its support moves with other latents, or from datum to datum; "
                f"{BY_HAND}, or draw '{name}' on a fixed support and move it there"
            )
        if end.requires_grad:
            raise InputError(
                f"site '{name}' ({name_of(fn)}): its support has a bound that is trained, and the guide would keep the "
                f"first; {BY_HAND}, draw '{name}' on a fixed support and move it there, or let the bound be fixed"
            )
        ends.append(end)
    if all(bool((end == end.flatten()[0]).all()) for end in ends):
        fixed = _rebuilt(fn.support, [float(end.flatten()[0]) for end in ends])
        return (lambda: fixed), ()
    return (lambda *given: _rebuilt(fn.support, given)), tuple(ends)


def _bounds_of(fn: Any) -> list[Tensor]:
    base = layers(fn)[-1]
    shape = base.batch_shape + base.event_shape
    return [torch.as_tensor(end).expand(shape) for end in bounds(innermost(latent_support(fn))) if end is not None]


def _rebuilt(support: Any, ends: Sequence[Any]) -> Any:
    """A constraint with other bounds."""
    if hasattr(support, "reinterpreted_batch_ndims"):
        return constraints.independent(_rebuilt(support.base_constraint, ends), support.reinterpreted_batch_ndims)
    if hasattr(support, "base_constraint"):
        return _rebuilt(support.base_constraint, ends)  # that of a mixture, which its components share
    return type(support)(*ends) if ends else support
