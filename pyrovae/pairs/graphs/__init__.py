"""Functions of tensors as graphs, which replay without the Python that made them."""
