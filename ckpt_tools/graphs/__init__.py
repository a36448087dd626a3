"""Finds the net in a graph file by its structure, cuts it out and converts it to inference form, without TensorFlow.

`analysis.py` runs all the steps. `choosing.py`, `finding.py` and `layers.py` find features and classes, `sources.py`
images and switches; `conditions.py`, `inlining.py`, `dropout.py`, `normalisation.py` and `batch_size.py` make one
change each to a `Cut`; `safety.py` decides what is refused. `nets/imported.py` builds the result in TensorFlow.
"""

from .analysis import Analysis, analyse
from .choosing import Choices

__all__ = ["Analysis", "Choices", "analyse"]
