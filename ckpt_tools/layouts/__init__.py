"""How the nets are written in other libraries, as data: one file a world, invertible, compiled to the surgery.

`reading.py` reads the files, `links.py` says for each variable what it is called there and how its axes lie,
`matching.py` finds out which net of which world a file holds, `moving.py` makes operations of it, either way.
"""

from .matching import Foreign, recognise
from .moving import WrittenAs, as_source, from_slim, to_slim
from .reading import WORLDS, layout_of

__all__ = ["WORLDS", "Foreign", "WrittenAs", "as_source", "from_slim", "layout_of", "recognise", "to_slim"]
