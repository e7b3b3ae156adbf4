r"""Collapsed Metropolis-within-Gibbs with adaptive proposals: chains of latents given what was observed.

A chain targets p(z | x_o), the missing entries integrated out. It proposes from the guide of complete data at earlier
imputations of all chains of its datum, J of them drawn at random, or from the prior,

.. math:: q_\epsilon(z) = \frac{1 - \epsilon}{J} \sum_j q(z \mid x_o, \tilde x_{m,j}) + \epsilon \, p(z), \qquad
    \min\Big(1, \frac{p(x_o, z') \, q_\epsilon(z)}{p(x_o, z) \, q_\epsilon(z')}\Big)

and then imputes by x_m ~ p(x_m | x_o, z). No weight enters, so that it checks draws that were resampled by theirs.
Simkus and Gutmann take J = 1: where what is missing says much of z, the guide at one imputation leaves no way back from
what it proposes, and nearly all is rejected. A guide narrower than its posterior still leaves chains where they are, so
that real latents also move by differences of earlier points, u' = u + g (u_1 - u_2), on the unconstrained scale.

References:
    Mattei and Frellsen (2018), Leveraging the exact likelihood of deep latent variable models, arXiv:1802.04826.
    Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated approximate ancestral
    sampling, arXiv:2308.09078.
    ter Braak and Vrugt (2008), Differential evolution Markov chain with snooker updater and fewer chains,
    Statistics and Computing 18:435.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from pyrovae.base.errors import check_at_least_one
from pyrovae.base.random import seed_everything
from pyrovae.evidence.blocks import Block, Blocks, Pair, block_by_block
from pyrovae.evidence.comparisons.hidden import Hidden
from pyrovae.evidence.plan import Plan
from pyrovae.evidence.resampling import taken
from pyrovae.pairs.latents import Joint, Latents, Values
from pyrovae.pairs.missing.completing import Completer, Filled
from pyrovae.pairs.traces import each_batched
from pyrovae.posteriors.missing.completion import Mixing
from pyrovae.posteriors.missing.entries import of_draws

PRIOR = 0.1  # of the proposals
NUM_PAST = 10  # J
NUM_LOCAL = 10  # moves along differences, for each by the guide
NUM_FIRST = 5  # draws of the prior for each chain, between which differences begin
WHOLE, JITTER = 0.1, 1e-4  # of these as long as a difference, which may lead to another mode; and so much noise
ROWS = 400  # chains of all data that move at once
LEAST_STEPS = 400  # that are kept, so that chains can be told apart


@dataclass(frozen=True)
class Chains:
    """How chains are run: L draws are kept of each datum, as many of each chain as can be."""

    num_draws: int
    num_chains: int
    num_warmup: int
    seed: int

    def __post_init__(self) -> None:
        check_at_least_one(num_draws=self.num_draws, num_chains=self.num_chains, num_warmup=self.num_warmup)

    @property
    def num_kept(self) -> int:
        """Draws of each chain."""
        return -(-self.num_draws // self.num_chains)

    @property
    def stride(self) -> int:
        """Steps from one draw that is kept to the next."""
        return -(-LEAST_STEPS // self.num_kept)

    @property
    def num_steps(self) -> int:
        """After the warm-up."""
        return self.num_kept * self.stride


def by_gibbs(pair: Hidden, chains: Chains, plan: Plan, *, progress: bool) -> tuple[Values, Any, Mixing]:
    """Draws of latents, the data completed by them, and how the chains mixed.

    Args:
        pair: data of which some entries are hidden, and the programs for them.
        chains: how many, how long.
        plan: blocks of data and name of the plate.
        progress: show a bar.
    """

    def begin(run: Pair) -> Any:
        source = pair.split.to(run.device)

        def work(block: Block) -> Any:
            seed_everything("gibbs", chains.seed, block.index)
            args = source.batch(block.rows)
            tiled = each_batched(args, lambda arg: arg.repeat(chains.num_chains, *[1] * (arg.dim() - 1)))
            latents = run.latents(tiled)
            found = _Walk(latents, Completer(latents, pair.whole), chains, pair.is_filled).walked(block.tick)
            return found

        return work

    def record(done: Any, _: Pair) -> Any:
        values = {name: torch.cat([one[0][name] for one in done], 1).cpu() for name in done[0][0]}
        filled = [torch.cat(each, 1).cpu() for each in zip(*(one[1] for one in done), strict=True)]
        acceptance, rhat, ess = (torch.cat(each).cpu() for each in zip(*(one[2] for one in done), strict=True))
        return values, of_draws(*filled), Mixing(acceptance, rhat, ess, chains.num_chains, chains.num_steps)

    rows = plan.batch_size or max(1, ROWS // chains.num_chains)
    memory = f"{chains.num_chains} chains of {{num_data}} data: lower num_chains or batch_size"
    steps = chains.num_warmup + chains.num_steps
    blocks = Blocks(len(pair.split), rows, ("gibbs", chains.seed), memory, steps)
    return block_by_block(pair.model, pair.guide, blocks, begin, record, plate=plan.plate, progress=progress)


class _State(NamedTuple):
    """Where C n chains are: latents (1, C n, ...), their densities, and points (1, C n, D) if they have any."""

    values: Values
    joint: Joint
    u: Tensor

    @classmethod
    def at(cls, latents: Latents, values: Values, *, on_the_line: bool) -> "_State":
        """At latents as they were drawn."""
        if on_the_line:
            u, joint = latents.moved(values)
        else:
            joint = latents.log_joint(values)
            u = joint.log_prior[..., None]
        return cls(values, joint, u)

    @property
    def height(self) -> Tensor:
        """log p(x_o, z), (C n,)."""
        return (self.joint.log_likelihood + self.joint.log_prior)[0].double()

    def where(self, accepted: Tensor, other: "_State") -> "_State":
        """This for some of the chains, (C n,), the other for the rest."""
        pairs = zip(self.joint[:3], other.joint[:3], strict=True)
        log_likelihood, log_prior, log_jacobian = (torch.where(accepted, *pair) for pair in pairs)
        values = _where(accepted, self.values, other.values)
        joint = Joint(log_likelihood, log_prior, log_jacobian, values)
        return _State(values, joint, torch.where(accepted[:, None], self.u, other.u))


class _Walk:
    """Chains of n data as C n data of their own, chain after chain."""

    def __init__(self, latents: Latents, completer: Completer, chains: Chains, is_filled: bool) -> None:
        latents.require_guide_density()
        self.latents, self.completer, self.chains, self.is_filled = latents, completer, chains, is_filled
        self.on_the_line = all(site.has_bijection for site in latents.sites.values())
        self.state = _State.at(latents, latents.draw(1), on_the_line=self.on_the_line)
        num_steps = chains.num_warmup + chains.num_steps
        x, u = completer.at(self.state.values).draws, self.state.u
        self.past_x = torch.cat([x, x.new_empty(num_steps, *x.shape[1:])])
        self.num_past, self.num_first = 1, NUM_FIRST * self.on_the_line
        first = [latents.moved(latents.draw_prior(1))[0] for _ in range(self.num_first)]
        self.past_u = torch.cat([*first, u, u.new_empty(num_steps, *u.shape[1:])])

    def walked(self, tick: Any) -> tuple[Values, Filled, tuple[Tensor, Tensor, Tensor]]:
        """Draws (L, n, ...), the data completed at each, and acceptance, R-hat and effective sample size (n,)."""
        accepted, heights, kept = torch.zeros_like(self.state.height), list[Tensor](), list[tuple[Values, Filled]]()
        for step in range(1 - self.chains.num_warmup, self.chains.num_steps + 1):
            probability, filled = self._step()
            if step > 0:
                accepted += probability
                heights.append(self.state.height)
                if step % self.chains.stride == 0:
                    kept.append((self.state.values, filled))
            tick()
        values = {name: self._by_datum([one[name] for one, _ in kept]) for name in self.state.values}
        parts = Filled(*(self._by_datum(list(each)) for each in zip(*(filled for _, filled in kept), strict=True)))
        mean = (accepted / self.chains.num_steps).unflatten(0, (self.chains.num_chains, -1)).mean(0)
        table = torch.stack(heights).unflatten(1, (self.chains.num_chains, -1)).movedim(1, 0)  # (C, S, n)
        rhat, ess = (torch.stack([of(column) for column in table.unbind(-1)]) for of in _STATISTICS)
        return values, parts, (mean, rhat, ess)

    def _by_datum(self, parts: list[Tensor]) -> Tensor:
        """Draws (1, C n, ...) of each step -> L draws (L, n, ...), those of one step side by side."""
        found = torch.cat([part.unflatten(1, (self.chains.num_chains, -1))[0] for part in parts])
        return found[: self.chains.num_draws]

    def _step(self) -> tuple[Tensor, Filled]:
        """A step by the guide and local ones: probability of acceptance of the first, and the data completed after."""
        probability = self._by_guide()
        for _ in range(NUM_LOCAL * self.on_the_line):
            self._locally()
        filled = self.completer.at(self.state.values)
        self.past_x[self.num_past] = filled.draws[0]
        self.past_u[self.num_first + self.num_past] = self.state.u[0]
        self.num_past += 1
        return probability, filled

    def _by_guide(self) -> Tensor:
        imputed = [self._earlier(self.past_x[: self.num_past]) for _ in range(NUM_PAST)]
        proposing = [self.latents.on(self._read_by_guide(x)) for x in imputed]
        is_prior = torch.rand_like(self.state.height) < PRIOR
        drawn = _where(is_prior, self.latents.draw_prior(1), proposing[0].draw(1))  # whose number means nothing
        new = _State.at(self.latents, drawn, on_the_line=self.on_the_line)
        before, after = self._log_proposal(proposing, self.state, new)
        return self._accept(new, new.height - self.state.height + before - after)

    def _locally(self) -> Tensor:
        """Along the difference of two earlier points of any chains of a datum, as wide as the posterior is."""
        past, u = self.past_u[: self.num_first + self.num_past], self.state.u[0]
        one, other = (self._earlier(past) for _ in range(2))
        whole = torch.rand_like(self.state.height)[:, None] < WHOLE
        length = torch.where(whole, 1.0, 2.38 / math.sqrt(2 * u.shape[-1])).to(u)
        u = (u + length * (one - other) + JITTER * torch.randn_like(u))[None]
        joint = self.latents.log_joint_unconstrained(u)
        return self._accept(
            _State(joint.values, joint, u), (joint.log_density - self.state.joint.log_density)[0].double()
        )

    def _accept(self, new: _State, log_ratio: Tensor) -> Tensor:
        """Moves the chains that accept; the probability of it, (C n,)."""
        probability = log_ratio.nan_to_num(nan=-math.inf).clamp(max=0).exp()
        self.state = new.where(torch.rand_like(probability) < probability, self.state)
        return probability

    def _read_by_guide(self, x: Tensor) -> list[Any]:
        """The arguments with an imputation where the guide reads the data."""
        args = list(self.latents.args)
        args[-1 if self.is_filled else 0] = x
        return args

    def _earlier(self, past: Tensor) -> Tensor:
        """One of what was there before, (S, C n, ...), for each chain and of any chain of its datum: (C n, ...)."""
        past = past.unflatten(1, (self.chains.num_chains, -1)).flatten(0, 1)  # (S C, n, ...)
        at = torch.randint(len(past), (self.chains.num_chains, past.shape[1]), device=past.device)
        return taken(past, at).flatten(0, 1)

    def _log_proposal(self, proposing: Sequence[Latents], *at: _State) -> Tensor:
        """Log density of what is proposed, at several latents for each chain: (K, C n)."""
        values = {name: torch.cat([one.values[name] for one in at]) for name in self.state.values}
        log_guide = torch.stack([one.log_guide(values).double() for one in proposing]).logsumexp(0)
        log_prior = torch.cat([one.joint.log_prior for one in at]).double()
        return torch.logaddexp(math.log((1 - PRIOR) / NUM_PAST) + log_guide, math.log(PRIOR) + log_prior)


_STATISTICS = (split_gelman_rubin, effective_sample_size)


def _where(condition: Tensor, yes: Values, no: Values) -> Values:
    """Where the condition (n,) holds the one, elsewhere the other: values (1, n, ...)."""
    return {
        name: torch.where(condition.reshape(1, -1, *[1] * (value.dim() - 2)), yes[name], value)
        for name, value in no.items()
    }
