"""A snapshot of a computation, to return to: tensors, and the random state that goes with them."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor


class Snapshot:
    """Copies of tensors, and torch's random state on every device; as a context it is returned to at the end.

    Args:
        tensors: those that may change; memory that comes twice is kept once, and what no operation can write to (an
            expanded tensor) not at all.

    Example:
        >>> value = torch.ones(2)
        >>> with Snapshot([value]):
        ...     first = value.add_(torch.rand(2)).tolist()
        >>> value.tolist(), first == (value + torch.rand(2)).tolist()
        ([1.0, 1.0], True)
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = list({_memory(tensor): tensor for tensor in tensors if _is_writable(tensor)}.values())
        self.values = [torch.empty_like(tensor) for tensor in self.tensors]
        self.now()

    def now(self) -> None:
        """Takes it anew."""
        _copy(self.tensors, self.values)
        self.noise = torch.get_rng_state()
        self.noise_on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def back(self) -> None:
        """Makes everything as it was, in place."""
        _copy(self.values, self.tensors)
        torch.set_rng_state(self.noise)
        if self.noise_on_cuda:
            torch.cuda.set_rng_state_all(self.noise_on_cuda)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.back()


def _memory(tensor: Tensor) -> Any:
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _is_writable(tensor: Tensor) -> bool:
    return all(stride or size < 2 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
