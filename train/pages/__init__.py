"""The HTML report and pictures."""
