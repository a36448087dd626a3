"""Writes ckpt_tools/graphs/operations.txt: python -m ckpt_tools.nets.list_operations

Every operation of the installed TensorFlow: how many inputs it has at least, what it touches besides its tensors, and
the names of its outputs where it has several. An operation that is not a pure function of its inputs is allowed in an
imported net only if it is listed here by hand as one that keeps its state to itself; any other, and whatever names a
file, a socket, a device or Python, is refused by name.
"""

from __future__ import annotations

import re
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework.op_def_pb2 import OpDef, OpList
from tensorflow.python.client import pywrap_tf_session

import ckpt_tools

# Stateful by their declaration, but all that they touch is made and used up in one run of the graph.
_OWN_STATE = re.compile(
    r"^(TensorArray|Stack|If$|While$|Case$|StatefulPartitionedCall$|Empty$|CheckNumerics|Assert$|Print|GuaranteeConst$"
    r"|VariableV2$|Variable$|VarHandleOp$|ReadVariableOp$|VariableShape$)"
)
_TOUCHED = {
    "python": r"PyFunc",
    "files": r"File|Reader|Save|Restore|Summary|Checkpoint|Sharded|Record|Sql|Vocab|LoadAndRemap|Dump|Snapshot.|Event"
    r"|ImmutableConst|(En|De)codeProto|Calibration|CustomAggregator",
    "network": r"Send|Recv|Rpc|Remote|Collective|Nccl|Distributed|Worker",
    "data": r"Dataset|Iterator|Queue|Stage|Barrier|Mutex|Lookup|Table|Session|Accumulator|MemoryCache"
    r"|SeedGenerator|ThreadPool|Stats|Boosted|Sleep|Timestamp|Sdca|^Batch$|^Unbatch|^Batch(Function|Dataset)",
    "devices": r"Tpu|TPU|Xla|Device|Infeed|Outfeed|Debug|Host|_Copy|^Copy|Minibatch|SparseCore|_Arg|_Retval|DTensor"
    r"|Mesh|Relayout|Mlir|Sharding",
    "the process": r"^Abort$|^Fact$|^GetDeadline$|^CheckPinned$",
    "random": r"^(Random|Multinomial|TruncatedNormal|Parameterized|SampleDistorted|NonDeterministicInts|Skipgram"
    r"|Stateful(Uniform|Standard|Truncated|Random)|Stateless(Random|Truncated|Multinomial|Parameterized|Shuffle))"
    r"|CandidateSampler$|^StatelessSampleDistorted",
}


def touches(operation: OpDef) -> str:
    """Nothing for a function of its inputs; "state" where it keeps its state to itself; else what it touches."""
    name = operation.name
    if _OWN_STATE.search(name):
        return "state" if operation.is_stateful else ""
    for what, pattern in _TOUCHED.items():
        if re.search(pattern, name):
            return what
    if any(each.is_ref for each in operation.input_arg) and not name.startswith("Ref"):
        return "variables"
    return "the session" if operation.is_stateful else ""


def _line(operation: OpDef) -> str:
    """Name, least number of inputs, what it touches; behind a colon the names of several outputs."""
    outputs = operation.output_arg
    single = len(outputs) > 1 and not any(each.number_attr or each.type_list_attr for each in outputs)
    names = f": {' '.join(each.name for each in outputs)}" if single else ""
    inputs = sum(not (each.number_attr or each.type_list_attr) for each in operation.input_arg)
    return f"{operation.name} {inputs} {touches(operation)}".strip() + names


def main() -> None:
    """Writes the list."""
    listed = OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())).op
    lines = [_line(each) for each in sorted(listed, key=lambda each: each.name)]
    head = f"# operations of TensorFlow {tf.__version__}; written by python -m ckpt_tools.nets.list_operations"
    path = Path(ckpt_tools.__file__).parent / "graphs" / "operations.txt"
    path.write_text("\n".join([head, *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
