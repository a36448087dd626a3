"""Labelled examples, and how their pixels become a batch."""
