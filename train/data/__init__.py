"""Reads labelled examples, and makes batches of their pixels."""
