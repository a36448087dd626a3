"""What is known of the nets that tf_slim ships, and how they are built."""
