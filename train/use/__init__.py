"""Using a trained net: evaluate, predict, features, export."""
