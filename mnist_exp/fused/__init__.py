"""Fused groups: many models trained as one, on one device. Numerics only: no config, no files, no processes."""
