"""Graphs in text form (`.pbtxt`), as `tf.train.write_graph` and Estimators leave them: TensorFlow's own messages read
them.
"""

from __future__ import annotations

import re

from ckpt_tools.errors import DamagedError, UnsupportedError
from ckpt_tools.formats.graph_file import GraphFile, parse_graph
from ckpt_tools.formats.storage import mapped

MOST = 256 << 20  # bytes; a large training graph has 20 million, and text that is parsed takes many times its own
_OF_A_METAGRAPH = re.compile(rb"\s*(graph_def|meta_info_def)\s*\{")


def read_text_graph(path: str) -> GraphFile:
    """The graph of a GraphDef or MetaGraphDef in text form.

    Raises UnsupportedError where TensorFlow is not installed or the file is too large, DamagedError for text that is no
    graph.
    """
    data = mapped(path).view()
    if len(data) > MOST:
        raise UnsupportedError(f"has {len(data):,} bytes, more than the limit for a graph in text form", path=path)
    try:
        from google.protobuf import text_format
        from tensorflow.core.framework.graph_pb2 import GraphDef
        from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
    except ModuleNotFoundError as error:
        fact = f"is a graph in text form, and {error.name}, which reads it, is not installed"
        raise UnsupportedError(fact, path=path, advice='pip install "ckpt-tools[train]"') from error
    is_meta = _OF_A_METAGRAPH.match(data[:4096]) is not None
    message = MetaGraphDef() if is_meta else GraphDef()
    try:
        text_format.Parse(bytes(data), message)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        where = str(error).strip().splitlines()[0]
        raise DamagedError(f"is not a valid graph in text form ({where})", path=path) from None
    kind = "metagraph" if is_meta else "graphdef"
    return parse_graph(message.SerializeToString(deterministic=True), path, kind)
