"""A cost against a size: a fixed cost and so much for each unit, and the slope on log-log axes."""

from dataclasses import dataclass

import numpy as np

from side_by_side.alternating import Middle


@dataclass(frozen=True)
class Series:
    """Seconds of ``what`` at each of several sizes, rising."""

    what: str
    size: str
    sizes: list[int]
    seconds: list[Middle]

    @property
    def medians(self) -> np.ndarray:
        """Seconds, a number for each size."""
        return np.array([one.median for one in self.seconds])

    @property
    def line(self) -> tuple[float, float]:
        """(fixed, each): seconds = fixed + each * size, by least squares of relative errors."""
        weights = 1 / self.medians
        design = np.stack([weights, weights * np.array(self.sizes)], 1)
        fixed, each = np.linalg.lstsq(design, np.ones(len(weights)), rcond=None)[0]
        return float(fixed), float(each)

    @property
    def slope(self) -> float:
        """Of log seconds against log size, over the upper half of the sizes."""
        half = slice(len(self.sizes) // 2, None)
        return float(np.polyfit(np.log(self.sizes[half]), np.log(self.medians[half]), 1)[0])
