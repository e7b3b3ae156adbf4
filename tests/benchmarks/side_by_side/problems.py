"""What is timed: a VAE's shape, its data, and how much of them. The same for every contender.

The data are bits of ten made-up images with 784 pixels each; what a pixel is does not change what a step costs.
"""

from dataclasses import dataclass

import numpy as np

PIXELS, LEARNING_RATE = 784, 1e-3
CHANNELS, CONV_HIDDEN = (32, 64), 256  # of the convolutional networks; a decoder has them backwards


@dataclass(frozen=True)
class Problem:
    """A Bernoulli VAE 784 - hidden - latent, float32, and the amount of work in a round."""

    title: str
    num_data: int
    batch_size: int = 128  # of a training step; a round is one epoch
    num_particles: int = 1000  # of an evaluation, of which a round is one; or of an objective
    hidden: tuple[int, ...] = (400,)
    activation: str = "ReLU"
    network: str = "mlp"
    latent: int = 50
    objective: str = "elbo"
    prior: str = ""  # "" is N(0, I)

    @property
    def steps(self) -> int:
        """Training steps in a round."""
        return self.num_data // self.batch_size


def rows(problem: Problem) -> np.ndarray:
    """(num_data, 784) of zeros and ones, float32; the same numbers in every process."""
    generator = np.random.default_rng(0)
    images = generator.beta(0.3, 2.0, (10, PIXELS)).astype(np.float32)
    chosen = images[generator.integers(10, size=problem.num_data)]
    return (generator.random(chosen.shape, dtype=np.float32) < chosen).astype(np.float32)
