"""The training graph, and the devices that compute it."""
