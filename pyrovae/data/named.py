"""The data sets by name, each with what a fit of it is like; what reads a set is imported when it is loaded."""

from dataclasses import asdict, dataclass
from typing import Any

_READERS = "pyrovae.data.datasets"


@dataclass(frozen=True)
class FitDefaults:
    """What a fit of a data set is like where nothing else is said; each field is the setting of that name."""

    latent: int = 10
    hidden: tuple[int, ...] = (200,)
    epochs: int = 100
    batch_size: int = 128
    lr: float = 1e-3
    kl_warmup: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, fit for JSON."""
        return asdict(self) | {"hidden": list(self.hidden)}


@dataclass(frozen=True)
class NamedSet:
    """An entry of ``DATASETS``: everything that is known of a set.

    Attributes:
        about: what it is, in one line.
        path: of the function that reads it, (name, options) -> source rows of the parts "train", "valid" and "test".
        fit: what a fit of it is like where nothing else is said.
        binarization: the usual one.
        divisor: the usual one of rows that are not binarized.
        probability: the value that means probability 1, by which rows to binarize are divided.
        fixed: whether the rows come binarized, so that nothing is divided or drawn.
    """

    about: str
    path: str
    fit: FitDefaults = FitDefaults()
    binarization: str = "none"
    divisor: float = 1.0
    probability: float = 1.0
    fixed: bool = False


DIGITS_FIT = FitDefaults(latent=16, epochs=300, batch_size=64, lr=2e-3, kl_warmup=30.0)
MNIST_FIT = FitDefaults(latent=50, hidden=(400, 400), lr=2e-3, kl_warmup=10.0)
GREY = (f"{_READERS}:read_grey", MNIST_FIT, "dynamic", 255.0, 255.0)
DATASETS = {
    "digits": NamedSet(
        "scikit-learn's 8x8 digits, counts 0 to 16: 1,197 / 300 / 300; needs no network",
        f"{_READERS}:read_digits",
        DIGITS_FIT,
        probability=16.0,
    ),
    "mnist": NamedSet("28x28 digits, grey: 50,000 / 10,000 / 10,000", *GREY),
    "fashion-mnist": NamedSet("28x28 clothes, grey: 50,000 / 10,000 / 10,000", *GREY),
    "mnist-static": NamedSet(
        "28x28 digits as Larochelle binarized them once, test rows sorted by class; never downloaded",
        f"{_READERS}:read_static",
        MNIST_FIT,
        binarization="static",
        fixed=True,
    ),
}
