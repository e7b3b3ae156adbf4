"""What a VAE is to be compared with: programs without an encoder."""

from pyrovae.programs.baselines.mixture_em import fit_mixture

__all__ = ["fit_mixture"]
