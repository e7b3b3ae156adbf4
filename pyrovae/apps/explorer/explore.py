"""explore: the latent space of a pair as one HTML file, which decodes under the pointer, without a server.

What the page can run (the networks and families of a :class:`~pyrovae.VAE`) lies in it as weights; what it cannot is
computed beforehand, on a grid over the plane that is shown.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyrovae.apps.explorer import precomputed
from pyrovae.apps.explorer.layers import Unreadable
from pyrovae.apps.explorer.live import Live, live
from pyrovae.base.errors import InputError
from pyrovae.base.random import seed_everything
from pyrovae.data.split import Split, as_split
from pyrovae.evidence.report import QUANTITIES, Report
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents, coordinates
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.draws import decode
from pyrovae.reports.explorer.page import num_bytes, page, written
from pyrovae.reports.explorer.plane import Box, Plane, chosen, contours, nodes_of, shades, smoothed, square_about
from pyrovae.reports.figures.images import image_site, is_image
from pyrovae.reports.figures.style import CLASSES, source

CODES = 1000  # data whose codes are drawn
DRAWS = 32  # of q(z|x) of each, of which q(z) is made
PRIOR_DRAWS = 20_000
SOME_DRAWS = 500  # of the prior, where the page cannot draw from it
DATA_BYTES = 400_000  # that the data in the page take
MOST_TABLED = 48  # data whose posteriors are computed beforehand
CELLS = 96  # of shades, along each axis
FINE = 101  # nodes of a prior's contours
MOST_BYTES = 3_000_000


class Explorer(NamedTuple):
    """A page that was written."""

    path: Path
    num_bytes: int
    live: tuple[str, ...]  # what the page runs itself: "decoder", "encoder"
    notes: tuple[str, ...]  # what it does not run, and why

    def summary(self) -> str:
        """One line on the page, and one for each thing that it does not run."""
        runs = f"{' and '.join(self.live)} live" if self.live else "decoded beforehand"
        return "\n".join([f"{self.path}: {self.num_bytes / 1e6:.2f} MB, {runs}", *self.notes])


class _Space(NamedTuple):
    """The latent space of some rows."""

    plane: Plane
    box: Box
    codes: np.ndarray  # (N, D): means of q
    guide_draws: np.ndarray  # (S N, 2), in the plane
    prior_draws: np.ndarray  # (K, D)
    prior_density: np.ndarray  # (G, G)
    template: Split  # the first row


def explore(
    pair: Any,
    data: Any,
    path: str | Path,
    *,
    plane: tuple[int, int] | None = None,
    report: Report | None = None,
    site: str | None = None,
    title: str | None = None,
    most_bytes: int = MOST_BYTES,
    seed: int = 0,
) -> Explorer:
    """Writes a page that shows the latent space of a pair, and decodes it live: one file, no server, no request.

    Left is the latent plane with the prior, the aggregated posterior and the data's codes; at the pointer, the mean of
    p(x|z) is decoded. Of a datum that is chosen there are q(z|x) and the posterior p(z|x), on a grid, with log p(x),
    ELBO and both KLs in nats. Latents that are not real are shown in unconstrained space.

    Args:
        pair: a Fit, a VAE, or a tuple (model, guide).
        data: a Split (whose labels colour the codes), a tensor (N, ...) or a tuple of tensors; of further arguments,
            labels or covariates, decoded means have those of the first row.
        path: of the file, which ends in .html; its folder is made.
        plane: two latent coordinates; of two there are, or the first principal axes of the codes where None.
        report: what ``evaluate`` returned for these data, shown beside the page's own numbers.
        site: the observed site to show, where there are several.
        title: of the page.
        most_bytes: the encoder's weights are left out of a larger page; where that does not do, decoded means over the
            plane take the place of the decoder's.
        seed: of the draws.

    Returns:
        The path, the size in bytes, and what the page runs.

    Raises:
        InputError: naming the site, for discrete latents and others without a bijection with real ones; for a single
            latent, fewer than two data, or a report on other rows.

    Example:
        >>> import pyrovae as pv, tempfile
        >>> digits = pv.data.load("digits").test[:20]
        >>> decoder = pv.Conditional(pv.families.binomial(16), (8, 8), pv.networks.mlp(2, 10, seed=0))
        >>> encoder = pv.Conditional(pv.families.normal(), (2,), pv.networks.mlp((8, 8), 10, seed=1))
        >>> vae = pv.VAE(pv.priors.StandardNormal(2), decoder, encoder)
        >>> explore(vae, digits, f"{tempfile.mkdtemp()}/digits.html").live
        ('decoder', 'encoder')
    """
    path, (model, guide) = Path(path), _programs(pair)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path}: give a name that ends in .html")
    split = as_split(data).drawn(seed)
    _check_report(report, split)
    rows = split[:CODES]
    with isolated(model, guide) as (own_model, own_guide, device):
        seed_everything("explorer", seed)
        latents = Latents(own_model, own_guide, rows.to(device).tensors)
        space = _space(latents, rows.to(device), plane)
        running = _running(own_model, own_guide, space, latents.args[0])
    some = _some(rows)
    scene = _scene(rows, space, title) | {"data": _packed(some.x), "report": _reported(report, len(some))}
    parts = _that_fit(running, len(page(scene)), most_bytes)
    if parts.guide is not None:
        scene["codes"] = space.plane.coordinates(parts.guide["mean"])
    scene |= _of_data(model, guide, rows, space, parts, site, seed)
    density = parts.prior or {"kind": "draws", "values": None, "box": None, "draws": space.prior_draws[:SOME_DRAWS]}
    scene |= {"decoder": parts.decoder, "encoder": parts.encoder, "density": density, "notes": parts.notes}
    path.parent.mkdir(parents=True, exist_ok=True)
    names = tuple(name for name in ("decoder", "encoder") if scene[name] is not None)
    scene["bytes"] = {name: num_bytes(scene[name]) for name in names}
    return Explorer(path, written(scene, path), names, tuple(parts.notes))


def _programs(pair: Any) -> tuple[Program, Program]:
    """Model and guide of a fit, of a VAE, or as they are."""
    if isinstance(pair, tuple | list) and len(pair) == 2:
        return pair[0], pair[1]
    found = getattr(pair, "model", None), getattr(pair, "guide", None)
    if not all(map(callable, found)):
        raise InputError(f"expected a fit, a VAE or a tuple (model, guide), got {type(pair).__name__}")
    return found  # type: ignore[return-value]


def _check_report(report: Report | None, split: Split) -> None:
    if report is None:
        return
    of = report.protocol.sha256 if report.protocol else None
    if of != split.protocol.sha256:
        raise InputError(
            f"the report is on other rows than the data ({split.protocol}): evaluate these, or leave it out"
        )


# --------------------------------------------------------------------------------------------------- the latent space


def _space(latents: Latents, rows: Split, which: tuple[int, int] | None) -> _Space:
    """Codes, draws of guide and prior, a plane and the prior's density on it; for use inside ``isolated``."""
    latents.require_bijection("a plane of real coordinates")
    if latents.num_dims < 2:
        raise InputError(
            "the explorer shows a plane of latents, and this model has one alone; see figures.interpolation"
        )
    if len(rows) < 2:
        raise InputError(f"the explorer needs at least two data, got {len(rows)}")
    names = coordinates({name: site.shape for name, site in latents.sites.items()})
    of_guide = _drawn(latents, latents.draw, DRAWS)
    prior_draws = _drawn(latents, latents.draw_prior, -(-PRIOR_DRAWS // len(rows)))
    prior_draws = prior_draws.reshape(-1, latents.num_dims)[:PRIOR_DRAWS]
    plane = chosen(of_guide.mean(0), names, which)
    drawn, prior = (plane.coordinates(z).reshape(-1, latents.num_dims)[:, :2] for z in (of_guide, prior_draws))
    box = square_about(np.concatenate([drawn, prior]))
    template = rows[:1]
    if latents.num_dims == 2:
        density = _prior_density(Latents(latents.model, latents.guide, template.tensors), plane, box)
    else:
        density = smoothed(prior, box, FINE, blur=4.0)
    return _Space(plane, box, of_guide.mean(0), drawn, prior_draws, density, template)


def _drawn(latents: Latents, draw: Any, num_draws: int) -> np.ndarray:
    """Draws as points of unconstrained space, (S, N, D)."""
    parts = [latents.unconstrain(draw(size)) for size in latents.part_sizes(num_draws)]
    return torch.cat(parts).double().cpu().numpy()


def _prior_density(one: Latents, plane: Plane, box: Box) -> np.ndarray:
    """The density of two latents in unconstrained space at the nodes of a grid, but for a constant."""
    u = torch.from_numpy(plane.latents(nodes_of(box, FINE).reshape(-1, 2))).float()[:, None].to(one.zeros(1).device)
    joints = [one.log_joint_unconstrained(part) for part in u.split(one.part_sizes(len(u)))]
    log = torch.cat([joint.log_prior + joint.log_jacobian for joint in joints])
    return (log - log.max()).exp().cpu().numpy().reshape(FINE, FINE)


# ----------------------------------------------------------------------------------------------- what the page can run


class _Parts(NamedTuple):
    """What goes into the page to be run there, and why other things do not."""

    decoder: dict[str, Any] | None
    encoder: dict[str, Any] | None
    prior: dict[str, Any] | None
    guide: dict[str, np.ndarray] | None  # q(z|x) of all rows, where it is normal
    notes: list[str]


def _running(model: Program, guide: Program, space: _Space, x: Tensor) -> Live | str:
    """What a page can run, or why it cannot."""
    if np.isnan(x.cpu().float().numpy()).any():
        return "data have missing entries"
    try:
        return live(model, guide, space.box, x, space.prior_draws)
    except Unreadable as reason:
        return str(reason)


def _that_fit(running: Live | str, others: int, most: int) -> _Parts:
    """Those parts with which the page is not too large."""
    if isinstance(running, str):
        return _without_decoder(running)
    decoder, encoder = num_bytes([running.decoder, running.prior]), num_bytes(running.encoder)
    if decoder + others > most:
        return _without_decoder(f"its weights take {decoder / 1e6:.2f} MB")
    if running.encoder is not None and encoder + decoder + others <= most:
        return _Parts(running.decoder, running.encoder, running.prior, running.guide, [])
    why = running.reason or f"its weights take {encoder / 1e6:.2f} MB more"
    note = f"The page does not run the encoder ({why}): q(z|x) of the data shown was found beforehand."
    return _Parts(running.decoder, None, running.prior, running.guide, [note])


def _without_decoder(reason: str) -> _Parts:
    how = "means were decoded on a grid over the plane beforehand, and are interpolated bilinearly between its nodes"
    return _Parts(None, None, None, None, [f"The page does not run the decoder ({reason}): {how}."])


# ----------------------------------------------------------------------------------------------------------- the scene


def _scene(rows: Split, space: _Space, title: str | None) -> dict[str, Any]:
    """What of the space is drawn."""
    plane, labels = space.plane, rows.labels
    classes = None if labels is None else sorted(set(labels.tolist()))
    return {
        "title": title or f"{source(rows.protocol) or 'data'}: a latent space",
        "source": str(rows.protocol),
        "plane": {"origin": plane.origin, "axes": plane.axes, "names": plane.names, "box": list(space.box)},
        "contours": contours(space.prior_density, space.box),
        "shades": shades(smoothed(space.guide_draws, space.box, CELLS)),
        "codes": plane.coordinates(space.codes),
        "labels": None if labels is None or classes is None else [classes.index(label) for label in labels.tolist()],
        "classes": classes,
        "colours": CLASSES,
    }


def _of_data(
    model: Program, guide: Program, rows: Split, space: _Space, parts: _Parts, site: str | None, seed: int
) -> dict[str, Any]:
    """The data that the page holds, and what of theirs it does not find by itself."""
    if parts.guide is not None:
        some = _some(rows)
        stored = None if parts.encoder else {name: value[: len(some)] for name, value in parts.guide.items()}
        return {"data": _packed(some.x), "stored": stored, "means": None, "posteriors": None}
    some, pair = _some(rows)[:MOST_TABLED], (model, guide)
    if parts.decoder is not None:
        stored, _ = _tabled(pair, some, space, seed)
        return {"data": _packed(some.x), "stored": stored, "means": None, "posteriors": None}
    name = _site(model, space.template, site)
    data = _packed(*precomputed.reconstructions(model, guide, some, name, seed))
    stored, posteriors = _tabled(pair, some, space, seed, with_posteriors=len(space.plane.origin) == 2)
    return {"data": data, "stored": stored, "means": _means(pair, space, name, data), "posteriors": posteriors}


def _tabled(
    pair: tuple[Program, Program], some: Split, space: _Space, seed: int, *, with_posteriors: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
    """q(z|x) of some data by draws, and their posteriors."""
    with isolated(*pair) as (model, guide, device):
        seed_everything("explorer", seed, 1)
        latents = Latents(model, guide, some.to(device).tensors)
        stored = precomputed.of_guide(latents, space.plane)
        draws = space.plane.coordinates(stored["draws"])
        return stored, precomputed.posteriors(latents, draws, space.plane, space.box) if with_posteriors else None


def _means(pair: tuple[Program, Program], space: _Space, site: str, data: dict[str, Any]) -> dict[str, Any]:
    """Decoded means over the plane."""
    with isolated(*pair) as (model, guide, device):
        one = Latents(model, guide, space.template.to(device).tensors)
        size, values = precomputed.plane_values(one, space.plane, space.box, data["x"].shape[1])
    decoded = precomputed.means(pair[0], space.template, values, site)
    return {"size": size, "values": precomputed.as_bytes(decoded, data["limits"])}


def _some(rows: Split) -> Split:
    """As many of the first rows as take little room."""
    value = 1 if _are_bytes(rows.x) else 4
    return rows[: max(12, DATA_BYTES // (value * rows.shape.numel()))]


def _are_bytes(x: Tensor) -> bool:
    return bool(((x == x.round()) & (x >= 0) & (x <= 255)).all())


def _packed(x: Tensor, means: Tensor | None = None) -> dict[str, Any]:
    """Data (n, *shape) with the limits of their shades, and their means where they were decoded beforehand."""
    finite = x[x.isfinite()].double()
    limits = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    flat = x.cpu().flatten(1).double().numpy()
    return {
        "x": flat.astype(np.uint8) if _are_bytes(x) else flat,
        "shape": list(x.shape[1:]),
        "limits": limits,
        "reconstructions": None if means is None else precomputed.as_bytes(means.flatten(1), limits),
    }


def _site(model: Program, template: Split, site: str | None) -> str:
    """The observed site to show: that named, the one there is, or the one that holds images.

    Raises:
        InputError: if there is no such site, or several are there and not one of them holds images.
    """
    observed = decode(model, template, {}).values
    if site in observed:
        return site
    if site is not None or any(is_image(value.shape[1:]) for value in observed.values()):
        return image_site(observed, site)
    if len(observed) == 1:
        return next(iter(observed))
    raise InputError(
        f"the page shows one observed site, and this model has {len(observed)}, none of which holds images: name one "
        f"with site=, --site on the command line; they are {', '.join(observed)}"
    )


def _reported(report: Report | None, number: int) -> dict[str, Any] | None:
    """What a report says of the first data, with its Monte-Carlo errors."""
    if report is None:
        return None
    names = [*QUANTITIES, *(f"mc_se_{name}" for name in QUANTITIES)]
    columns = report.table()
    return {"found_by": report.found_by, **{n: columns[n][:number].tolist() for n in names if n in columns}}
