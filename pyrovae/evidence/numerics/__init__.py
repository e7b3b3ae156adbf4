"""How the numbers are come by: summed up block by block, replayed as kernels, and how many of their digits hold."""
