"""Simulates Python on Windows as far as possible on Linux; first on PYTHONPATH, it is imported before everything else.

POSIX-only modules and functions are removed. Files that this process has open or mapped can be neither replaced nor
removed, and names with a colon cannot be created. `msvcrt` locks a byte. File operations in C++ code, such as
TensorFlow's own, are not affected.
"""

import os
import shutil
import signal
import subprocess  # noqa: F401  # takes the presence of msvcrt for Windows, so it is imported before
import sys
import tempfile
import types

MODULES = ("fcntl", "resource", "pwd", "grp", "termios")
TEMPORARY = tempfile.gettempdir()  # Python removes its own files there while they are open
FUNCTIONS = {
    os: (
        *("copy_file_range", "fork", "link", "posix_fadvise", "posix_fallocate", "pread", "pwrite", "sendfile"),
        *("statvfs", "O_CLOEXEC", "O_DIRECTORY"),
    ),
    signal: ("pthread_sigmask", "SIGKILL", "SIGHUP"),
}


def is_open(path: str) -> bool:
    """Whether this process has the file open or mapped, as Linux tells it."""
    path = os.path.realpath(path)
    if os.path.dirname(path) == TEMPORARY or not os.path.isfile(path):
        return False
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}") == path:
                return True
        except OSError:  # that of listdir
            continue
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        return any(line.rstrip("\n").endswith(f" {path}") for line in maps)


def guarded(call):
    def wrapped(*paths, **options):
        for path in paths:
            if isinstance(path, str | os.PathLike) and is_open(os.fspath(path)):
                raise PermissionError(13, "open in this process", os.fspath(path))
        return call(*paths, **options)

    return wrapped


def no_colons(event: str, args: tuple) -> None:
    made = event == "os.mkdir" or (event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT)
    if made and isinstance(args[0], str) and ":" in args[0]:
        raise OSError(22, "a name with a colon", args[0])


def windows_locks() -> types.ModuleType:
    from fcntl import LOCK_EX, LOCK_NB, flock

    made = types.ModuleType("msvcrt")
    made.LK_NBLCK = 2
    made.locking = lambda descriptor, mode, count: flock(descriptor, LOCK_EX | LOCK_NB)
    return made


def disk_usage(path, statvfs=os.statvfs):
    found = statvfs(path)
    return shutil._ntuple_diskusage(found.f_blocks * found.f_frsize, 0, found.f_bavail * found.f_frsize)


sys.modules["msvcrt"] = windows_locks()
for name in MODULES:
    sys.modules[name] = None
for module, names in FUNCTIONS.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
shutil.disk_usage, shutil._USE_CP_SENDFILE = disk_usage, False
for name in ("replace", "rename", "unlink", "remove"):
    setattr(os, name, guarded(getattr(os, name)))
sys.addaudithook(no_colons)
