"""Sweeps: what a command asks for, which jobs are left to run, and the processes that run them."""
