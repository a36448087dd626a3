"""What is known of the nets of slim's family, and how they are built."""
