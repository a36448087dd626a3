"""What a command can be asked to do."""
