"""Figures of what was fitted and measured: reports, histories and programs -> matplotlib, without pyplot.

Every function returns a figure of its own that no global state knows; :func:`save` writes it to a file.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from pyrovae import _drawing_helpers as helpers
from pyrovae import _ledger as ledger
from pyrovae._anatomy_figures import anatomy as anatomy
from pyrovae._anatomy_figures import gaps as gaps
from pyrovae._calibration_figures import calibration as calibration
from pyrovae._calibration_figures import predictive_check as predictive_check
from pyrovae._drawing_helpers import BLUE, DPI, INK, QUIET, RED, UNIT, new_figure, number, styled
from pyrovae._evidence_figures import annealed as annealed
from pyrovae._evidence_figures import bounds as bounds
from pyrovae._evidence_figures import convergence as convergence
from pyrovae._posterior_figures import posterior_of_one as posterior_of_one
from pyrovae.base.errors import InputError
from pyrovae.base.storage import write_whole
from pyrovae.data.split import as_split
from pyrovae.inference import drawing
from pyrovae.inference.comparison import Comparison
from pyrovae.inference.evaluation import DOUBTFUL_SHARE
from pyrovae.inference.pairs import Program
from pyrovae.inference.report import Report

UNDATED: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


@styled
def training_curves(history: Sequence[Mapping[str, float]], *, best_epoch: int | None = None) -> Figure:
    """ELBO, reconstruction and KL against the epoch, on axes that fit the last 90 % of the epochs.

    Args:
        history: rows of ``Fit.history``; the columns ``valid_...`` may be absent.
        best_epoch: ``Fit.best_epoch``, marked by a line.
    """
    if not history:
        raise InputError("expected a history of at least one epoch, got an empty one")
    titles = {"elbo": "ELBO", "reconstruction": "reconstruction", "kl_prior": "KL(q ‖ prior)"}
    figure, panels = new_figure(9, 3.2, columns=3)
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        lines = {"training": (name, BLUE, "-"), "validation": (f"valid_{name}", RED, "-")}
        if name == "elbo" and ledger.objective_differs(history):
            lines["objective"] = ("objective", QUIET, "--")
        ledger.curves(axes, history, lines)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=INK, linewidth=0.8, linestyle=":", label=f"best epoch, {best_epoch}")
        axes.set_title(title)
    skipped = len(history) // 10
    fitted = f"\n(axes fit epochs {history[skipped]['epoch']:g} to {history[-1]['epoch']:g})" if skipped else ""
    panels[0].set_ylabel(UNIT + fitted)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


# ----------------------------------------------------------------------------------------------- programs


@styled
def reconstructions(
    model: Program, guide: Program, data: Any, *, num: int = 10, seed: int = 0, site: str | None = None
) -> Figure:
    """Images, and below each the mean of p(x|z) over 16 draws z ~ q(z|x).

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: a Split, a tensor (N, ...) or a tuple of tensors, whose first ``num`` rows are shown.
        seed: of the draws.
        site: the observed site to show, where several are images.

    Raises:
        InputError: if no observed site holds images, (H, W) or (C, H, W).
    """
    draws = drawing.reconstruct(model, guide, as_split(data)[:num], seed=seed)
    name = helpers.image_site(draws.values, site)
    images = torch.stack([draws.values[name], helpers.image_means(draws, name)])
    figure, axes = helpers.grid_figure(images, room=(1.4, 0.15))
    helpers.show_grid(axes, images, helpers.range_of(draws.values[name]))
    axes.set_yticks([0.5, 1.5], ["data", "mean of p(x|z)"])
    return figure


@styled
def prior_samples(
    model: Program, template: Any, *, num: int = 64, seed: int = 0, site: str | None = None, draws: bool = False
) -> Figure:
    """A grid of what the model makes: means of p(x|z) at z ~ p(z), or with ``draws`` x itself.

    Args:
        model: program of p(x, z).
        template: a Split, a tensor (N, ...) or a tuple of tensors of the shape of data.
        num: how many images.
        seed: of the draws.
        site: the observed site to show, where several are images.
        draws: show x ~ p(x|z) instead of its mean.

    Raises:
        InputError: if no observed site holds images, or its distribution has no mean to show.
    """
    name = helpers.image_site(drawing.decode(model, as_split(template)[:1], {}).values, site)
    drawn = drawing.sample(model, template, num_samples=num, seed=seed)
    images = drawn.values[name] if draws else helpers.image_means(drawn, name)
    grid = helpers.in_rows(images)
    figure, axes = helpers.grid_figure(grid)
    helpers.show_grid(axes, grid, helpers.range_of(images))
    axes.set_title("draws of p(x|z), z ~ p(z)" if draws else "means of p(x|z), z ~ p(z)")
    return figure


@styled
def manifold(model: Program, template: Any, *, num: int = 15, limit: float = 2.05, site: str | None = None) -> Figure:
    """Means of p(x|z) over the plane of two latents, at equally spaced quantiles of a standard normal.

    Args:
        model: program of p(x, z) whose one latent site has event shape (2,).
        template: rows of the shape of data; a label or covariate is that of the first row.
        num: images along each side.
        limit: the largest |z|; 2.05 is the quantile 0.98.
        site: the observed site to show, where several are images.

    Raises:
        InputError: if the model has other latent sites, or no observed site holds images.
    """
    template = as_split(template)[:1]
    latent, dtype = helpers.plane_site(model, template)
    edge = float(torch.special.ndtr(torch.tensor(limit)))
    ticks = torch.special.ndtri(torch.linspace(1 - edge, edge, num, dtype=dtype))
    z = torch.cartesian_prod(ticks.flip(0), ticks).flip(1)  # rows from the top: z[1] falls, z[0] rises along each
    draws = drawing.decode(model, template, {latent: z})
    name = helpers.image_site(draws.values, site)
    images = helpers.image_means(draws, name).unflatten(0, (num, num))
    figure, axes = helpers.grid_figure(images)
    helpers.show_grid(axes, images, helpers.range_of(images))
    shown = np.arange(0, num, math.ceil(num / 15))
    values = [number(float(ticks[i]), 2) for i in shown]
    axes.set_xticks(shown + 0.5, values)
    axes.set_yticks(num - 0.5 - shown, values)
    axes.set(xlabel=f"{latent}[0]", ylabel=f"{latent}[1]", title=f"means of p(x|{latent})")
    return figure


@styled
def interpolation(
    model: Program, guide: Program, data: Any, *, pairs: int = 6, steps: int = 9, seed: int = 0, site: str | None = None
) -> Figure:
    """Means of p(x|z) on straight lines between the posterior means of two data, the data themselves at both ends.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: a Split, a tensor (N, ...) or a tuple of tensors; labels or covariates are those of the left datum.
        pairs: how many lines.
        steps: images on each line, both ends included.
        seed: of the choice of pairs.
        site: the observed site to show, where several are images.

    Raises:
        InputError: for fewer than two data or steps, a latent without a mean, or no observed site with images.
    """
    split = as_split(data)
    pairs = min(pairs, len(split) // 2)
    if pairs < 1 or steps < 2:
        raise InputError(f"a line needs two data and two steps, got {len(split)} data and steps={steps}")
    chosen = np.random.default_rng(seed).permutation(len(split))[: 2 * pairs].tolist()
    left, right = split[chosen[:pairs]], split[chosen[pairs:]]
    starts, ends = (helpers.posterior_means(model, guide, end, seed) for end in (left, right))
    weight = torch.linspace(0, 1, steps).tolist()
    between = {name: torch.stack([z.lerp(ends[name], t) for t in weight], 1) for name, z in starts.items()}
    rows = left[torch.arange(pairs).repeat_interleave(steps)]
    draws = drawing.decode(model, rows, {name: z.flatten(0, 1) for name, z in between.items()})
    originals = [drawing.reconstruct(model, guide, end, num_samples=1, seed=seed).values for end in (left, right)]
    name = helpers.image_site(draws.values, site)
    decoded = helpers.image_means(draws, name).unflatten(0, (pairs, steps))
    return helpers.lines_figure(originals[0][name], decoded, originals[1][name], weight)


@styled
def latent_means(model: Program, guide: Program, data: Any, *, seed: int = 0) -> Figure:
    """Posterior means E_q[z] of all data by class: two latents as they are, more by two principal components.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: a Split (whose labels give the classes), a tensor (N, ...) or a tuple of tensors.
        seed: of the draws where q has no mean in closed form, and of the jitter that spreads one latent.

    Raises:
        InputError: for a latent without a mean, or fewer than three data to find principal components of.
    """
    split = as_split(data)
    points, names = helpers.plane(helpers.posterior_means(model, guide, split, seed))
    classes, index = np.unique(
        np.zeros(len(split)) if split.labels is None else split.labels.cpu(), return_inverse=True
    )
    figure, (axes,) = new_figure(5.8, 4.6)
    if points.shape[1] == 1:
        points = np.stack([points[:, 0], index + np.random.default_rng(seed).uniform(-0.35, 0.35, len(split))], 1)
        axes.set_yticks([])
    else:
        axes.set_aspect("equal", adjustable="datalim")
    helpers.scatter(axes, points, index, None if split.labels is None else classes.tolist())
    axes.set(xlabel=names[0], ylabel=names[1], title=f"posterior means of {len(split):,} data")
    return figure


# ------------------------------------------------------------------------------------------------ reports


@styled
def account(reports: Report | Mapping[str, Report]) -> Figure:
    """How log p(x) comes about, a waterfall: reconstruction - KL(q || prior) = ELBO, + KL(q || posterior).

    The sums are bars from 0, which is cut off where the KL terms would be too small to read beside it; each KL
    starts where the sum before it ends.

    Args:
        reports: a :class:`~pyrovae.Report`, or name -> report for one group of bars each.

    Raises:
        InputError: for no report, or a mean that is not finite.
    """
    named = {ledger.data_of(reports): reports} if isinstance(reports, Report) else dict(reports)
    accounts = {name: report.to_dict() for name, report in named.items()}
    ledger.refuse_infinite(accounts)
    height = 0.7 + 0.24 * ledger.GROUP_HEIGHT * len(accounts)
    figure, panels = new_figure(8.4, height, columns=3, sharey=True, width_ratios=(1.5, 4, 1.65))
    for group, (name, values) in enumerate(accounts.items()):
        ledger.rows(panels, ledger.GROUP_HEIGHT * group, name, values)
    ledger.fit_ledger_axes(panels, accounts.values())
    return figure


@styled
def evidence_histogram(report: Report) -> Figure:
    """How log p(x) and Pareto k-hat are distributed over the data.

    Args:
        report: a :class:`~pyrovae.Report`; data whose k-hat is exact or undefined are counted in the title.
    """
    figure, (left, right) = new_figure(8.2, 3.1, columns=2)
    values, evidence = report.log_evidence[report.log_evidence.isfinite()].numpy(), report.to_dict()["log_evidence"]
    left.hist(values, bins="auto" if len(values) < 1000 else 50, color=BLUE, alpha=0.75)
    if evidence["mean"] is not None:
        left.axvline(evidence["mean"], color=INK, linewidth=1.2)
    mean, data_se, mc_se, bias = (number(evidence[key], 4 if key == "bias" else 2) for key in ledger.ERRORS)
    left.set_title(f"log p(x): mean {mean}\ndata SE {data_se}, MC SE {mc_se}, bias {bias} or worse")
    left.set(xlabel=f"log p(x), {UNIT}", ylabel="number of data")
    ledger.pareto_histogram(right, report)
    return figure


@styled
def comparison(table: Comparison) -> Figure:
    """Differences in log p(x) from the best pair, with whiskers of two paired standard errors, and what casts doubt.

    Args:
        table: what :func:`~pyrovae.compare` returned.
    """
    doubts = table.warnings()
    figure, (axes,) = new_figure(7, 0.9 + 0.3 * len(table.rows) + 0.18 * len(doubts))
    for y, row in enumerate(table.rows):
        color, face = (BLUE, BLUE) if y else (INK, "white")
        axes.errorbar(row.difference, y, xerr=2 * row.difference_se, fmt="o", color=color, mfc=face, capsize=3)
        text = f"{number(row.difference, 3)}  (SE {number(row.difference_se, 3)})" if y else "best"
        text += f"  k-hat bad {row.share_doubtful:.0%}" if row.share_doubtful > DOUBTFUL_SHARE else ""
        axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.axvline(0, color=QUIET, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(table.rows)), [row.name for row in table.rows], parse_math=False)
    axes.set_ylim(len(table.rows) - 0.5, -0.5)
    axes.set_xlabel(f"log p(x) minus that of the best, {UNIT} (N = {table.num_data:,}; whiskers: 2 paired SE)")
    if doubts:
        figure.supxlabel("\n".join(doubts), fontsize=8, color=RED)
    return figure


@styled
def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure whole or not at all: PNG at 150 dpi, or SVG or PDF, as the suffix says.

    Args:
        figure: any figure of matplotlib.
        path: with the suffix .png, .svg or .pdf; its folder is made if it is not there.

    Raises:
        InputError: for another suffix.
        OSError: if it cannot be written; a file that was there before is still there.
    """
    path, suffix = Path(path), Path(path).suffix.lower()
    if suffix not in UNDATED:
        raise InputError(f"{path}: expected one of the suffixes {', '.join(UNDATED)}, got '{path.suffix}'")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=suffix[1:], dpi=DPI, metadata=UNDATED[suffix])
    write_whole(path, drawn.getvalue())
