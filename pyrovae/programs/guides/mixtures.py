"""Guides of several modes."""

from torch import Size, Tensor

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.distributions.mixtures import NormalMixture
from pyrovae.programs.families.family import Family, positive


def mixture(num_components: int = 5) -> Family:
    """Real vectors from one of several diagonal normals; draws carry gradients, of the logits too. A density.

    Where modes stand so far apart that hardly a draw falls between them, the gradients of the logits have heavy tails,
    and a fit may give all weight to one of the modes: what the ELBO then lacks, up to the log of their number, shows in
    KL(q || posterior).

    Args:
        num_components: of them.

    Raises:
        InputError: if there is no component; on building, if an event is no vector.
    """
    check_at_least_one(num_components=num_components)

    def shapes(event_shape: Size) -> tuple[Size, ...]:
        if len(event_shape) != 1:
            raise InputError(f"a mixture guide is over vectors, not over events of shape {tuple(event_shape)}")
        parts = Size([num_components, *event_shape])
        return parts, parts, Size([num_components])

    def build(event_dim: int, locs: Tensor, raw_scales: Tensor, logits: Tensor) -> NormalMixture:
        return NormalMixture(locs, positive(raw_scales), logits)

    return Family(f"mixture({num_components})", shapes, build)
