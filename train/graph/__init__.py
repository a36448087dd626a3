"""The graph that is trained, and where it is computed."""
