r"""Information: what each entry that is not known would tell of others, datum by datum, and which to ask for next.

.. math:: c^* = \arg\max_c I(x_c ; x_y \mid x_o)
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.forms.tables import TextTable, text
from pyrovae.base.records import Record, mean_and_se
from pyrovae.data.protocol import Protocol
from pyrovae.evidence.reliability import ERRORS_GIVEN_FIT, UNRELIABLE_FRACTION

MOST_CANDIDATES = 20  # in a table, those of the most information
MOST_DATA = 10  # that are told one by one


@dataclass(frozen=True, eq=False, repr=False)
class Information(Record):
    """I(x_c ; x_y | x_o) in nats, of each of N data and each of C candidates c that could be asked for."""

    names: list[str]  # of the candidates
    about: str  # y, in words
    value: Tensor  # (N, C) nats, float64; NaN where all of a candidate is given
    mc_se: Tensor  # (N, C), its Monte-Carlo standard error: of draws, and of every evidence
    lead: Tensor  # (N,) nats by which the best candidate is ahead of the second; NaN where there is no second
    mc_se_lead: Tensor  # (N,), on the same draws
    fraction_doubted: Tensor  # (N, C): of the draws, those one of whose evidences nothing vouches for
    unreliable_draws: Tensor  # (N,) booleans: whether nothing vouches for the draws of a datum themselves
    num_given: Tensor  # (N,) float64: entries of x_o
    num_draws: int
    num_particles: int
    method: str
    seed: int
    protocol: Protocol

    def __repr__(self) -> str:
        return f"Information(N={len(self)}, {len(self.names)} candidates, L={self.num_draws}, about {self.about})"

    def __len__(self) -> int:
        return len(self.value)

    @property
    def asked(self) -> Tensor:
        """Which candidates are not given already, (N, C)."""
        return ~self.value.isnan()

    @property
    def best(self) -> list[str]:
        """The candidate of the most information of each datum; empty where all are given."""
        return [self.names[place] if any_left else "" for place, any_left in self._ranked(0)]

    @property
    def second(self) -> list[str]:
        """The candidate after the best; empty where there is none."""
        return [self.names[place] if is_left else "" for place, is_left in self._ranked(1)]

    def _ranked(self, rank: int) -> list[tuple[int, bool]]:
        """Of each datum the candidate of a rank, and whether there is one."""
        if rank >= len(self.names):
            return [(0, False)] * len(self)
        places = self._order[:, rank]
        return list(zip(places.tolist(), self.asked.gather(1, places[:, None])[:, 0].tolist(), strict=True))

    @property
    def _order(self) -> Tensor:
        return ranking(self.value)

    @property
    def unreliable(self) -> Tensor:
        """Whether nothing vouches for a number, (N, C): for its datum's draws, or for over 5 % of its evidences."""
        return self.asked & ((self.fraction_doubted > UNRELIABLE_FRACTION) | self.unreliable_draws[:, None])

    @property
    def fraction_unreliable(self) -> float:
        """Fraction of the numbers for which nothing vouches."""
        return (self.unreliable.sum() / self.asked.sum()).item()

    @property
    def is_clear(self) -> Tensor:
        """Whether the best candidate is known to be: by over two errors and reliably, or as nothing else is left, (N,).

        The largest of several noisy numbers is too large on average; the lead's error is that of two fixed candidates.
        """
        doubted = self.unreliable.gather(1, self._order[:, :2]).any(1)
        ahead = (self.lead > 2 * self.mc_se_lead) & ~doubted
        return ahead | (self.asked.sum(1) == 1)

    def table(self) -> dict[str, Tensor]:
        best = torch.where(self.asked.any(1), self._order[:, 0].double(), math.nan)
        columns = {"best": best, "lead": self.lead, "mc_se_lead": self.mc_se_lead, "is_clear": self.is_clear.double()}
        columns["num_given"] = self.num_given
        for place, name in enumerate(self.names):
            columns |= {f"information {name}": self.value[:, place], f"mc_se {name}": self.mc_se[:, place]}
            columns |= {f"unreliable {name}": self.unreliable[:, place].double()}
        return columns

    def numbers(self) -> dict[str, Any]:
        """Of each candidate the mean over data with its errors, and of how many it is the best; the best of each."""
        best = self.best
        return {
            "unit": "nats per datum",
            "num_data": len(self),
            "candidates": {name: self._of(place, Counter(best)) for place, name in enumerate(self.names)},
            "best": best,
            "fraction_clear": self.is_clear.double().mean().item(),
            "fraction_unreliable": self.fraction_unreliable,
        }

    def _of(self, place: int, best: Counter[str]) -> dict[str, Any]:
        rows = self.asked[:, place]
        found: dict[str, Any] = mean_and_se(self.value[rows, place], self.mc_se[rows, place])
        doubt = self.unreliable[rows, place].double().mean().item()
        return found | {"num_data": int(rows.sum()), "best_of": best[self.names[place]], "fraction_unreliable": doubt}

    def lines(self) -> list[str | TextTable]:
        account = self.numbers()
        mean = float(self.num_given.mean())
        given = f"entries given: {mean:.4g} on average" if mean else "nothing given"
        lines: list[str | TextTable] = [str(self.protocol)]
        lines += [f"information about {self.about}, {given}; N = {len(self)} data, {self.num_draws} draws of each", ""]
        lines += [self._candidates(account["candidates"]), "", *self._next(account)]
        lines += [f"unreliable (draws, or over {UNRELIABLE_FRACTION:.0%} of evidences): {self.fraction_unreliable:.1%}"]
        return [*lines, ERRORS_GIVEN_FIT]

    def _candidates(self, found: dict[str, dict[str, Any]]) -> TextTable:
        """The candidates, those of the most information first."""
        width = max(9, *map(len, self.names)) + 2
        columns = [("candidate", f"<{width}", ""), ("nats", ">10", "z.4f"), ("data SE", ">10", "z.4f")]
        columns += [
            ("MC SE", ">10", "z.4f"),
            ("data", ">7", ",d"),
            ("best of", ">9", ",d"),
            ("unreliable", ">12", ".1%"),
        ]
        keys = ("mean", "data_se", "mc_se", "num_data", "best_of", "fraction_unreliable")
        ranked = sorted(found, key=lambda name: -(found[name]["mean"] or 0.0))
        rows: list[Any] = [(name, *(found[name][key] for key in keys)) for name in ranked[:MOST_CANDIDATES]]
        left = len(ranked) - MOST_CANDIDATES
        return TextTable(columns, rows + [f"and {left:,} that tell less"] * (left > 0))

    def _next(self, account: dict[str, Any]) -> list[str]:
        """What to ask for next, of each of a few data; of many, how often that is clear."""
        if len(self) > MOST_DATA:
            return [f"the best is ahead by over 2 MC SE, or alone, in {account['fraction_clear']:.1%} of data"]
        pairs = zip(self.best, self.second, self.lead.tolist(), self.mc_se_lead.tolist(), self.is_clear, strict=True)
        return [f"datum {row}: {_told(*pair)}" for row, pair in enumerate(pairs)]


def _told(best: str, second: str, lead: float, error: float, is_clear: bool | Tensor) -> str:
    if not best:
        return "nothing is left to ask"
    if not second:
        return f"ask {best}, as nothing else is left"
    doubt = "" if is_clear else ", not clear"
    return f"ask {best}, {text(lead, '.4f')} nats ahead of {second} (MC SE {text(error, '.4f')}{doubt})"


def ranking(value: Tensor) -> Tensor:
    """Candidates by information (N, C), the most first and those that are given last: (N, C) places."""
    return value.nan_to_num(-math.inf).argsort(dim=1, descending=True, stable=True)
