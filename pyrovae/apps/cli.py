"""The command ``pyrovae``: fit a run, measure it in every way there is, compare, sample, draw.

Only this file's own parsing runs for ``--help``; what a command needs is imported when it is carried out.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from pyrovae import __version__
from pyrovae.base.errors import InputError, UntrustedEvidence, nearest

EXAMPLES = {
    "fit": "pyrovae fit --data digits --latent 8 --out runs/digits\n"
    "  pyrovae fit --data mnist --prior mixture --epochs 50 --out runs/mnist\n"
    "  pyrovae fit my_programs.py --data digits --epochs 20 --out runs/mine\n"
    "  pyrovae fit --resume --out runs/mnist\n"
    "The step is compiled on CUDA, and on the CPU from 6,000 steps on: 5 to 20 seconds once, one or two afterwards.",
    "evaluate": "pyrovae evaluate runs/digits --particles 5000 --json report.json\n"
    "  pyrovae evaluate runs/digits --method ais --num 100 --temperatures 1000\n"
    "  pyrovae evaluate runs/digits --method bdmc\n"
    "  pyrovae evaluate runs/mine --program my_programs.py",
    "gaps": "pyrovae gaps runs/digits --num 100 --figure gaps.png",
    "anatomy": "pyrovae anatomy runs/digits --figure anatomy.png",
    "calibrate": "pyrovae calibrate runs/digits --figure calibration.png",
    "check": "pyrovae check runs/digits --num 100 --figure check.png",
    "compare": "pyrovae compare runs/normal runs/mixture --figure comparison.png",
    "sample": "pyrovae sample runs/digits --num 64 --out samples.png",
    "figures": "pyrovae figures runs/digits --out figures",
    "demo": "pyrovae demo --out runs/demo",
}

SUMMARIES = {
    "fit": "fit a VAE, or your own pair of programs, and keep it as a run",
    "evaluate": "account for log p(x): evidence, ELBO, KL, errors, reliability",
    "gaps": "split log p(x) - ELBO into approximation and amortization gap",
    "anatomy": "take KL(q || prior) apart; tell which latent dimensions are used",
    "calibrate": "test on simulated data whether the guide is the posterior",
    "check": "compare data with what the model makes",
    "compare": "paired differences in log p(x) between runs",
    "sample": "draw data from the model of a run",
    "figures": "draw training curves, reconstructions, samples, latents and the account",
    "demo": "fit a VAE to handwritten digits, print the account, compare, draw",
}


class _Parser(argparse.ArgumentParser):
    """One line for an error, with the nearest command for a misspelt one."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"pyrovae: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The command line, without importing anything heavy."""
    top = _Parser(
        prog="pyrovae",
        description="Variational autoencoders as probabilistic programs, with every nat accounted for.",
        epilog="example:\n  pyrovae fit --data digits --out runs/digits && pyrovae evaluate runs/digits",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"pyrovae {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in SUMMARIES.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  {EXAMPLES[name]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _ARGUMENTS[name](command)
    return top


def _fit_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("program", nargs="?", metavar="FILE.py", help="defines model and guide, or build() returning them")
    p.add_argument("--data", help="digits, mnist, fashion-mnist, mnist-static, or a path [digits]")
    p.add_argument("--data-dir", help="where the files of named data sets lie [PYROVAE_DATA]")
    p.add_argument("--binarization", help="none, dynamic, static or threshold [the set's own]")
    p.add_argument("--divisor", type=float, help="divide the data by this; the protocol keeps the Jacobian")
    p.add_argument(
        "--labels", action="store_true", default=None, help="pass the labels to the programs as second argument"
    )
    p.add_argument("--prior", help="normal or mixture [normal]")
    p.add_argument(
        "--likelihood",
        help="bernoulli, continuous-bernoulli, binomial, categorical, poisson, normal [natural]",
    )
    p.add_argument("--network", help="mlp or conv [mlp]")
    p.add_argument("--latent", type=int, help="dimensions of z [the data's: digits 16, mnist 50]")
    p.add_argument("--hidden", type=int, nargs="*", help="widths of the hidden layers of the encoder")
    p.add_argument("--epochs", type=int, help="passes over the training data [digits 300, else 100]")
    p.add_argument("--batch-size", type=int, help="data in a step [digits 64, else 128]")
    p.add_argument("--lr", type=float, help="learning rate of Adam [the data's]")
    p.add_argument("--schedule", help="of the learning rate: cosine or constant [cosine]")
    p.add_argument(
        "--kl-warmup", type=float, metavar="EPOCHS", help="epochs for the KL's weight to reach 1 [the data's]"
    )
    p.add_argument("--patience", type=int, help="end after so many epochs without a better validation ELBO")
    p.add_argument("--seed", type=int, help="of weights, order and noise [0]")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto: cuda where there is one]")
    p.add_argument("--compile", default="auto", help="the training step: auto, yes or no [auto: where it is repaid]")
    p.add_argument("--precision", help="of the networks' products: float32 or bfloat16 [float32]")
    p.add_argument("--out", required=True, metavar="RUN", help="folder of the run")
    p.add_argument("--resume", action="store_true", help="go on from what RUN holds, as it was begun")


def _run_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("run", metavar="RUN", help="folder of a run")
    p.add_argument("--program", metavar="FILE.py", help="the program file, for a run of your own programs")
    p.add_argument("--data-dir", help="where the files of named data sets lie [PYROVAE_DATA]")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto]")


def _measure_arguments(p: argparse.ArgumentParser, num: str = "only the first so many data") -> None:
    _run_arguments(p)
    p.add_argument("--split", default="test", help="train, valid or test [test]")
    p.add_argument("--num", type=int, help=num)
    p.add_argument("--seed", type=int, default=0, help="of the draws [0]")
    p.add_argument("--batch-size", type=int, metavar="N", help="data at once; Ctrl-C keeps whole batches [chosen]")
    p.add_argument("--json", metavar="FILE", help="write the account there too; - is standard output")
    p.add_argument("--figure", metavar="FILE", help="draw it there: .png, .svg or .pdf")


def _evaluate_arguments(p: argparse.ArgumentParser) -> None:
    _measure_arguments(p, "only the first so many data; of bdmc, how many to simulate [100]")
    p.add_argument(
        "--method",
        default="is",
        help="is: importance sampling from the guide; ais: annealed; bdmc: bounds on simulated data [is]",
    )
    _particles(p)
    p.add_argument("--defensive", type=float, default=0.0, help="is: share of draws from the prior, 0 to 1 [0]")
    p.add_argument("--temperatures", type=int, default=300, metavar="T", help="ais, bdmc: steps of the path [300]")
    p.add_argument("--chains", type=int, default=16, help="ais, bdmc: chains for each datum [16]")
    p.add_argument("--start", default="guide", help="ais, bdmc: where the path begins, guide or prior [guide]")
    p.add_argument("--no-vectorize", action="store_true", help="is: one particle of one datum at a time")


def _particles(p: argparse.ArgumentParser) -> None:
    p.add_argument("--particles", type=int, default=1000, metavar="K", help="draws of z for each datum [1000]")


def _gaps_arguments(p: argparse.ArgumentParser) -> None:
    _measure_arguments(p)
    _particles(p)
    p.add_argument("--steps", type=int, default=1000, help="of the optimisation of each family [1000]")


def _anatomy_arguments(p: argparse.ArgumentParser) -> None:
    _measure_arguments(p)
    p.add_argument("--queries", type=int, metavar="M", help="data whose draws are scored against all others [all]")


def _calibrate_arguments(p: argparse.ArgumentParser) -> None:
    _measure_arguments(p, "only the first so many rows of the template")
    p.add_argument("--simulations", type=int, default=500, metavar="S", help="data to simulate [500]")
    p.add_argument("--draws", type=int, default=99, metavar="L", help="draws that the truth is ranked among [99]")
    _particles(p)


def _check_arguments(p: argparse.ArgumentParser) -> None:
    _measure_arguments(p)
    p.add_argument("--draws", type=int, default=200, metavar="S", help="replications of each datum [200]")


def _compare_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("runs", nargs="+", metavar="RUN", help="folders of evaluated runs, at least two")
    p.add_argument("--figure", metavar="FILE", help="draw it there: .png, .svg or .pdf")


def _sample_arguments(p: argparse.ArgumentParser) -> None:
    _run_arguments(p)
    p.add_argument("--num", type=int, default=64, help="how many data [64]")
    p.add_argument("--seed", type=int, default=0, help="of the draws [0]")
    p.add_argument("--out", required=True, metavar="FILE", help=".npy for the values; .png, .svg or .pdf for a picture")


def _figures_arguments(p: argparse.ArgumentParser) -> None:
    _run_arguments(p)
    p.add_argument("--out", metavar="DIR", help="folder for the figures [RUN-figures]")


def _demo_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--out", default="runs/demo", metavar="DIR", help="folder of the demo's runs and figures [runs/demo]"
    )


_ARGUMENTS = {
    "fit": _fit_arguments,
    "evaluate": _evaluate_arguments,
    "gaps": _gaps_arguments,
    "anatomy": _anatomy_arguments,
    "calibrate": _calibrate_arguments,
    "check": _check_arguments,
    "compare": _compare_arguments,
    "sample": _sample_arguments,
    "figures": _figures_arguments,
    "demo": _demo_arguments,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Carries out one command: 0 done, 2 bad input, 1 any other failure, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-") and words[0] not in SUMMARIES:
        return _fail(f"no command '{words[0]}':{nearest(words[0], SUMMARIES)} there are {', '.join(SUMMARIES)}", 2)
    arguments = parser().parse_args(words)
    try:
        return _carry_out(arguments)
    except InputError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("PYROVAE_TRACEBACK"):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        return _fail(f"{text} (set PYROVAE_TRACEBACK=1 to see where)", 1)


def _carry_out(arguments: argparse.Namespace) -> int:
    from pyrovae.apps import draw, measure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrustedEvidence)  # the printed account says it already
        warnings.showwarning = lambda message, *where: print(f"pyrovae: {message}", file=sys.stderr)
        return {**measure.COMMANDS, **draw.COMMANDS}[arguments.command](arguments)


def _fail(message: str, status: int) -> int:
    told = "interrupted, with nothing finished to keep" if status == 130 else f"error: {message}"
    print(f"pyrovae: {told}", file=sys.stderr)
    return status
