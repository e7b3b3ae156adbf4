"""Semi-supervised learning (M2): a few labels of many, by ours and by Pyro's TraceEnum_ELBO, in the same minutes.

    python tests/benchmarks/semi_supervised.py --data mnist --labels 100 1000 --minutes 4 --out tests/benchmarks/results

One architecture, one data set, one order of magnitude of labels, all with Adam at 1e-3 and batches of 100. Ours:
``SummedELBO`` and the classifier's loss on 100 labelled data at each step, compiled. Pyro's: SVI with ``TraceEnum_ELBO``
and ``config_enumerate``, the guide enumerated, labelled and unlabelled batches apart and the classifier's loss, times 46,
as a site of its own, the way of Pyro's example ss_vae_M2: "labels once an epoch" sees each label once in an epoch, as
the example does; "labels each step" takes a step on labelled data after each on unlabelled ones. Minutes are those of
the process (CPU time on one thread), compilation included; what is measured afterwards is not.
"""

import argparse
import sys
import time
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import nn

import pyrovae as pv

BATCH = 100
RATE = 1e-3
MULTIPLIER = 46.0  # of the classifier's loss in Pyro's example


def build(dataset, latent, hidden, seed):
    """The pair, its weights drawn from a seed."""
    shape, num_classes, size = dataset.shape, dataset.num_classes, dataset.shape.numel()
    label, mlp = pv.networks.OneHot(num_classes), pv.networks.mlp
    likelihood = pv.families.bernoulli() if dataset.maximum == 1 else pv.families.binomial(dataset.maximum)
    reads_z, reads_x = (
        mlp(latent + num_classes, hidden, seed=3 * seed),
        mlp(size + num_classes, hidden, seed=3 * seed + 1),
    )
    return pv.SemiSupervisedVAE(
        prior=pv.priors.StandardNormal(latent),
        decoder=pv.Conditional(likelihood, shape, pv.networks.beside([latent, label], reads_z)),
        encoder=pv.Conditional(pv.families.normal(), latent, pv.networks.beside([shape, label], reads_x)),
        classifier=pv.Conditional(pv.families.categorical(num_classes), (), mlp(shape, hidden, seed=3 * seed + 2)),
        num_classes=num_classes,
    )


def ours(vae, train, seconds, weight, seed, fraction=0.0):
    """A fit of as many epochs as the seconds hold, by the time of the second of two: (epochs,).

    Labelled rows are repeated until they are ``fraction`` of all.
    """
    start = time.process_time()
    known = (train.tensors[1] >= 0).nonzero()[:, 0]
    times = max(1, int(fraction * len(train) / len(known)))
    train = train[torch.cat([torch.arange(len(train)), known.repeat(times - 1)])]
    objective = pv.objectives.Classifying(pv.objectives.SummedELBO(), train, weight=weight, batch_size=BATCH)
    state = {name: value.clone() for name, value in vae.state_dict().items()}
    settings = {"objective": objective, "batch_size": BATCH, "seed": seed, "compile": True, "progress": False}
    marks = []
    pv.fit(vae.model, vae.guide, train, epochs=2, callback=lambda *_: marks.append(time.process_time()), **settings)
    epoch, compiled = marks[1] - marks[0], marks[0] - start
    vae.load_state_dict(state)
    epochs = max(1, int((seconds - compiled) / epoch))
    pv.fit(vae.model, vae.guide, train, epochs=epochs, **settings)
    return epochs


class InPyro(nn.Module):
    """The same networks in programs of Pyro's way: a label is observed or None, the classifier's loss a site."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def model(self, x, y=None):
        pyro.module("ss_vae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.vae.prior())
            y = pyro.sample("y", dist.Categorical(logits=self.vae.log_class_probs), obs=y)
            pyro.sample("x", self.vae.decoder(z, y), obs=x)

    def guide(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", self.vae.classifier(x))
            pyro.sample("z", self.vae.encoder(x, y))

    def classify(self, x, y):
        pyro.module("ss_vae", self)
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=MULTIPLIER):
            pyro.sample("y_aux", self.vae.classifier(x), obs=y)

    def nothing(self, x, y):
        pass


def in_pyro(vae, train, seconds, each_step, seed):
    """Steps of Pyro's SVI until the seconds are over: the epochs that were begun."""
    start, generator = time.process_time(), torch.Generator().manual_seed(seed)
    pyro.set_rng_seed(seed)
    programs, adam = InPyro(vae), pyro.optim.Adam({"lr": RATE})
    elbo = SVI(programs.model, config_enumerate(programs.guide), adam, TraceEnum_ELBO(max_plate_nesting=1))
    classifier = SVI(programs.classify, programs.nothing, adam, Trace_ELBO())
    known = (train.tensors[1] >= 0).nonzero()[:, 0]
    unknown = (train.tensors[1] < 0).nonzero()[:, 0]
    epochs, step, rows = 0, 0, known[:0]
    with pyro.get_param_store().scope(), pyro.validation_enabled(False):
        while True:
            labelled = known[torch.randperm(len(known), generator=generator)].split(BATCH)
            batches = unknown[torch.randperm(len(unknown), generator=generator)].split(BATCH)
            interval = 1 if each_step else len(batches) // len(labelled)
            epochs += 1
            for step, rows in enumerate(batches):
                if time.process_time() - start > seconds:
                    return epochs - 1 + step / len(batches)
                elbo.step(train.batch(rows)[0])
                if step % interval == 0 and (each_step or step // interval < len(labelled)):
                    x, y = train.batch(labelled[(step // interval) % len(labelled)])
                    elbo.step(x, y)
                    classifier.step(x, y)


CONTENDERS = {
    "pyrovae, alpha 0.1": lambda *given: ours(*given[:3], 0.1, given[3]),
    "pyrovae, alpha 50": lambda *given: ours(*given[:3], 50.0, given[3]),
    "pyrovae, alpha 500": lambda *given: ours(*given[:3], 500.0, given[3]),
    "pyrovae, alpha 500, half labelled": lambda *given: ours(*given[:3], 500.0, given[3], 0.5),
    "Pyro, labels once an epoch": lambda *given: in_pyro(*given[:3], False, given[3]),
    "Pyro, labels each step": lambda *given: in_pyro(*given[:3], True, given[3]),
}
HEAD = "| labels | contender | epochs | wrong, by q(y\\|x) (SE) | wrong, by p(y\\|x) | calibration error | log p(x) (MC SE) |"


def row(dataset, num_labels, name, given):
    vae = build(dataset, given.latent, given.hidden, given.seed)
    train = dataset.train.with_labels(num_labels, seed=given.seed)
    epochs = CONTENDERS[name](vae, train, 60 * given.minutes, given.seed)
    test = dataset.test[: given.num].with_labels()
    found = pv.classification(vae.model, vae.guide, test, num_particles=given.particles, progress=False)
    told = found.numbers()
    error, evidence = told["guide"]["error"], told["log_evidence"]
    cells = [f"{num_labels:,}", name, f"{epochs:.1f}", f"{error['mean']:.2%} ({error['data_se']:.2%})"]
    cells += [f"{told['model']['error']['mean']:.2%}", f"{told['guide']['calibration_error']:.2%}"]
    return "| " + " | ".join([*cells, f"{evidence['mean']:.2f} ({evidence['mc_se']:.3f})"]) + " |"


def report(given):
    dataset = pv.data.load(given.data)
    yield f"# Semi-supervised: {given.data}"
    yield ""
    yield f"M2, z of {given.latent}, one hidden layer of {given.hidden} in each network, {given.minutes:g} minutes each on"
    yield f"{torch.get_num_threads()} thread, {given.num:,} test data, K = {given.particles}, seed {given.seed}; log p(x) in"
    yield "nats per datum by the encoder's own draws, every class summed. `python tests/benchmarks/semi_supervised.py`"
    yield ""
    yield HEAD
    yield "| ---: | --- | ---: | ---: | ---: | ---: | ---: |"
    for num_labels in given.labels:
        for name in given.contenders:
            yield row(dataset, num_labels, name, given)
    yield ""
    yield f"Python {sys.version.split()[0]}, torch {torch.__version__}, pyro {pyro.__version__}."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--labels", nargs="+", type=int, default=[100, 1000])
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, for each contender")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--latent", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--num", type=int, default=2000, help="test data")
    parser.add_argument("--particles", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for semi_supervised.md")
    given = parser.parse_args()
    lines = []
    for line in report(given):
        print(line, flush=True)
        lines.append(line)
    if given.out:
        Path(given.out, "semi_supervised.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
