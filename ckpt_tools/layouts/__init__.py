"""How other libraries ("worlds") store the nets. Each has one data file, which is compiled to edits in both directions.

`reading.py` reads the data files, `links.py` gives each variable's name and axes in the other library, `matching.py`
recognises the net and the library of a file, and `moving.py` makes operations that convert either way.
"""

from .matching import Foreign, recognise
from .moving import WrittenAs, as_source, from_slim, to_slim
from .reading import WORLDS, layout_of

__all__ = ["WORLDS", "Foreign", "WrittenAs", "as_source", "from_slim", "layout_of", "recognise", "to_slim"]
