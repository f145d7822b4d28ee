"""What several test files share: made-up sweeps, run folders that are compared, and fused trainings."""
