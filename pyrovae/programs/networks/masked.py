r"""What an encoder reads of data with missing entries (NaN): their values, and which of them were observed.

.. math:: h(x, s) = h([s \odot x + (1 - s) \odot c, \; s])

with 1 in s for what was observed; or a sum over the observed entries, which no order and no number of them disturbs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor, nn

from pyrovae.base.errors import InputError
from pyrovae.programs.networks.events import NetworkBuilder, as_size, check_widths
from pyrovae.programs.parameters import seeded

FILLS = ("zero", "mean", "learned")


class MaskedInput(nn.Module):
    """Values with a constant where they are missing and, beside them, which were observed, as a network reads them.

    Args:
        network: reads events of :func:`shape_beside_mask`.
        fill: of the shape of one event; a parameter is learned.
    """

    def __init__(self, network: nn.Module, fill: Tensor) -> None:
        super().__init__()
        self.network = network
        self.fill = fill if isinstance(fill, nn.Parameter) else nn.Buffer(fill)

    def forward(self, x: Tensor) -> Tensor:
        seen, event_dim = ~x.isnan(), self.fill.dim()
        filled = torch.where(seen, x, self.fill)
        parts = [filled, seen.expand_as(filled).to(filled)]
        return self.network(torch.cat(parts, -event_dim) if event_dim in (1, 3) else torch.stack(parts, -event_dim - 1))


def shape_beside_mask(event_shape: int | tuple[int, ...]) -> tuple[int, ...]:
    """The shape of events with their masks: twice the length of vectors, twice the channels of images.

    Example:
        >>> shape_beside_mask(5), shape_beside_mask((3, 8, 8)), shape_beside_mask((8, 8))
        ((10,), (6, 8, 8), (2, 8, 8))
    """
    shape = as_size(event_shape)
    return (2 * shape[0], *shape[1:]) if len(shape) in (1, 3) else (2, *shape)


def masked_input(
    event_shape: int | tuple[int, ...],
    network: Callable[[tuple[int, ...]], NetworkBuilder | nn.Module],
    *,
    fill: str = "zero",
    rows: Any = None,
) -> NetworkBuilder:
    """A network for data with missing entries (NaN), that reads a constant in their place, and which were observed.

    Args:
        event_shape: of one datum; of images (C, H, W) the mask is C more channels, of (H, W) the second of two.
        network: the shape of what is read -> a network of such events, as ``lambda shape: mlp(shape, 200)``.
        fill: what is read where an entry is missing: "zero", the "mean" of the entry, or a "learned" constant for each,
            which begins at the mean where there are rows and else at zero.
        rows: data (N, *event_shape), NaN where missing, that means are taken of.

    Raises:
        InputError: for another fill, or means without rows of that shape.

    References:
        Mattei and Frellsen (2019), MIWAE, arXiv:1812.02633.
        Ipsen, Mattei and Frellsen (2022), How to deal with missing data in supervised deep learning?, ICLR.

    Example:
        >>> from pyrovae.programs.networks.perceptrons import mlp
        >>> encode = masked_input((8, 8), lambda shape: mlp(shape, 32))(5)
        >>> encode(torch.full((3, 8, 8), torch.nan)).shape
        torch.Size([3, 5])
    """
    shape = as_size(event_shape)
    constant = _constant(shape, fill, rows)

    def build(num_outputs: int) -> nn.Module:
        inner = network(shape_beside_mask(shape))
        inner = inner if isinstance(inner, nn.Module) else inner(num_outputs)
        return MaskedInput(inner, nn.Parameter(constant.clone()) if fill == "learned" else constant)

    return build


def _constant(shape: Size, fill: str, rows: Any) -> Tensor:
    if fill not in FILLS:
        raise InputError(f"fill is one of {', '.join(FILLS)}, got {fill!r}")
    if rows is None or fill == "zero":
        if fill == "mean":
            raise InputError("fill='mean' needs the data whose means are filled in: give rows=, or take fill='learned'")
        return torch.zeros(shape)
    rows = torch.as_tensor(rows)
    if rows.shape[1:] != shape:
        raise InputError(f"rows= must have the shape (N, {', '.join(map(str, shape))}), got {tuple(rows.shape)}")
    return rows.to(torch.get_default_dtype()).nanmean(0).nan_to_num(0.0)


class SetEncoder(nn.Module):
    """A sum over observed entries of what each says, then a network of that sum."""

    def __init__(self, embedding: Tensor, of_each: nn.Module, of_sum: nn.Module, event_shape: Size) -> None:
        super().__init__()
        self.embedding, self.of_each, self.of_sum = nn.Parameter(embedding), of_each, of_sum
        self.event_shape = event_shape

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: x.dim() - len(self.event_shape)]
        if x.shape[len(lead) :] != self.event_shape:
            raise InputError(
                f"the network reads events of shape {tuple(self.event_shape)}, "
                f"but it was given a tensor of shape {tuple(x.shape)}"
            )
        entries = x.reshape(*lead, -1, 1).to(self.embedding)
        seen = ~entries.isnan()
        values = torch.where(seen, entries, 0.0) * self.embedding
        said = self.of_each(torch.cat([self.embedding.expand_as(values), values], -1))
        return self.of_sum(torch.where(seen, said, 0.0).sum(-2))


def set_encoder(
    event_shape: int | tuple[int, ...],
    *hidden: int,
    embedding: int = 10,
    features: int = 50,
    activation: Callable[[], nn.Module] = nn.ReLU,
    seed: int | None = None,
) -> NetworkBuilder:
    r"""A network of the observed entries as a set: what is missing (NaN) is not in it.

    .. math:: g\Big(\sum_{d \in o} h([e_d, \; x_d e_d])\Big)

    with an embedding e_d of each entry that is learned. Of an empty set the sum is zero.

    Args:
        event_shape: of one datum.
        hidden: widths of the hidden layers of g, a perceptron.
        embedding: numbers that stand for an entry.
        features: numbers that an entry says, by h, a perceptron with one hidden layer as wide.
        activation: constructor of the nonlinearity.
        seed: of the initial weights; None draws them from torch's global generator.

    Raises:
        InputError: if a width is below 1; in the forward pass, if an input has another shape.

    References:
        Ma et al. (2019), EDDI: efficient dynamic discovery of high-value information with partial VAE,
        arXiv:1809.11142.
        Zaheer et al. (2017), Deep sets, arXiv:1703.06114.

    Example:
        >>> encode = set_encoder(4, 16, seed=0)(3)
        >>> x = torch.tensor([[1.0, torch.nan, 2.0, torch.nan]])
        >>> encode(x).shape
        torch.Size([1, 3])
    """
    shape = as_size(event_shape)
    check_widths(hidden=hidden or (1,), embedding=(embedding,), features=(features,))

    def build(num_outputs: int) -> nn.Module:
        with seeded(seed):
            table = torch.randn(shape.numel(), embedding)
            of_each = [nn.Linear(2 * embedding, features), activation(), nn.Linear(features, features)]
            of_sum: list[nn.Module] = [activation()]
            for before, after in zip((features, *hidden), (*hidden, num_outputs), strict=True):
                of_sum += [nn.Linear(before, after), activation()]
            return SetEncoder(table, nn.Sequential(*of_each), nn.Sequential(*of_sum[:-1]), shape)

    return build
