"""The steps of a fit, taken eagerly by Pyro's SVI or replayed from one traced step; what they sum up is the same."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pyro
import torch
from pyro.infer import ELBO, SVI
from torch import Tensor, nn

from pyrovae.errors import InputError, NotCompiled
from pyrovae.inference.blocks import kept_rng, memory_advice
from pyrovae.inference.checkpoint import weights
from pyrovae.inference.compiled import Replay, Step, without_synchronisation
from pyrovae.inference.handlers import filled_under_mask, tempered
from pyrovae.inference.measures import Meter, not_finite_sites, plate_scale
from pyrovae.inference.optimizers import Guarded, NotFiniteError
from pyrovae.inference.pairs import Program, evaluation_mode, plain_traces
from pyrovae.inference.tracing import Untraceable

STEPS_UNCHECKED = 1_000  # replays between two looks at the programs: a look takes as long as some eight steps


class Stepper:
    """What changes the weights, batch by batch, and counts what is logged.

    Args:
        model: of the pair.
        guide: of the pair.
        modules: theirs.
        objective: whose loss is lowered.
        optimizer: with what.
        plate: name of the data plate, where several plates hold all sites.
        warm: whether the KL is weighted, by :attr:`beta`.
        device: where the data are.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        modules: Sequence[nn.Module],
        *,
        objective: ELBO,
        optimizer: Guarded,
        plate: str | None,
        warm: bool,
        device: torch.device,
    ) -> None:
        self.modules, self.objective, self.optimizer, self.plate = modules, objective, optimizer, plate
        self.beta = torch.ones((), device=device)
        self.rate = torch.ones((), device=device, dtype=torch.float64)  # on the learning rates, as a replay reads it
        self.model, self.guide = (
            tempered(program, self.beta) if warm else program for program in (filled_under_mask(model), guide)
        )
        self.svi = SVI(self.model, self.guide, optimizer, optimizer.watched(objective))
        self.scales: dict[int, float] = {}  # rows of a batch -> how many data a row stands for
        self.meter = Meter(objective, model, guide, self.scales, device)
        self.replay: Replay | None = None  # of the whole step, where it is compiled
        self.unchecked = 0

    def prime(self, batches: Sequence[tuple[Tensor, ...]]) -> None:
        """Lets the objective guess its plates now, so that no step draws numbers for it; clears old gradients.

        Args:
            batches: one of each size that will come.
        """
        for batch in batches:
            with kept_rng(), torch.no_grad(), evaluation_mode(self.modules), numerics_of_training():
                self.scales[len(batch[0])] = plate_scale(plain_traces(self.model, self.guide, batch)[0])
                self.svi.loss(self.model, self.guide, *batch)
        self.forget_gradients()

    def compile(self, batches: Sequence[tuple[Tensor, ...]], *, may_be_eager: bool) -> bool:
        """Makes the step for batches like the first one graph.

        Args:
            batches: one of each size that will come.
            may_be_eager: whether steps are taken eagerly, with a warning, where there can be no graph.

        Returns:
            Whether it did.

        Raises:
            InputError: saying why not, unless ``may_be_eager``.
        """
        return self._or_eager(lambda: self._trace(batches), may_be_eager)

    def begin(self, rate: float, number: int, batch: tuple[Tensor, ...], *, may_be_eager: bool) -> bool:
        """Starts or resumes an epoch at its step ``number``; once in a while sees that the programs are as traced.

        Returns:
            Whether steps are replayed.
        """
        self.optimizer.rate = rate
        self.rate.fill_(rate)
        for module in self.modules:
            module.train()
        replay = self.replay
        if replay is None:
            return False
        replay.step.taken.fill_(number)
        if self.unchecked < STEPS_UNCHECKED:
            return True
        self.unchecked = 0
        return self._or_eager(lambda: replay.check(*batch), may_be_eager)

    def take(self, batch: tuple[Tensor, ...]) -> None:
        """Takes one step; on CUDA a replay is not waited for, and :meth:`refused` tells at the end of the epoch.

        Raises:
            FloatingPointError: naming the site, if its loss or a gradient is not finite; the weights are as before.
        """
        noise = torch.get_rng_state()
        try:
            with memory_advice(f"a batch of {len(batch[0])}: lower batch_size"):
                self._take(batch)
        except NotFiniteError as error:
            torch.set_rng_state(noise)
            raise FloatingPointError(self.diagnosis(batch, str(error))) from None

    def refused(self) -> int | None:
        """The step of this epoch that was not taken, and the last to be tried; waits for the device."""
        return self.replay.refused() if self.replay else None

    def diagnosis(self, batch: tuple[Tensor, ...], otherwise: str = "a gradient is not finite") -> str:
        """What is not finite on a batch: the site if one can be found, else as given."""
        bad = not_finite_sites(self.model, self.guide, batch)
        cause = f"the log density of site '{bad[0]}' is not finite" if bad else otherwise
        return f"{cause}; the step was not taken. Lower the learning rate, or look at the data and scales there"

    def forget_gradients(self) -> None:
        """Frees what the last step left on the parameters."""
        for _, parameter in pyro.get_param_store().named_parameters():
            parameter.grad = None

    def _take(self, batch: tuple[Tensor, ...]) -> None:
        if self.replay is None:
            self.meter.add(self.svi.step(*batch), len(batch[0]), batch)
            return
        self.replay(*batch)
        self.meter.num_data += len(batch[0])
        self.unchecked += 1
        if not batch[0].is_cuda and self.replay.refused() is not None:
            raise NotFiniteError([], "a gradient is not finite")

    def _trace(self, batches: Sequence[tuple[Tensor, ...]]) -> None:
        for module in self.modules:
            module.train()
        every = (p for _, p in pyro.get_param_store().named_parameters())
        parameters = {id(p): p for p in every if p.requires_grad}  # one may have two names
        step = Step(
            self.model,
            self.guide,
            without_synchronisation(self.objective, self.plate),
            self.optimizer.adam(list(parameters.values())),
            rate=self.rate,
            sums=self.meter.sums,
            scales=self.scales,
        )
        for batch in batches:
            step.objective.prepare(step.model, step.guide, *batch)
        self.replay = Replay(step, lambda: list(weights(self.modules).values()), *batches[0])

    def _or_eager(self, act: Callable[[], None], may_be_eager: bool) -> bool:
        try:
            act()
        except Untraceable as error:
            self.replay = None
            self.optimizer.separate()
            if not may_be_eager:
                raise InputError(f"the step cannot be compiled: {error}; use compile=False") from error
            warnings.warn(f"the step is not compiled, and so slower: {error}", NotCompiled, stacklevel=2)
            return False
        return True


@contextmanager
def numerics_of_training() -> Iterator[None]:
    """Pyro's checks off for the hot loop: values were checked before it, gradients are checked in it."""
    with pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Encountered NaN")
        warnings.filterwarnings("ignore", message=".*was not registered in the param store")
        yield
