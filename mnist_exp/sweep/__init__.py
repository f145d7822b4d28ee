"""Many runs: planning and surviving them, reading them back, and saying what they show."""
