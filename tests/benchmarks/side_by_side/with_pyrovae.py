"""Ours: fit and evidence, eager and compiled, with our families and with torch's own, and the whole of evaluate."""

import inspect
import math
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import pyrovae as pv
from pyrovae.base.memory import blocks_of, keep_freed_memory
from pyrovae.base.random import seed_everything
from pyrovae.data.split import as_split
from pyrovae.evidence import blocks as measuring
from pyrovae.evidence.importance import Evaluation
from pyrovae.evidence.plan import Plan
from pyrovae.pairs.context import isolated
from side_by_side import by_hand
from side_by_side.clock import Clock
from side_by_side.problems import CHANNELS, CONV_HIDDEN, PIXELS, Problem

RAW_OF_ONE = math.log(math.e - 1)  # its softplus is 1
Pair = tuple[Callable, Callable]


def built_in(problem: Problem) -> pv.VAE:
    """pv.VAE with the weights that the networks by hand have."""
    activation, pixels = getattr(nn, problem.activation), PIXELS
    if problem.network == "conv":
        pixels = (28, 28)
        encoder = pv.networks.conv_encoder(pixels, channels=CHANNELS, hidden=CONV_HIDDEN, activation=activation)
        decoder = pv.networks.conv_decoder(
            problem.latent, pixels, channels=CHANNELS[::-1], hidden=CONV_HIDDEN, activation=activation
        )
    else:
        encoder = pv.networks.mlp(PIXELS, *problem.hidden, activation=activation)
        decoder = pv.networks.mlp(problem.latent, *reversed(problem.hidden), activation=activation)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(problem.latent),
        decoder=pv.Conditional(pv.families.bernoulli(), pixels, decoder),
        encoder=pv.Conditional(pv.families.normal(), problem.latent, encoder),
    )
    for own, same in zip((vae.encoder, vae.decoder), by_hand.networks(problem), strict=True):
        nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(same.parameters()), own.parameters())
    _raise_scales(vae.encoder, problem)
    return vae


def _raise_scales(encoder: nn.Module, problem: Problem) -> None:
    """Makes the guide start as the others do: its scales are softplus where theirs are exp, both 1 afterwards."""
    with torch.no_grad():
        list(encoder.parameters())[-1][problem.latent :] += RAW_OF_ONE


# ---------------------------------------------------------------------------------------------- the training step


def _fit(problem: Problem, device: str, clock: Clock, *, compiled: bool) -> None:
    vae, data = built_in(problem), by_hand.resident(problem, device)
    pv.fit(
        vae.model,
        vae.guide,
        data.unflatten(1, (28, 28)) if problem.network == "conv" else data,
        epochs=10**6,
        batch_size=problem.batch_size,
        device=device,
        progress=False,
        callback=lambda epoch, fitted: clock(-fitted.history[-1]["elbo"], problem.steps),
        compile=compiled,
    )


eager = partial(_fit, compiled=False)
compiled = partial(_fit, compiled=True)


# -------------------------------------------------------------------------------------------------- the evidence


def _pair(problem: Problem, device: str) -> Pair:
    vae = built_in(problem).to(device)
    return vae.model, vae.guide


def _by_hand(encoder: nn.Module, decoder: nn.Module, problem: Problem, bernoulli: Callable, normal: Callable) -> Pair:
    """A user's own pair: two networks, two programs."""
    device = next(encoder.parameters()).device
    zeros, ones = (f(problem.latent, device=device) for f in (torch.zeros, torch.ones))

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(zeros, ones).to_event(1))
            pyro.sample("x", bernoulli(decoder(z)), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(*encoder(x).chunk(2, -1)))

    return model, guide


def _of_our_families(problem: Problem, device: str) -> Pair:
    encoder, decoder = (network.to(device) for network in by_hand.networks(problem))
    _raise_scales(encoder, problem)
    bernoulli, normal = pv.families.bernoulli(), pv.families.normal()
    return _by_hand(encoder, decoder, problem, partial(bernoulli.build, 1), partial(normal.build, 1))


def _of_torch_families(problem: Problem, device: str) -> Pair:
    encoder, decoder = (network.to(device) for network in by_hand.networks(problem))

    def bernoulli(logits: Tensor) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=logits).to_event(1)

    def normal(location: Tensor, log_scale: Tensor) -> dist.TorchDistribution:
        return dist.Normal(location, log_scale.exp()).to_event(1)

    return _by_hand(encoder, decoder, problem, bernoulli, normal)


def plan(num_particles: int, compile: bool) -> Plan:
    """The plan that evaluate makes of its own defaults, but from the guide alone, as the others draw."""
    defaults = {name: one.default for name, one in inspect.signature(pv.evaluate).parameters.items()}
    given = {"method": "importance", "num_particles": num_particles, "compile": compile}
    return Plan(**{one.name: defaults[one.name] for one in fields(Plan)} | given)


def _evidence(
    problem: Problem, device: str, clock: Clock, *, compiled: bool, build: Callable[[Problem, str], Pair] = _pair
) -> None:
    """The mean log p(x) without its diagnostics: what evaluate does but for k-hat and the errors.

    Rounds are parts of one evaluation, as blocks of data are: where it compiles, it did so before the first round.
    """
    keep_freed_memory()
    split = as_split(by_hand.resident(problem, device))
    with isolated(*build(problem, device)) as (model, guide, home):
        how = plan(problem.num_particles, compiled)
        pair = measuring.Pair(model, guide, home, None)
        run = Evaluation(pair, how, len(split))
        blocks = [measuring.Block(index, rows, int) for index, rows in enumerate(blocks_of(len(split), how.rows(pair)))]
        while True:
            weights = []
            for block in blocks:
                seed_everything("evaluation", 0, block.index)
                weights.append(run.block(split.batch(block.rows), block).log_weight)
            found = torch.cat([pv.estimators.log_evidence(log_weight) for log_weight in weights])
            clock(found.mean().item(), problem.num_data * problem.num_particles)


evidence = partial(_evidence, compiled=True)
evidence_of_own_pair = partial(_evidence, compiled=True, build=_of_our_families)
evidence_of_torch_families = partial(_evidence, compiled=True, build=_of_torch_families)
evidence_eager = partial(_evidence, compiled=False)


def evaluate(problem: Problem, device: str, clock: Clock) -> None:
    """evaluate as users call it, with k-hat and every error."""
    pair, data = _pair(problem, device), by_hand.resident(problem, device)
    while True:
        report = pv.evaluate(*pair, data, num_particles=problem.num_particles, method="importance", progress=False)
        clock(report.log_evidence.mean().item(), problem.num_data * problem.num_particles)


# ----------------------------------------------------------------------------------------------------- the memory


def peak_memory(problem: Problem, device: str, clock: Clock) -> None:
    """The most memory in use during a first evaluation beyond what was in use before it, in MB, as the value."""
    pair, data = _pair(problem, device), by_hand.resident(problem, device)
    before = _restart_peak(device)
    pv.evaluate(*pair, data, num_particles=problem.num_particles, method="importance", progress=False)
    found = (_peak(device) - before) / 2**20
    while True:  # what a second one takes is there already
        clock(found, 1)


def _restart_peak(device: str) -> int:
    """Forgets the peak so far; bytes in use now."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _of_status("VmRSS")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device != "cpu" else _of_status("VmHWM")


def _of_status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
