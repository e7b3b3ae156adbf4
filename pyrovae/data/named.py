"""The data sets by name, each with what a fit of it is like; what reads a set is imported when it is loaded."""

from dataclasses import asdict, dataclass
from typing import Any

from pyrovae.base.choices import resolve

_SETS = "pyrovae.data.datasets"


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
    """An entry of ``DATASETS``: what it is in one line, the path of the function that loads it, a fit of it."""

    about: str
    path: str
    fit: FitDefaults = FitDefaults()

    def __call__(self, **options: Any) -> Any:
        return resolve(self.path)(**options)


MNIST_FIT = FitDefaults(latent=50, hidden=(400, 400), lr=2e-3, kl_warmup=10.0)
DIGITS_FIT = FitDefaults(latent=16, epochs=300, batch_size=64, lr=2e-3, kl_warmup=30.0)
DATASETS = {
    "digits": NamedSet("scikit-learn's 8x8 digits, counts 0 to 16", f"{_SETS}:digits", DIGITS_FIT),
    "mnist": NamedSet("28x28 digits, grey", f"{_SETS}:mnist", MNIST_FIT),
    "fashion-mnist": NamedSet("28x28 clothes, grey", f"{_SETS}:fashion_mnist", MNIST_FIT),
    "mnist-static": NamedSet("28x28 digits, binarized once by Larochelle", f"{_SETS}:mnist_static", MNIST_FIT),
}
