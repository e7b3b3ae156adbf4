"""Rows and how they came to be: data sets by name or from files, as splits with their protocol."""

from pyrovae.data.datasets import DATASETS, load
from pyrovae.data.protocol import Protocol
from pyrovae.data.split import Dataset, Split, as_split

__all__ = ["DATASETS", "Dataset", "Protocol", "Split", "as_split", "load"]
