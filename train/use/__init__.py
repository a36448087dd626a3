"""A trained net in use: evaluate, predict, features, export."""
