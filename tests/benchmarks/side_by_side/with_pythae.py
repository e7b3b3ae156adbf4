"""pythae's trainer, and its get_nll. Its KL is the analytic one, its loss a mean, its batches come from a DataLoader."""

import logging
import os
import tempfile
import time

os.environ["TQDM_DISABLE"] = "1"  # it shows a progress bar whatever its configuration says

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn

from side_by_side.by_hand import networks, resident
from side_by_side.clock import Clock
from side_by_side.problems import LEARNING_RATE, PIXELS, Problem


class Encoder(BaseEncoder):
    """The network of all contenders, its answer under pythae's names."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> ModelOutput:
        location, log_scale = self.network(x).chunk(2, -1)
        return ModelOutput(embedding=location, log_covariance=2 * log_scale)


class Decoder(BaseDecoder):
    """The network of all contenders; pythae wants probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z).sigmoid())


def vae(problem: Problem) -> VAE:
    """pythae's VAE with a Bernoulli likelihood."""
    encoder, decoder = networks(problem)
    config = VAEConfig(input_dim=(PIXELS,), latent_dim=problem.latent, reconstruction_loss="bce")
    return VAE(config, encoder=Encoder(encoder), decoder=Decoder(decoder))


class Laps(TrainingCallback):
    """Ends a round where an epoch ends."""

    def __init__(self, problem: Problem, clock: Clock) -> None:
        self.problem, self.clock, self.loss = problem, clock, 0.0

    def on_log(self, training_config: BaseTrainerConfig, logs: dict, **kwargs: object) -> None:
        """What the epoch's mean loss was."""
        self.loss = logs["train_epoch_loss"]

    def on_epoch_begin(self, training_config: BaseTrainerConfig, epoch: int = 1, **kwargs: object) -> None:
        """The end of the epoch before."""
        if epoch > 1:
            self.clock(self.loss, self.problem.steps)


def trainer(problem: Problem, device: str, clock: Clock) -> None:
    """BaseTrainer's own loop, whole epochs, without validation and without checkpoints."""
    logging.disable(logging.CRITICAL)
    data = resident(problem, "cpu")
    config = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(prefix="pythae"),
        per_device_train_batch_size=problem.batch_size,
        num_epochs=10**6,
        learning_rate=LEARNING_RATE,
        optimizer_cls="Adam",
        keep_best_on_train=True,
        no_cuda=device == "cpu",
    )
    dataset = BaseDataset(data, torch.zeros(len(data)))
    BaseTrainer(vae(problem), dataset, training_config=config, callbacks=[Laps(problem, clock)]).train()


@torch.no_grad()
def get_nll(problem: Problem, device: str, clock: Clock) -> None:
    """get_nll takes a datum at a time; its batch_size is the faster one of its default and of all particles."""
    model, data = vae(problem).to(device).eval(), resident(problem, device)
    num_particles, seconds = problem.num_particles, {}
    for batch_size in (100, num_particles):
        model.get_nll(data[:2], num_particles, batch_size)
        started = time.perf_counter()
        model.get_nll(data[:10], num_particles, batch_size)
        seconds[batch_size] = time.perf_counter() - started
    batch_size, share = min(seconds, key=seconds.__getitem__), data[:100]
    while True:
        evidence = np.asarray(model.get_nll(share, num_particles, batch_size)).item()
        clock(evidence, len(share) * num_particles)
