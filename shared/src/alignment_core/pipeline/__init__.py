"""A run, its steps, the processes that make them, and the environment they ran in."""
