"""Hydra's plugins of this program: thin adapters of mnist_exp.sweep, and the search path."""
