"""What is looked at: the report, pictures."""
