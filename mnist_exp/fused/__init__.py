"""Many models trained as one."""
