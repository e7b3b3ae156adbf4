"""What is wrong with a model or its guide: gaps, surgery, calibration, checks."""
