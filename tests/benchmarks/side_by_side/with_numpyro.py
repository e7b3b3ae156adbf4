"""NumPyro's jitted step: SVI.update under jax.jit, a call for each batch or an epoch of them in one loop."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from jax.example_libraries import stax
from numpyro.infer import SVI, Trace_ELBO

from side_by_side.clock import Absent, Clock
from side_by_side.problems import CHANNELS, CONV_HIDDEN, LEARNING_RATE, PIXELS, Problem, rows

Layer = tuple[Callable, Callable]


def networks(problem: Problem) -> tuple[Layer, Layer]:
    """(encoder, decoder) with the layers of those by hand, in the layout that JAX is used to."""
    activation = {"ReLU": stax.Relu, "Tanh": stax.Tanh}[problem.activation]
    if problem.network == "conv":
        return _conv_encoder(problem, activation), _conv_decoder(activation)
    encoder = _mlp((*problem.hidden, 2 * problem.latent), activation)
    return encoder, _mlp((*reversed(problem.hidden), PIXELS), activation)


def _mlp(widths: tuple[int, ...], activation: Layer) -> Layer:
    layers = [layer for width in widths for layer in (stax.Dense(width), activation)]
    return stax.serial(*layers[:-1])


def _conv_encoder(problem: Problem, activation: Layer) -> Layer:
    convolutions = [
        layer for c in CHANNELS for layer in (stax.Conv(c, (3, 3), strides=(2, 2), padding="SAME"), activation)
    ]
    head = (stax.Flatten, stax.Dense(CONV_HIDDEN), activation, stax.Dense(2 * problem.latent))
    return stax.serial(_reshape(28, 28, 1), *convolutions, *head)


def _conv_decoder(activation: Layer) -> Layer:
    first, second = reversed(CHANNELS)
    return stax.serial(
        *(stax.Dense(CONV_HIDDEN), activation),
        *(stax.Dense(7 * 7 * first), activation, _reshape(7, 7, first)),
        *(stax.ConvTranspose(second, (4, 4), strides=(2, 2), padding="SAME"), activation),
        *(stax.ConvTranspose(1, (4, 4), strides=(2, 2), padding="SAME"), stax.Flatten),
    )


def _reshape(*shape: int) -> Layer:
    return (lambda key, of: ((of[0], *shape), ())), (lambda weights, x, **_: x.reshape(x.shape[0], *shape))


def model(networks: tuple[Layer, Layer], latent: int, x: jax.Array) -> None:
    """p(x, z)."""
    decode = numpyro.module("decoder", networks[1], (len(x), latent))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([latent]).to_event(1))
        numpyro.sample("obs", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)


def guide(networks: tuple[Layer, Layer], latent: int, x: jax.Array) -> None:
    """q(z|x)."""
    encode = numpyro.module("encoder", networks[0], (len(x), PIXELS))
    location, log_scale = jnp.split(encode(x), 2, axis=-1)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(location, jnp.exp(log_scale)).to_event(1))


def _train(problem: Problem, device: str, clock: Clock, epoch_of: Callable) -> None:
    if jax.default_backend() != {"cpu": "cpu"}.get(device, "gpu"):
        raise Absent(f"jax sees no {device}")
    jax.config.update("jax_default_matmul_precision", "highest")  # float32, as torch computes
    programs = (partial(program, networks(problem), problem.latent) for program in (model, guide))
    svi = SVI(*programs, numpyro.optim.Adam(LEARNING_RATE), Trace_ELBO())
    data, epoch = jnp.asarray(rows(problem)), epoch_of(svi)
    key, start = random.split(random.PRNGKey(0))
    state = svi.init(start, data[: problem.batch_size])
    while True:
        key, shuffle = random.split(key)
        order = random.permutation(shuffle, problem.num_data).reshape(problem.steps, problem.batch_size)
        state, total = epoch(state, data, order)
        clock(float(total) / problem.num_data, problem.steps)


def step_by_step(problem: Problem, device: str, clock: Clock) -> None:
    """One call of the jitted step for each batch, the batch taken inside it."""

    def epoch_of(svi: SVI) -> Callable:
        @partial(jax.jit, donate_argnums=(0, 1))
        def step(state, total, data, index):
            state, loss = svi.update(state, data[index])
            return state, total + loss

        def epoch(state, data, order):
            total = jnp.zeros(())
            for index in order:
                state, total = step(state, total, data, index)
            return state, total

        return epoch

    _train(problem, device, clock, epoch_of)


def epoch_in_a_loop(problem: Problem, device: str, clock: Clock) -> None:
    """A whole epoch in one jitted lax.fori_loop, as NumPyro's VAE example does."""

    def epoch_of(svi: SVI) -> Callable:
        @jax.jit
        def epoch(state, data, order):
            def step(i, carry):
                state, total = carry
                state, loss = svi.update(state, data[order[i]])
                return state, total + loss

            return lax.fori_loop(0, len(order), step, (state, jnp.zeros(())))

        return epoch

    _train(problem, device, clock, epoch_of)
