"""A linear-Gaussian state-space model: a chain of latents z_0, ..., z_{T-1}, each with its own observation.

With A of shape (S, S) and C of shape (D, S)::

    z_0 ~ N(0, diag(i^2)),  z_t | z_{t-1} ~ N(A z_{t-1}, diag(q^2)),  x_t | z_t ~ N(C z_t, diag(r^2))

p(x) is the product of the predictions p(x_t | x_{<t}) of a Kalman filter. Backwards in time the posterior is a
chain again, p(z_t | z_{t+1}, x_{<=t}): the filter's Normal, given that z_{t+1} = A z_t + noise.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.parameters import check_rows, learned_or_fixed, register_module, seeded


class _Gaussian(NamedTuple):
    """A Normal over states by its mean, (..., S), and covariance, (S, S)."""

    mean: Tensor
    covariance: Tensor


class StateSpace(nn.Module):
    """A chain of T steps of S states and D features, sites "z_0", "x_0", "z_1", ... in the plate over data.

    Args:
        num_steps: T.
        transition: A, shape (S, S).
        emission: C, shape (D, S).
        initial_scale: i > 0, shape (S,), or a scalar.
        process_scale: q > 0, shape (S,), or a scalar.
        noise_scale: r > 0, shape (D,), or a scalar.

    Raises:
        InputError: if there is no step, the shapes do not agree, or a scale is not positive.

    References:
        Kalman (1960), A new approach to linear filtering and prediction problems, doi:10.1115/1.3662552.
        Rauch, Tung and Striebel (1965), Maximum likelihood estimates of linear dynamic systems, doi:10.2514/3.3166.
        Frühwirth-Schnatter (1994), Data augmentation and dynamic linear models, doi:10.1111/j.1467-9892.1994.tb00184.x.

    Example:
        >>> oracle = state_space(3, 2, 1)
        >>> x, z = oracle.draw(5, seed=0)
        >>> x.shape, list(z), z["z_0"].shape
        (torch.Size([5, 3, 2]), ['z_0', 'z_1', 'z_2'], torch.Size([5, 1]))
    """

    def __init__(
        self,
        num_steps: int,
        transition: Tensor,
        emission: Tensor,
        *,
        initial_scale: Tensor,
        process_scale: Tensor,
        noise_scale: Tensor,
    ) -> None:
        super().__init__()
        check_at_least_one(num_steps=num_steps)
        if emission.ndim != 2:
            raise InputError(f"emission must have shape (D, S); got {tuple(emission.shape)}")
        self.num_steps, self.event_shape = num_steps, torch.Size([num_steps, len(emission)])
        features, states = emission.shape[:1], emission.shape[1:]
        self.transition = learned_or_fixed("transition", transition, torch.Size([*states, *states]))
        self.emission = learned_or_fixed("emission", emission, emission.shape)
        self.initial_scale = learned_or_fixed("initial_scale", initial_scale, states, positive=True)
        self.process_scale = learned_or_fixed("process_scale", process_scale, states, positive=True)
        self.noise_scale = learned_or_fixed("noise_scale", noise_scale, features, positive=True)

    def model(self, x: Tensor) -> None:
        """The program p(z_0) p(x_0 | z_0) p(z_1 | z_0) p(x_1 | z_1) ... for x of shape (N, T, D)."""
        register_module(self)
        check_rows(x, self.event_shape)
        with pyro.plate("data", len(x)):
            z = torch.zeros_like(self.transition[0])
            for t in pyro.markov(range(self.num_steps)):
                z = pyro.sample(f"z_{t}", dist.Normal(z @ self.transition.T, self._state_scale(t)).to_event(1))
                pyro.sample(f"x_{t}", dist.Normal(z @ self.emission.T, self.noise_scale).to_event(1), obs=x[:, t])

    def guide(self, x: Tensor) -> None:
        """The exact posterior, backwards in time, as a program: every importance weight is p(x)."""
        register_module(self)
        filtered = [state for _, state in self._filter(x)]
        with pyro.plate("data", len(x)):
            state = filtered.pop()
            z = pyro.sample(f"z_{self.num_steps - 1}", dist.MultivariateNormal(*state))
            for t in pyro.markov(reversed(range(self.num_steps - 1))):
                state, _ = _given(filtered[t], self.transition, self.process_scale, z)
                z = pyro.sample(f"z_{t}", dist.MultivariateNormal(*state))

    def posterior(self, x: Tensor) -> dict[str, dist.MultivariateNormal]:
        """p(z_t | x) of each site, for x of shape (N, T, D): batch shape (N,), event shape (S,)."""
        *filtered, state = [state for _, state in self._filter(x)]
        smoothed = [state]
        for earlier in reversed(filtered):
            (mean, covariance), gain = _given(earlier, self.transition, self.process_scale, state.mean)
            state = _Gaussian(mean, covariance + gain @ state.covariance @ gain.T)
            smoothed.append(state)
        return {f"z_{t}": dist.MultivariateNormal(*state) for t, state in enumerate(reversed(smoothed))}

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, shape (N,), for x of shape (N, T, D)."""
        predictions = [dist.MultivariateNormal(*prediction) for prediction, _ in self._filter(x)]
        return torch.stack([p.log_prob(x[:, t]) for t, p in enumerate(predictions)]).sum(0)

    def draw(self, num_data: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """x (N, T, D) and its latents, each (N, S), drawn from the model; the global generator is restored."""
        with torch.no_grad(), seeded(seed):
            states = [dist.Normal(0.0, self.initial_scale).sample((num_data,))]
            for _ in range(1, self.num_steps):
                states.append(dist.Normal(states[-1] @ self.transition.T, self.process_scale).sample())
            x = dist.Normal(torch.stack(states, 1) @ self.emission.T, self.noise_scale).sample()
        return x, {f"z_{t}": state for t, state in enumerate(states)}

    def _filter(self, x: Tensor) -> Iterator[tuple[_Gaussian, _Gaussian]]:
        """For each step the prediction p(x_t | x_{<t}) and the filtered state p(z_t | x_{<=t})."""
        check_rows(x, self.event_shape)
        state = _Gaussian(torch.zeros_like(self.transition[0]), torch.zeros_like(self.transition))
        for t in range(self.num_steps):
            state = _through(state, self.transition, self._state_scale(t))
            prediction = _through(state, self.emission, self.noise_scale)
            state, _ = _given(state, self.emission, self.noise_scale, x[:, t])
            yield prediction, state

    def _state_scale(self, t: int) -> Tensor:
        return self.process_scale if t else self.initial_scale


def state_space(num_steps: int, num_features: int, num_states: int, *, noise: float = 1.0, seed: int = 0) -> StateSpace:
    """A chain in float64: A is 0.9 times a random rotation, C standard normal, initial and process scale 1.

    Args:
        num_steps: T.
        num_features: D.
        num_states: S.
        noise: standard deviation of every observation given its state.
        seed: of the rotation and the emission.
    """
    with seeded(seed):
        normal = torch.randn(num_features + num_states, num_states, dtype=torch.float64)
    square, one = normal[:num_states], torch.ones_like(normal[0, 0])
    rotation = torch.linalg.matrix_exp(square - square.T)
    return StateSpace(
        num_steps, 0.9 * rotation, normal[num_states:], initial_scale=one, process_scale=one, noise_scale=noise * one
    )


def _through(state: _Gaussian, linear: Tensor, scale: Tensor) -> _Gaussian:
    """The Normal of y = H z + N(0, diag(scale^2)) for z from `state`."""
    return _Gaussian(state.mean @ linear.T, linear @ state.covariance @ linear.T + (scale**2).diag())


def _given(state: _Gaussian, linear: Tensor, scale: Tensor, y: Tensor) -> tuple[_Gaussian, Tensor]:
    """The Normal of z from `state` once y = H z + N(0, diag(scale^2)) is known, and the gain (S, D) of z on y."""
    gain = torch.linalg.solve(_through(state, linear, scale).covariance, linear @ state.covariance).T
    rest = torch.ones_like(state.covariance[0]).diag() - gain @ linear
    mean = state.mean + (y - state.mean @ linear.T) @ gain.T
    # So written (Joseph's form) the covariance stays symmetric.
    return _Gaussian(mean, rest @ state.covariance @ rest.T + (gain * scale**2) @ gain.T), gain
