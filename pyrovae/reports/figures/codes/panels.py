"""Figure of how the codes of several fits lie, with their numbers below."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrovae.diagnostics.codes import panels
from pyrovae.diagnostics.codes.panels import LatentPanels
from pyrovae.reports.figures.latents.plane import scatter
from pyrovae.reports.figures.style import FAINT, draws, new_figure, number


@draws(LatentPanels)
def latent_panels(record: LatentPanels | Mapping[str, Any], data: Any = None, **options: Any) -> Figure:
    """A panel for each fit: a draw of q(z|x) for each datum, by class, over draws of the prior, in grey.

    More than two latents are shown by the first two principal components of the draws. Each panel has a scale of its
    own, and below it the marginal KL to the prior (at most so much where the mutual information is at its ceiling), the
    fraction of data whose nearest other mean is of their class, and log p(x), all with standard errors over data.

    Args:
        record: what :func:`~pyrovae.latent_panels` returned; or fits by name, which are measured first.
        data: in that case, what they are measured on.
        options: in that case, more arguments of :func:`~pyrovae.latent_panels`.
    """
    if not isinstance(record, LatentPanels):
        record = panels.latent_panels(record, data, **options)
    figure, axes = new_figure(3.3 * len(record.names), 4.1, columns=len(record.names))
    for each, name in zip(axes, record.names, strict=True):
        _draw(each, record, name)
    if not record.labels.isnan().any():
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, title="class", loc="outside right center", markerscale=1.6)
    return figure


def _draw(axes: Axes, record: LatentPanels, name: str) -> None:
    drawn, (points, prior, axis) = record.draws[name], _plane(record, name)
    axes.scatter(prior[:, 0], prior[:, 1], s=5, color=FAINT, linewidths=0, zorder=0)
    labels = record.labels
    classes, index = np.unique(labels.nan_to_num(0.0).numpy(), return_inverse=True)
    scatter(axes, points, index, None if labels.isnan().any() else [f"{label:g}" for label in classes])
    if (legend := axes.get_legend()) is not None:
        legend.remove()
    axes.set(title=name, xlabel=f"{axis} 1\n{_told(record, name)}", ylabel=f"{axis} 2" if drawn.shape[1] > 1 else "")
    axes.set_aspect("equal", adjustable="datalim")


def _plane(record: LatentPanels, name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Draws of guide and prior as (N, 2), and what the axes are."""
    drawn, prior = record.draws[name], record.prior[name]
    if drawn.shape[1] == 1:
        level = torch.linspace(-1, 1, len(drawn), dtype=drawn.dtype)[:, None]
        return torch.cat([drawn, level], 1).numpy(), torch.cat([prior, level], 1).numpy(), "latent"
    if drawn.shape[1] == 2:
        return drawn.numpy(), prior.numpy(), "latent"
    centre = drawn.mean(0)
    *_, axes = torch.linalg.svd(drawn - centre, full_matrices=False)
    both = ((each - centre) @ axes[:2].T for each in (drawn, prior))
    return *(each.numpy() for each in both), "principal component"


def _told(record: LatentPanels, name: str) -> str:
    row = record.named_rows()[name]
    most = "≤ " if record.surgeries[name].saturated else ""
    lines = [f"KL(q(z) ‖ p(z)) {most}{number(row['marginal_kl'], 2)} ± {number(row['se_marginal_kl'], 2)} nats"]
    if not record.labels.isnan().any():
        lines += [f"neighbours alike {row['neighbours']:.1%} ± {row['se_neighbours']:.1%}"]
    doubt = f", {row['unreliable']:.0%} unreliable" if row["unreliable"] else ""
    evidence = f"log p(x) {number(row['log_evidence'], 1)} ± {number(row['se_log_evidence'], 1)} nats{doubt}"
    return "\n".join([*lines, evidence])
