"""Fine-tuning, evaluation and prediction with `tf.compat.v1` graphs and sessions."""
