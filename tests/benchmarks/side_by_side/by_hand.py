"""What people write without a probabilistic program: plain PyTorch modules, a loss, an optimizer.

The loss is the sampled one, log q(z|x) - log p(z) - log p(x|z) at one draw, as Pyro's, NumPyro's and ours are; written
with the noise itself, the normals' constants cancel and no division is left.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from side_by_side.clock import Clock
from side_by_side.problems import CHANNELS, CONV_HIDDEN, LEARNING_RATE, PIXELS, Problem, rows

ROWS_AT_ONCE = (500, 1000, 2000, 4000, 8000, 16000)  # through the decoder, of which the fastest is taken
ROWS_AT_ONCE_CUDA = (25_000, 50_000, 100_000, 200_000)


# ------------------------------------------------------------------------------------------ the networks and data


def networks(problem: Problem) -> tuple[nn.Sequential, nn.Sequential]:
    """(encoder, decoder): x -> location and log scale of q(z|x); z -> logits of p(x|z)."""
    torch.manual_seed(0)
    activation = getattr(nn, problem.activation)
    if problem.network == "conv":
        return _conv_encoder(problem.latent, activation), _conv_decoder(problem.latent, activation)
    encoder = _mlp((PIXELS, *problem.hidden, 2 * problem.latent), activation)
    return encoder, _mlp((problem.latent, *reversed(problem.hidden), PIXELS), activation)


def _mlp(widths: tuple[int, ...], activation: Callable[[], nn.Module]) -> nn.Sequential:
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers[:-1])


def _conv_encoder(latent: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    convolutions = [
        layer for a, b in pairwise((1, *CHANNELS)) for layer in (nn.Conv2d(a, b, 3, stride=2, padding=1), activation())
    ]
    head = (
        nn.Flatten(),
        nn.Linear(CHANNELS[-1] * 7 * 7, CONV_HIDDEN),
        activation(),
        nn.Linear(CONV_HIDDEN, 2 * latent),
    )
    return nn.Sequential(nn.Unflatten(1, (1, 28, 28)), *convolutions, *head)


def _conv_decoder(latent: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    first, second = reversed(CHANNELS)
    return nn.Sequential(
        *(nn.Linear(latent, CONV_HIDDEN), activation()),
        *(nn.Linear(CONV_HIDDEN, first * 7 * 7), activation(), nn.Unflatten(1, (first, 7, 7))),
        *(nn.ConvTranspose2d(first, second, 4, stride=2, padding=1), activation()),
        *(nn.ConvTranspose2d(second, 1, 4, stride=2, padding=1), nn.Flatten()),
    )


def resident(problem: Problem, device: str) -> Tensor:
    """All rows on the device."""
    return torch.from_numpy(rows(problem)).to(device)


def batches(data: Tensor, batch_size: int) -> Iterator[Tensor]:
    """One epoch in a new order."""
    for index in torch.randperm(len(data), device=data.device).split(batch_size):
        yield data[index]


# ---------------------------------------------------------------------------------------------- the training step


def negative_elbo(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """The sampled loss, summed over the batch, nats."""
    location, log_scale = encoder(x).chunk(2, -1)
    noise = torch.randn_like(location)
    z = location + log_scale.exp() * noise
    kl = (0.5 * (z * z - noise * noise) - log_scale).sum()  # log q(z|x) - log p(z)
    return kl + functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")


def train(problem: Problem, device: str, clock: Clock, step: Callable[[Tensor], Tensor]) -> None:
    """Epochs of a step that returns its summed loss; the loss is read once an epoch."""
    data = resident(problem, device)
    while True:
        total = torch.zeros((), device=device)
        for x in batches(data, problem.batch_size):
            total += step(x)
        clock(total.item() / problem.num_data, problem.steps)


def stepped(loss: Callable[[Tensor], Tensor], parameters: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """A step of a loss with the fused Adam: a batch -> its summed loss."""
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def eager(problem: Problem, device: str, clock: Clock, wrap: Callable = lambda function: function) -> None:
    """PyTorch as it comes, with the fused Adam."""
    loss, parameters = _elbo(problem, device)
    train(problem, device, clock, stepped(wrap(loss), parameters))


def _elbo(problem: Problem, device: str) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    encoder, decoder = (network.to(device) for network in networks(problem))
    return partial(negative_elbo, encoder, decoder), [*encoder.parameters(), *decoder.parameters()]


def compiled_loss(problem: Problem, device: str, clock: Clock) -> None:
    """torch.compile(loss) and the fused Adam, as people write it."""
    eager(problem, device, clock, torch.compile)


def whole(problem: Problem, device: str, clock: Clock) -> None:
    """Loss, backward and Adam as one graph, compiled; on CUDA captured too. What a skilled person can do by hand."""
    train_whole(problem, device, clock, *_elbo(problem, device))


def train_whole(
    problem: Problem, device: str, clock: Clock, loss: Callable[[Tensor], Tensor], parameters: list[Tensor]
) -> None:
    """Epochs of a loss whose step is one graph."""
    update, total = adam(parameters), torch.zeros((), device=device)

    def step(x: Tensor) -> tuple[()]:
        value = loss(x)
        update(value)
        total.add_(value.detach())
        return ()

    data = resident(problem, device)
    run = compiled(step, data[: problem.batch_size])
    while True:
        total.zero_()
        for x in batches(data, problem.batch_size):
            run(x)
        clock(total.item() / problem.num_data, problem.steps)


def adam(parameters: list[Tensor]) -> Callable[[Tensor], None]:
    """Adam without Python's numbers in it: loss -> the parameters moved in place."""
    means, squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    time_step = torch.zeros((), device=parameters[0].device)

    def update(loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            time_step.add_(1)
            # As exp, which inductor computes once; a power of a scalar it would take again for every element.
            first, second = (1 - (math.log(beta) * time_step).exp() for beta in (0.9, 0.999))
            rate, root = LEARNING_RATE / first, second.sqrt()
            for p, mean, square, gradient in zip(parameters, means, squares, gradients, strict=True):
                mean.lerp_(gradient, 0.1)
                square.mul_(0.999).add_(gradient * gradient * 0.001)
                p.sub_(rate * mean / (square.sqrt() / root + 1e-8))

    return update


def compiled(step: Callable, x: Tensor) -> Callable[[Tensor], object]:
    """A step traced once, the tensors it holds turned into inputs, and compiled as ours is."""
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx

    module = make_fx(step, tracing_mode="real")(x)
    live = _lift(module)
    with config.patch(fallback_random=True):  # a module of the graph alone: what it still held would come in twice
        graph = compile_fx(torch.fx.GraphModule({}, module.graph), [*live, x])

    @torch.no_grad()
    def run(x: Tensor) -> None:
        graph(*live, x)

    return captured(run, x) if x.is_cuda else run


def _lift(module: torch.fx.GraphModule) -> list[Tensor]:
    first = next(iter(module.graph.nodes))
    inputs: dict[int, tuple[Tensor, torch.fx.Node]] = {}
    for node in [node for node in module.graph.nodes if node.op == "get_attr"]:
        tensor = getattr(module, node.target)
        if id(tensor) not in inputs:
            with module.graph.inserting_before(first):
                inputs[id(tensor)] = tensor, module.graph.placeholder(f"live_{len(inputs)}")
        node.replace_all_uses_with(inputs[id(tensor)][1])
        module.graph.erase_node(node)
    return [tensor.detach() for tensor, _ in inputs.values()]


def captured(run: Callable[[Tensor], object], x: Tensor) -> Callable[[Tensor], None]:
    """A run of CUDA kernels as one CUDA graph, as PyTorch's notes on them say."""
    own, side, graph = x.clone(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run(own)
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        run(own)

    def replay(x: Tensor) -> None:
        own.copy_(x)
        graph.replay()

    return replay


# -------------------------------------------------------------------------------------------------- the evidence


@torch.no_grad()
def decoder_passes(problem: Problem, device: str, clock: Clock) -> None:
    """The K x N passes of the decoder that no importance sampling can do without, and nothing else."""
    decoder = networks(problem)[1].to(device)
    passes = problem.num_data * problem.num_particles

    def run(rows_at_once: int) -> None:
        z = torch.randn(rows_at_once, problem.latent, device=device)
        for start in range(0, passes, rows_at_once):
            logits = decoder(z[: passes - start])
        logits[-1, -1].item()  # waits for the device

    rows_at_once = fastest(run, device)
    while True:
        run(rows_at_once)
        clock(None, passes)


@torch.no_grad()
def fused(problem: Problem, device: str, clock: Clock) -> None:
    """Importance sampling by hand: the encoder once, every density reduced to what does not cancel."""
    encoder, decoder = (network.to(device) for network in networks(problem))
    data, num_particles = resident(problem, device), problem.num_particles

    def run(rows_at_once: int) -> float:
        found = []
        for x in data.split(100):
            guide, block = encoder(x).chunk(2, -1), max(1, rows_at_once // len(x))
            starts = range(0, num_particles, block)
            table = [log_weights(decoder, x, *guide, min(block, num_particles - start)) for start in starts]
            found.append(torch.cat(table).double().logsumexp(0))
        return torch.cat(found).mean().item() - math.log(num_particles)

    rows_at_once = fastest(run, device)
    while True:
        clock(run(rows_at_once), problem.num_data * num_particles)


def log_weights(decoder: nn.Module, x: Tensor, location: Tensor, log_scale: Tensor, count: int) -> Tensor:
    """log p(x, z) - log q(z|x) of so many particles of the data, (count, n)."""
    noise = torch.randn(count, *location.shape, device=x.device)
    z = torch.addcmul(location, noise, log_scale.exp())
    logits = decoder(z)
    log_likelihood = torch.einsum("nd,knd->kn", x, logits) - functional.softplus(logits).sum(-1)
    return log_likelihood + 0.5 * (noise * noise - z * z).sum(-1) + log_scale.sum(-1)


def fastest(run: Callable[[int], object], device: str) -> int:
    """The number of rows at once with which a run took least; each is run twice, the first to warm up."""
    seconds = {}
    for rows_at_once in ROWS_AT_ONCE if device == "cpu" else ROWS_AT_ONCE_CUDA:
        run(rows_at_once)
        started = time.perf_counter()
        run(rows_at_once)
        seconds[rows_at_once] = time.perf_counter() - started
    return min(seconds, key=seconds.__getitem__)
