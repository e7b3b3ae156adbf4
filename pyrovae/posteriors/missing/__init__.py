"""What is missing given what was observed: latents and entries drawn from their posterior, imputation, pooling."""
