"""Kills the process right before an operation that changes files, to test every state that a kill can leave."""

import os
import signal
import sys
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}


def kill_before(number, folder):
    """From here on the `number`-th operation that changes something in the folder is not done, nor anything after it.

    Python tells of each before it happens (sys.audit): of renames, removals, links, folders made, files opened for
    writing. What is written to a file that is open is not counted.
    """
    root, count = Path(folder).absolute(), 0

    def hear(event, args):
        nonlocal count
        opened = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if not (opened or event in CHANGES) or not any(map(inside, args[:2])):
            return
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def inside(path):
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        whole = Path(os.fsdecode(path)).absolute()
        return root == whole or root in whole.parents

    sys.addaudithook(hear)
