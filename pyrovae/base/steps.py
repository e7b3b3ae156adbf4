"""An iterative fit as a record: what was held, what followed from it and what was reached, at each of T steps."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.records import Record, number

SHOWN = 12  # steps in a summary: the first ones, and the last


class Step(NamedTuple):
    """One step of EM: the parameters that it begins with, and what they say of latents (E step) and of data."""

    parameters: dict[str, Tensor]
    posterior: dict[str, Tensor]
    log_evidence: float  # mean log p(x), nats per datum


@dataclass(frozen=True, eq=False, repr=False)
class Steps(Record):
    """T steps of a fit to N data; tensors are float64, on the CPU.

    Attributes:
        name: what was fitted.
        x: the data, (N, D).
        log_evidence: mean log p(x) under the parameters of each step, nats per datum, (T,).
        parameters: name -> (T, ...).
        posterior: what the E step found, name -> (T, ...).
    """

    name: str
    x: Tensor
    log_evidence: Tensor
    parameters: dict[str, Tensor]
    posterior: dict[str, Tensor]

    @classmethod
    def of(cls, name: str, x: Tensor, steps: Iterable[Step]) -> Self:
        """The record of steps that are taken here.

        Raises:
            InputError: where there is none.
        """
        taken = list(steps)
        if not taken:
            raise InputError("expected steps of a fit, got none")
        parts = ([step.parameters for step in taken], [step.posterior for step in taken])
        stacked = ({key: torch.stack([each[key] for each in part]) for key in part[0]} for part in parts)
        log_evidence = torch.tensor([step.log_evidence for step in taken], dtype=torch.float64)
        return cls(name, x.detach().double().flatten(1).cpu(), log_evidence, *stacked)

    def __len__(self) -> int:
        return len(self.log_evidence)

    def __repr__(self) -> str:
        return f"Steps({self.name}: {len(self)} steps, log p(x) {self.log_evidence[-1]:.3f} nats per datum)"

    @property
    def gain(self) -> Tensor:
        """What each step added to log p(x), NaN for the first: (T,)."""
        return torch.cat([self.log_evidence.new_full((1,), torch.nan), self.log_evidence.diff()])

    @property
    def change(self) -> Tensor:
        """The largest change of any parameter on the way to each step, NaN for the first: (T,)."""
        each = [value.diff(dim=0).abs().flatten(1).amax(1) for value in self.parameters.values()]
        return torch.cat([self.log_evidence.new_full((1,), torch.nan), torch.stack(each).amax(0)])

    def row_names(self) -> list[str]:
        return [f"step {step}" for step in range(len(self))]

    def table(self) -> dict[str, Tensor]:
        """One row for each step."""
        return {"log_evidence": self.log_evidence, "gain": self.gain, "change": self.change}

    def numbers(self) -> dict[str, Any]:
        """Where it began and ended, in nats per datum."""
        ends = {"first": number(self.log_evidence[0]), "last": number(self.log_evidence[-1])}
        return {"num_data": len(self.x), "num_steps": len(self), "log_evidence": ends}

    def lines(self) -> list[str | TextTable]:
        columns = [("", "<10", ""), ("log p(x)", ">12", "z.4f"), ("gain", ">11", ".2g")]
        columns += [("largest change of a parameter", ">31", ".2g")]
        rows = [(name, *row.values()) for name, row in self.named_rows().items()]
        if len(rows) > SHOWN:
            rows = [*rows[: SHOWN - 1], ("...", "", "", ""), rows[-1]]
        return [f"{self.name}: N = {len(self.x)} data; nats per datum", "", TextTable(columns, rows)]
