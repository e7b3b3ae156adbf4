"""Figures of simulation held against what is known: ranks of true latents, replicated data beside the observed.

A curve of ranks is an empirical distribution function minus the uniform one, which is 0 where all is well.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from torch import Tensor

from pyrovae.diagnostics.calibration import Calibration
from pyrovae.diagnostics.classes.classification import CLASSIFIERS, Classification
from pyrovae.diagnostics.predictive_check import EXTREME, Comparison, PredictiveCheck
from pyrovae.diagnostics.rank_tests import RankTest
from pyrovae.diagnostics.statistics import ks_band
from pyrovae.reports.figures.style import BLUE, FAINT, GREEN, HUES, INK, QUIET, RED, draws, new_figure, number, source


@draws(Calibration)
def calibration(record: Calibration) -> Figure:
    """Ranks of the latents behind simulated data, among the guide's draws and among importance-resampled ones.

    Each curve is the ECDF of one quantity's ranks minus the uniform one; the band holds all curves of a panel at once
    with the stated probability, if the draws are the posterior's. What leaves it is coloured, named and judged.

    Args:
        record: what :func:`~pyrovae.calibrate` returned.
    """
    figure, panels = new_figure(9.4, 4.0, columns=2, sharey=True)
    tests = {"draws of the guide": record.guide}
    tests[f"draws resampled from K = {record.num_particles:,} particles"] = record.resampled
    colors = _colors(list(tests.values()))
    for axes, (title, test) in zip(panels, tests.items(), strict=True):
        _draw_ranks(axes, test, colors)
        axes.set_title(f"{title}\np = {number(test.p_value, 3)}, {len(test.verdicts)} of {len(test.names)} outside")
        axes.set_xlabel("rank of the true latent among its draws, 0 to 1")
    panels[0].set_ylabel("ECDF − uniform")
    size = f"S = {record.num_simulations:,} simulated data, L = {record.guide.num_draws} draws of each"
    figure.supxlabel(f"{size}; band: {record.guide.level:.0%} for all quantities together", fontsize=8, color=QUIET)
    return figure


def _colors(tests: Sequence[RankTest]) -> dict[str, str]:
    """The same in all panels, for what leaves a band, the worst first; the rest has none."""
    gamma = torch.stack([test.gamma for test in tests]).amin(0)
    failed = {name for test in tests for name in test.verdicts}
    worst = sorted(failed, key=lambda name: (gamma[tests[0].names.index(name)].item(), name))
    return dict(zip(worst, HUES, strict=False))


def _draw_ranks(axes: Axes, test: RankTest, colors: Mapping[str, str]) -> None:
    """The band and every curve, with dots where it is outside."""
    grid, low, high = (column.numpy() for column in (test.grid, test.low, test.high))
    x, verdicts = np.pad(grid, 1, constant_values=(0, 1)), test.verdicts
    axes.fill_between(x, np.pad(low - grid, 1), np.pad(high - grid, 1), color=FAINT, alpha=0.7, linewidth=0, zorder=0)
    axes.axhline(0, color=QUIET, linewidth=0.8, zorder=1)
    for name, ecdf in zip(test.names, test.ecdf.T.numpy(), strict=True):
        color = colors.get(name, INK) if name in verdicts else QUIET
        label = f"{name}: {verdicts[name]}" if name in verdicts and name in colors else None
        width, order = (1.4, 3) if label else (0.7, 2)
        axes.plot(x, np.pad(ecdf - grid, 1), color=color, linewidth=width, zorder=order, label=label)
        outside = (ecdf < low) | (ecdf > high)
        axes.plot(grid[outside], (ecdf - grid)[outside], ".", markersize=3, color=color, zorder=order)
    unnamed = len(verdicts.keys() - colors.keys())
    if unnamed:
        axes.plot([], [], color=INK, linewidth=0.7, label=f"and {unnamed} more")
    if verdicts:
        _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    """Under the label of the horizontal axis, half an inch away from it whatever the height."""
    below = axes.transAxes + ScaledTranslation(0, -0.42, axes.figure.dpi_scale_trans)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=2)


@draws(PredictiveCheck)
def predictive_check(record: PredictiveCheck) -> Figure:
    """The randomised PIT of every coordinate, and every statistic of the data among those of replicated data sets.

    On the left the ECDF of each coordinate's PIT over the data, minus the uniform one, with the band that a single
    coordinate stays in with 95% probability, and all coordinates pooled. On the right the mean over data of each
    statistic: observed, and replicated from the prior and from the posterior predictive.

    Args:
        record: what :func:`~pyrovae.predictive_check` returned.
    """
    rows = math.ceil(len(record.statistics) / 2)
    columns = math.ceil(len(record.statistics) / rows)
    size = (4.4 + 2.7 * columns, max(3.8, 1.0 + 1.7 * rows))
    figure, (left,) = new_figure(*size)
    grid = figure.add_gridspec(rows, 1 + columns, width_ratios=(4.4, *[2.7] * columns))
    left.set_subplotspec(grid[:, 0])
    _draw_pit(left, record)
    for place, (name, one) in enumerate(record.statistics.items()):
        axes = figure.add_subplot(grid[place // columns, 1 + place % columns])
        _draw_statistic(axes, name, one)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    about = f"{source(record.protocol)}, N = {len(record):,}; right: means over the data, p = P(T(x_rep) ≥ T(x))"
    figure.supxlabel(f"{about}, *: outside the central 95%", fontsize=8, color=QUIET)
    return figure


def _draw_pit(axes: Axes, record: PredictiveCheck) -> None:
    """ECDF minus uniform of every coordinate, those beyond their own band in colour, and of all pooled."""
    grid, columns, band = torch.linspace(0, 1, 101, dtype=torch.float64), record.pit.flatten(1), ks_band(len(record))
    curves = (_ecdf(columns, grid) - grid).numpy()
    beyond = (record.ks_p_value < 0.05).flatten().numpy()
    axes.axhspan(-band, band, color=FAINT, alpha=0.7, linewidth=0, zorder=0, label="95% band of one coordinate")
    axes.axhline(0, color=QUIET, linewidth=0.8)
    for chosen, color, label in ((~beyond, QUIET, "within its band"), (beyond, RED, "beyond it")):
        lines = [np.stack([grid.numpy(), curve], 1) for curve in curves[chosen]]
        if lines:
            drawn = LineCollection(lines, colors=color, linewidths=0.6, alpha=0.5, label=label)
            drawn.set_rasterized(True)  # thousands of lines would swell a file of vectors
            axes.add_collection(drawn)
    pooled = (_ecdf(columns.reshape(-1, 1), grid) - grid)[0]
    axes.plot(grid.numpy(), pooled.numpy(), color=INK, linewidth=1.8, label="all coordinates pooled")
    account = record.to_dict()["pit"]
    beyond_own = f"{account['fraction_beyond']:.0%} of {account['num_coordinates']:,} coordinates beyond their band"
    axes.set_title(f"PIT: p = {account['p_value']:.2g} after Bonferroni\n{beyond_own}")
    axes.set(xlabel="randomised PIT u under the prior predictive", ylabel="ECDF − uniform")
    _legend_below(axes)


def _ecdf(columns: Tensor, grid: Tensor) -> Tensor:
    """Share of each column, (N, D) with NaN for no datum, that is at most each point of a grid (G,): (D, G)."""
    count = (~columns.isnan()).sum(0)
    ordered = columns.nan_to_num(nan=math.inf).T.sort(1).values.contiguous()
    at_most = torch.searchsorted(ordered, grid.expand(len(ordered), -1).contiguous(), right=True)
    return at_most.double() / count[:, None]


def _draw_statistic(axes: Axes, name: str, one: Comparison) -> None:
    """The mean over data of one statistic: histograms of the replicated, a line for the observed."""
    compared = {"prior predictive": (one.prior, BLUE), "posterior predictive": (one.posterior, GREEN)}
    for label, (replicated, color) in compared.items():
        axes.hist(replicated.data_set.numpy(), bins=20, color=color, alpha=0.6, label=label)
    axes.axvline(one.observed.nanmean().item(), color=INK, linewidth=1.4, label="observed")
    p_values = [one.prior.data_set_p_value, one.posterior.data_set_p_value]
    prior, posterior = (f"{number(p, 3)}{'*' * (abs(p - 0.5) > 0.5 - EXTREME)}" for p in p_values)
    axes.set_title(f"{name}\np = {prior} prior, {posterior} posterior", fontsize=8.5, parse_math=False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


@draws(Classification)
def classification(record: Classification) -> Figure:
    """How often the class chosen is right, by the probability that it was given; on the diagonal is calibrated.

    Bars are two standard errors of the fraction; below, how many data each bin holds.

    Args:
        record: what :func:`~pyrovae.classification` returned.
    """
    figure, (axes, below) = new_figure(8.4, 3.8, columns=2)
    width = 0.4 / record.num_bins
    for offset, color, (by, title) in zip((-0.5, 0.5), (BLUE, RED), CLASSIFIERS.items(), strict=True):
        count, confidence, right = (column.numpy() for column in record.reliability(by))
        error = 2 * np.sqrt(np.maximum(right * (1 - right), 1e-12) / np.maximum(count, 1))
        label = f"{title}: {record.wrong(by).mean():.2%} wrong, calibration error {record.calibration_error(by):.2%}"
        axes.errorbar(confidence, right, error, color=color, marker="o", markersize=4, capsize=2, label=label)
        middle = (np.arange(record.num_bins) + 0.5) / record.num_bins
        below.bar(middle + offset * width, count, width, color=color)
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, zorder=0)
    axes.legend(loc="upper left")
    axes.set(xlabel="probability of the class chosen", ylabel="fraction that is right", xlim=(0, 1.02), ylim=(0, 1.3))
    below.yaxis.set_major_locator(MaxNLocator(integer=True))
    below.set(xlabel="probability of the class chosen", ylabel=f"of {len(record):,} data {source(record.protocol)}")
    return figure
