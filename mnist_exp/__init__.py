"""Experiments in image classification at MNIST's scale, composed by Hydra: see train.py."""
