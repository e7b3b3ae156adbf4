r"""What a page shows of a pair that it cannot run: decoded means over the plane, and posteriors of the data shown.

A posterior is tabled on a box of its own, from the whole plane on narrowed about what is not negligible:

.. math:: p(x) \approx h_1 h_2 \sum_{ij} p(x, u_{ij})
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.data.split import Split
from pyrovae.evidence.estimators import log_evidence, log_evidence_se
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.draws import decode, reconstruct
from pyrovae.reports.explorer.plane import Box, Plane, nodes_of

NODES = 33  # of a posterior, along each axis
MOST_BELOW = 14.0  # nats: nodes so far below the highest are negligible
ROUNDS = 8
DRAWS = 500  # of q(z|x), that moments and bounds are of
KEPT = 24  # of these, in the page
MEANS_BYTES = 900_000
MEANS_NODES = (9, 41)  # fewest and most, along each axis


def of_guide(latents: Latents, plane: Plane) -> dict[str, np.ndarray]:
    """q(z|x) of n data by draws: mean (n, D), draws (n, S, D), covariance in the plane (n, 3), bounds in nats (n,)."""
    values, log_weight = latents.draw_weighted(DRAWS)
    z = latents.unconstrain(values).double().cpu().numpy().swapaxes(0, 1)
    u = plane.coordinates(z)[..., :2]
    away = u - u.mean(1, keepdims=True)
    products = [(away[..., i] * away[..., j]).mean(1) for i, j in ((0, 0), (0, 1), (1, 1))]
    numbers = {
        "elbo": log_weight.mean(0),
        "elbo_se": log_weight.std(0) / DRAWS**0.5,
        "evidence": log_evidence(log_weight),
        "evidence_se": log_evidence_se(log_weight),
    }
    found = {"mean": z.mean(1), "draws": z[:, :KEPT], "covariance": np.stack(products, -1)}
    return found | {name: value.cpu().numpy() for name, value in numbers.items()}


def posteriors(latents: Latents, draws: np.ndarray, plane: Plane, box: Box) -> dict[str, np.ndarray]:
    """log p(x, z) of n data of two latents, each on a grid of its own: ``log`` (n, G, G) nats, ``boxes`` (n, 4).

    Args:
        latents: of the data; for use inside ``isolated``.
        draws: of q(z|x), coordinates of the plane (n, S, 2), about which too a posterior is sought.
        plane: of all latents.
        box: of the plane, from which grids are narrowed.
    """
    scouts = np.ascontiguousarray(draws.swapaxes(0, 1))
    scouted = _log_joint(latents, plane.latents(scouts))
    boxes = np.tile(np.asarray(box), (latents.num_data, 1))
    for rounds in range(1, ROUNDS + 1):
        nodes = np.stack([nodes_of(tuple(one), NODES).reshape(-1, 2) for one in boxes], 1)
        log = _log_joint(latents, plane.latents(nodes))
        points, heights = np.concatenate([nodes, scouts]), np.concatenate([log, scouted])
        fitted = np.stack([_fitted(points[:, n], heights[:, n], one) for n, one in enumerate(boxes)])
        if _settled(fitted, boxes) or rounds == ROUNDS:
            break  # the boxes are those of the last grids
        boxes = fitted
    return {"log": np.maximum(log.T.reshape(-1, NODES, NODES), -1e30), "boxes": boxes}


def _log_joint(latents: Latents, u: np.ndarray) -> np.ndarray:
    """(K, n, 2) -> (K, n) nats."""
    points = torch.from_numpy(u).float().split(latents.part_sizes(len(u)))
    device = latents.zeros(1).device
    return torch.cat([latents.log_joint_unconstrained(part.to(device)).log_density for part in points]).cpu().numpy()


def _fitted(points: np.ndarray, heights: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The box about all that is not negligible and a cell more; wider by half where that reaches its edge."""
    kept = points[heights > np.nanmax(heights) - MOST_BELOW]
    low, high, least, most = box[::2], box[1::2], kept.min(0), kept.max(0)
    half, cell = (high - low) / 2, (high - low) / (NODES - 1)
    left = np.where(least <= low + 1e-9 * half, np.minimum(least, low - half), least - cell)
    right = np.where(most >= high - 1e-9 * half, np.maximum(most, high + half), most + cell)
    return np.stack([left, right], 1).ravel()


def _settled(fitted: np.ndarray, boxes: np.ndarray) -> bool:
    inside = (fitted[:, ::2] >= boxes[:, ::2] - 1e-9) & (fitted[:, 1::2] <= boxes[:, 1::2] + 1e-9)
    ratio = (fitted[:, 1::2] - fitted[:, ::2]) / (boxes[:, 1::2] - boxes[:, ::2])
    return bool((inside & (ratio > 0.7)).all())


# ------------------------------------------------------------------------------------------------------ decoded means


def plane_values(one: Latents, plane: Plane, box: Box, num_values: int) -> tuple[int, Values]:
    """Nodes along each axis, so many that their means take little room, and the latents there, site -> (K, ...)."""
    fewest, most = MEANS_NODES
    size = max(fewest, min(most, int((MEANS_BYTES / num_values) ** 0.5)))
    u = torch.from_numpy(plane.latents(nodes_of(box, size).reshape(-1, 2))).float()
    values = one.values_at(u[:, None].to(one.zeros(1).device))
    return size, {name: value[:, 0] for name, value in values.items()}


def means(model: Program, template: Split, values: Values, site: str) -> Tensor:
    """Means of p(x|z) at latents (K, ...), each flat: (K, P).

    Raises:
        InputError: where the distribution of the site has no mean.
    """
    decoded = decode(model, template, values).means
    if site not in decoded:
        raise InputError(f"the distribution of site '{site}' has no mean to show")
    return decoded[site].reshape(len(decoded[site]), -1).cpu()


def reconstructions(model: Program, guide: Program, rows: Split, site: str, seed: int) -> tuple[Tensor, Tensor]:
    """Data at a site and their means given z ~ q(z|x), (n, *shape) both, or (n, 1) of one number to a datum."""
    found = reconstruct(model, guide, rows, seed=seed)
    value, mean = (one[site].cpu() for one in (found.values, found.means))
    return (value, mean) if value.dim() > 1 else (value[:, None], mean[..., None])


def as_bytes(values: Any, limits: tuple[float, float]) -> np.ndarray:
    """Values between limits as 0..255."""
    low, high = limits
    return np.round(255 * np.clip((np.asarray(values) - low) / (high - low or 1.0), 0, 1)).astype(np.uint8)
