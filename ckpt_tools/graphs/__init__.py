"""Nets in graph files: found by structure, cut out, brought to the form in which they infer. No TensorFlow.

`analysis.py` puts it together. `choosing.py`, `finding.py` and `layers.py` find features and classes, `sources.py`
images and switches; `conditions.py`, `inlining.py`, `dropout.py`, `normalisation.py` and `batch_size.py` make one
change each on a `Cut`; `safety.py` says what is refused. `nets/imported.py` puts it into a TensorFlow graph.
"""

from .analysis import Analysis, analyse
from .choosing import Choices

__all__ = ["Analysis", "Choices", "analyse"]
