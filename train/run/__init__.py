"""A training run, from its first step to its freeze audit."""
