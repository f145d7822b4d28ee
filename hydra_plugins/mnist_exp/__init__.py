"""Hydra finds the sweeper here; what it does is in mnist_exp.sweep."""
