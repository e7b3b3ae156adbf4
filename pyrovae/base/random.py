"""Random streams: a seed for each use, keyed by what it is for, and torch's own state left as it was."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from pyrovae.base.errors import InputError, whole

Key = tuple[str, *tuple[int, ...]]  # what random numbers are for, and whole numbers that tell streams apart
_COMMON = ContextVar("common random numbers", default=False)


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Leaves torch's random state, on the CPU and on CUDA, as it was."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=list(devices)):
        yield


def seed_of(purpose: str, *key: int) -> int:
    """The seed of a stream of random numbers: one for each purpose and key.

    Args:
        purpose: what the numbers are for, "evaluation" say; no two uses share one.
        key: the caller's seed, then whole numbers from 0 (block of data, block of particles).

    Raises:
        InputError: for a negative number, and for what is no whole number.

    Example:
        >>> seed_of("gaps", 0, 1) == seed_of("gaps", 0, 1), seed_of("gaps", 0, 1) == seed_of("gaps", 0, 1, 0)
        (True, False)
    """
    key = tuple(whole("a seed", number) for number in key)
    if min(key) < 0:
        raise InputError(f"a seed must not be negative, got {min(key)}")
    digest = hashlib.sha256(" ".join([*map(str, key), purpose]).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_everything(purpose: str, *key: int) -> None:
    """Seeds torch on every device with :func:`seed_of` a purpose and a key."""
    seed_torch(seed_of(purpose, *key))


def seed_torch(seed: int) -> None:
    """Seeds torch on every device."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed itself takes several times as long
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def stream(purpose: str, *key: int) -> torch.Generator:
    """A generator of its own, on the CPU, seeded with :func:`seed_of` a purpose and a key."""
    return torch.Generator("cpu").manual_seed(seed_of(purpose, *key))


@contextmanager
def common_random_numbers() -> Iterator[None]:
    """Inside, an evidence draws the same noise for each datum, so that its number depends on the datum alone.

    Neither the place of a row nor the rows beside it matter then. Errors of the data are no longer independent: the
    error of their mean is not that of each over sqrt(N), and may be as large as that of one.
    """
    token = _COMMON.set(True)
    try:
        yield
    finally:
        _COMMON.reset(token)


def is_common() -> bool:
    """Whether each datum gets the same noise."""
    return _COMMON.get()


def noise(draw: Callable[[list[int]], Tensor], *shape: int, data: int) -> Tensor:
    """Noise for some data: each has its own, or all the same (:func:`common_random_numbers`).

    Args:
        draw: a shape -> noise of it.
        shape: of what is wanted.
        data: which of its dimensions is that of the data.

    Example:
        >>> with preserve_rng_state(), common_random_numbers():
        ...     found = noise(torch.randn, 4, 3, data=1)
        >>> found.shape, bool((found == found[:, :1]).all())
        (torch.Size([4, 3]), True)
    """
    if not is_common():
        return draw(list(shape))
    one = list(shape)
    one[data] = 1
    return draw(one).expand(*shape)


def categories(log_weight: Tensor, num_draws: int) -> Tensor:
    """Draws from log weights (C, n), which need not sum to one: (num_draws, n), whole numbers below C."""
    if not is_common():
        return torch.distributions.Categorical(logits=log_weight.T).sample((num_draws,))
    upper = log_weight.double().softmax(0).cumsum(0).T.contiguous()
    uniform = torch.rand(num_draws, dtype=upper.dtype, device=upper.device).expand(len(upper), -1)
    return torch.searchsorted(upper, uniform.contiguous()).clamp(max=len(log_weight) - 1).T


def one_by_one(draw: Callable[[int], dict[str, Tensor]], num_data: int, data: int) -> dict[str, Tensor]:
    """Common random numbers where what is drawn depends on the datum: each draws by itself, from the same seed.

    Args:
        draw: the number of a datum -> its draws, each (..., 1, ...).
        num_data: n.
        data: which dimension that is.
    """
    seed = int(torch.randint(2**62, ()))
    found = []
    for row in range(num_data):
        seed_torch(seed)
        found.append(draw(row))
    seed_torch(seed + 1)  # a draw may take more random numbers than that of another datum
    return {name: torch.cat([one[name] for one in found], data) for name in found[0]}
