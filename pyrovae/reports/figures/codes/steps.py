"""Figure of an iterative fit: log p(x) step by step, and of two values the components where they were."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from pyrovae.base.steps import Steps
from pyrovae.reports.figures.style import BLUE, HUES, INK, QUIET, UNIT, draws, new_figure

SHOWN = 4  # steps whose components are drawn


@draws(Steps)
def em_steps(record: Steps) -> Figure:
    """Log p(x) against steps; of a mixture in a plane also its components at a few of them, data by responsibility.

    Ellipses are two standard deviations of a component.

    Args:
        record: :meth:`pyrovae.baselines.Steps.of` the steps of a fit.
    """
    is_plane = record.x.shape[1] == 2 and "covariances" in record.parameters
    chosen = _chosen(len(record)) if is_plane else []
    figure, (curve, *panels) = new_figure(3.6 + 2.4 * len(chosen), 3.0, columns=1 + len(chosen))
    curve.plot(record.log_evidence.numpy(), color=BLUE, marker="o", markersize=2.5)
    curve.set(xlabel="step", ylabel=f"log p(x), {UNIT}", title=record.name)
    for axes, step in zip(panels, chosen, strict=True):
        _components(axes, record, step)
        axes.set(xlabel="x[0]", ylabel="x[1]" if axes is panels[0] else None)
    return figure


def _chosen(num_steps: int) -> list[int]:
    """The first steps and the last, at most four: each some three times as far as the one before."""
    return sorted({round(num_steps ** (place / (SHOWN - 1))) - 1 for place in range(SHOWN)})


def _components(axes: Axes, record: Steps, step: int) -> None:
    responsibility = record.posterior["responsibility"][step]
    owner = responsibility.argmax(1)
    for place in range(responsibility.shape[1]):
        color = HUES[place % len(HUES)]
        across, up = record.x[owner == place].T.numpy()
        axes.scatter(across, up, s=5, color=color, alpha=0.5, linewidths=0)
        mean, covariance = (record.parameters[name][step][place] for name in ("means", "covariances"))
        axes.add_patch(_ellipse(mean, covariance))
        axes.plot(*mean.tolist(), marker="+", color=INK)
    axes.set(title=f"step {step}", xticks=[], yticks=[])
    axes.spines[:].set_color(QUIET)


def _ellipse(mean: torch.Tensor, covariance: torch.Tensor) -> Ellipse:
    values, vectors = np.linalg.eigh(covariance.numpy())
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    height, width = 4 * np.sqrt(np.clip(values, 0, None))
    centre = float(mean[0]), float(mean[1])
    return Ellipse(centre, width, height, angle=angle, fill=False, edgecolor=INK, linewidth=1.0)
