r"""observed_through(): a model of x as a model of what is observed of it, y, without an edit of the model.

.. math:: p(y, z) = p(z) \int p(y \mid x) \, p(x \mid z) \, dx

Whatever is done to a pair (a fit, evidence, posteriors, calibration) is then done to y.
"""

import functools
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.pairs.missing.observed import MOMENTS
from pyrovae.pairs.operators.operator import Operator
from pyrovae.pairs.traces import Program


class _Site(Messenger):
    """Meets the one site that observes what an operator is for."""

    def __init__(self, operator: Operator, y: Tensor) -> None:
        super().__init__()
        self.operator, self.y = operator, y
        self.met: dict[str, tuple[int, ...]] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] or (msg["infer"] or {}).get("_deterministic"):
            return
        self.met[msg["name"]] = tuple(msg["fn"].event_shape)
        if msg["fn"].event_shape == self.operator.shape:
            self.act(msg)

    def act(self, msg: Any) -> None:
        raise NotImplementedError

    def check_met(self) -> None:
        """Raises InputError, naming the sites, unless one of them was met."""
        found = [name for name, shape in self.met.items() if shape == tuple(self.operator.shape)]
        if len(found) != 1:
            sites = ", ".join(f"'{name}' {shape}" for name, shape in self.met.items()) or "none"
            how = "several observe" if found else "no site of the model observes"
            wanted = f"events of shape {tuple(self.operator.shape)}"
            raise InputError(f"{self.operator.name}: {how} {wanted}; found {sites}; make the operator for one of them")


class _Through(_Site):
    def act(self, msg: Any) -> None:
        msg["fn"], msg["value"] = self.operator.observe(msg["fn"]), self.y


class _Restoring(_Site):
    def act(self, msg: Any) -> None:
        found = self.operator.restore(msg["fn"], self.y)
        msg["infer"] = {**(msg["infer"] or {}), MOMENTS: (found.mean, found.variance)}
        msg["value"] = found.value


def _handled(model: Program, operator: Operator, handler: type[_Site]) -> Program:
    @functools.wraps(model, updated=())
    def program(y: Tensor, *others: Any) -> Any:
        operator.check(y, operator.of_shape, "y")
        with handler(operator, y) as site:
            result = model(operator.fill(y), *others)
        site.check_met()
        return result

    return program


@checked
def observed_through(model: Program, operator: Operator) -> Program:
    """The model of what an operator shows of x: y takes the place of x among the data.

    Args:
        model: program of p(x, z), one of whose sites observes events of the operator's shape.
        operator: :func:`~pyrovae.operators.entries`, :func:`~pyrovae.operators.linear`, ... .

    Raises:
        InputError: when it is run, for y of another shape, where no site of the model or several are of the operator's,
            and for a likelihood without a closed form.

    Example:
        >>> import torch
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(4, 1)
        >>> x, _ = oracle.draw(5, seed=0)
        >>> means = pv.operators.linear(torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]).double())
        >>> model, guide = observed_through(oracle.model, means), filled_in(oracle.guide, means)
        >>> report = pv.evaluate(model, guide, means.apply(x))  # of log p(y), y of shape (5, 2)
    """
    return operator.around(_handled(model, operator, _Through))


def restoring(model: Program, operator: Operator) -> Program:
    """The model of y with x drawn from p(x | y, z) where it is observed; moments of its numbers go with the site."""
    return _handled(model, operator, _Restoring)


@checked
def filled_in(guide: Program, operator: Operator) -> Program:
    """The guide of x as one of y: it reads a first guess of x, the operator's ``fill``.

    For masks the guess has NaN where nothing is observed: it takes a guide that reads these.

    Args:
        guide: program of q(z|x).
        operator: how y comes about from x.
    """

    @functools.wraps(guide, updated=())
    def program(y: Tensor, *others: Any) -> Any:
        return guide(operator.fill(y), *others)

    return program


class Corruption(nn.Module):
    """x -> a first guess of it from what an operator shows, drawn anew each time, in training mode; else x."""

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        """(N, *shape) -> (N, *shape)."""
        self.operator.check(x, self.operator.shape, "x")
        return self.operator.fill(self.operator.draw(x, None)) if self.training else x


@checked
def corrupted(guide: Program, operator: Operator) -> Program:
    r"""The guide on data that are corrupted anew at each step of a fit, which so maximises the denoising criterion.

    .. math:: E_{p(y \mid x)} \big[ E_{q(z \mid y)} [\log p(x, z) - \log q(z \mid y)] \big] \le \log p(x)

    As with dropout, it is the guide itself wherever nothing is trained: an evaluation reads the data as they are.

    Args:
        guide: program of q(z|x).
        operator: what corrupts, as :func:`~pyrovae.operators.salt_and_pepper`.

    References:
        Im, Ahn, Memisevic and Bengio (2017), Denoising criterion for variational auto-encoding framework, AAAI.
    """
    corruption = Corruption(operator)

    @functools.wraps(guide, updated=())
    def program(x: Tensor, *others: Any) -> Any:
        return guide(corruption(x), *others)

    return program
