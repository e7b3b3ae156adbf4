"""The batches of a fit: seed, epoch and place alone decide on rows and draws, so that any batch can be had again."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor

from pyrovae.base.memory import blocks_of, of_device
from pyrovae.base.random import preserve_rng_state, seed_of, stream
from pyrovae.data.split import Split

# Numbers that are decoded at once: one call for many small batches, and they stay in cache. Draws depend on them.
AHEAD = {"cpu": 2**18, "cuda": 2**24}
READY = 2  # batches of a file gathered ahead of their use
Batch = tuple[Tensor, ...]


class Batches:
    """What a fit is fed with, a tensor (B, ...) for each of the split's.

    Args:
        split: the training data.
        batch_size: B; the last batch of an epoch may be shorter.
        seed: of the order and of dynamic binarization.
    """

    def __init__(self, split: Split, batch_size: int, *, seed: int) -> None:
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.num_data, self.device, self.steps = len(split), split.device, -(-len(split) // batch_size)
        self.generator = torch.Generator(device=self.device)
        numbers = batch_size * sum(column.shape[1:].numel() for column in split.columns)
        self.ahead = max(1, of_device(AHEAD, self.device) // max(1, numbers))  # batches

    def of_each_size(self) -> list[Batch]:
        """One batch of each size that will come, the full size first."""
        sizes = dict.fromkeys(rows.stop - rows.start for rows in blocks_of(self.num_data, self.batch_size))
        return [self._look(torch.arange(rows)) for rows in sizes]

    def of_last_rows(self) -> Batch:
        """A batch of full size, of the last rows backwards."""
        return self._look(torch.arange(self.num_data).flip(0)[: self.batch_size])

    def example(self, epoch: int) -> Batch:
        """The rows of an epoch's first batch."""
        return self._look(self._order(epoch)[: self.batch_size])

    def _look(self, rows: Tensor) -> Batch:
        """A batch without a trace in any random state, laid out as those of an epoch."""
        with preserve_rng_state():
            return self.split.batch(rows)

    @contextmanager
    def epoch(self, number: int, first: int) -> Iterator[Iterator[Batch]]:
        """The batches of an epoch, from one on; those of a file are gathered ahead of their use."""
        pieces = self._order(number).split(self.ahead * self.batch_size)[first // self.ahead :]
        if self.split.mapped:
            with prefetch(self.split, pieces, self.generator) as coming:
                yield self._batches(coming, number, first)
        else:
            yield self._batches((self.split.batch(rows, self.generator) for rows in pieces), number, first)

    def _order(self, epoch: int) -> Tensor:
        """A new one in each epoch; one batch of all rows keeps theirs, for each may have a parameter of its own."""
        if self.steps == 1:
            order = torch.arange(self.num_data, device="cpu")
        else:
            shuffle = stream("order", self.seed, epoch)
            order = torch.randperm(self.num_data, generator=shuffle, device="cpu")
        return order if self.split.mapped else order.to(self.device)

    def _batches(self, coming: Iterator[Batch], epoch: int, first: int) -> Iterator[Batch]:
        piece, done = divmod(first, self.ahead)
        while True:
            if self.split.protocol.drawn_anew:
                self.generator.manual_seed(seed_of("binarization", self.seed, epoch, piece))
            tensors = next(coming, None)
            if tensors is None:
                return
            batches = zip(*(tensor.split(self.batch_size) for tensor in tensors), strict=True)
            yield from list(batches)[done:]
            piece, done = piece + 1, 0


@contextmanager
def prefetch(
    split: Split, batches: Iterable[Tensor], generator: torch.Generator | None = None
) -> Iterator[Iterator[Batch]]:
    """Gathers coming batches in one thread while the present one is used: `split.batch(rows, generator)` for each.

    Rows travel as they are kept (bytes, where the file holds bytes), from pinned memory where the split's device is
    CUDA, and are decoded and drawn on the device when they are taken, so that noise comes in the order of use.
    Leaving the context ends the thread, after the gather that is under way. What goes wrong in the thread is raised
    where its batch is taken.

    Args:
        split: its rows are gathered on the CPU, and served on its device.
        batches: (B,) int64 row numbers for each batch, on the CPU; read `READY` batches ahead.
        generator: of draws, on that device; torch's own when None.

    Example:
        >>> from pyrovae.data import load
        >>> train, order = load("digits").train, torch.randperm(1197)
        >>> with prefetch(train, order.split(500)) as coming:
        ...     print([len(x) for x, in coming])
        [500, 500, 197]
    """
    home, device, waiting = split.to("cpu"), split.device, iter(batches)

    def gather(rows: Tensor) -> Batch:
        kept = home.gather(rows)
        return tuple(part.pin_memory() for part in kept) if device.type == "cuda" else kept

    def ask(count: int) -> None:
        pending.extend(thread.submit(gather, rows) for rows in islice(waiting, count))

    def coming() -> Iterator[Batch]:
        while pending:
            kept = pending.popleft().result()
            ask(1)
            yield home.decode(tuple(part.to(device, non_blocking=True) for part in kept), generator)

    pending: deque[Future[Batch]] = deque()
    thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        ask(READY)
        yield coming()
    finally:
        thread.shutdown(cancel_futures=True)
