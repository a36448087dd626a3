"""Windows and macOS, simulated on Linux as far as possible by removing POSIX-only features (without_posix/)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint

HERE = Path(__file__).parent
WITHOUT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE / "without_posix"), str(HERE)])}
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="what is open in a process is asked of /proc")
TESTS = ("output", "data_file", "v1", "v2", "cli_edit", "cli_convert", "cli_plan", "surgery_files", "verification")


def python(*words: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=WITHOUT, capture_output=True, text=True)


@needs_linux
def test_reading_writing_editing_and_planning(tmp_path: Path) -> None:
    """More of them are in core.txt, which is what the workflow runs on Windows and macOS."""
    files = [HERE / f"test_{name}.py" for name in TESTS]
    assert {f"tests/{path.name}" for path in files} <= set((HERE / "core.txt").read_text().split())
    options = ["-m", "not posix and not slow", "-k", "not tensorflow", "-p", "no:cacheprovider"]
    done = python(
        "-m", "pytest", *options, "--rootdir", HERE.parent, "-c", HERE.parent / "setup.cfg", *files, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-3000:]


@needs_linux
def test_the_names_are_gone_and_open_files_stay(tmp_path: Path) -> None:
    """The tests above can fail: they run where this does."""
    code = (
        "import os, shutil, signal, sys\n"
        "for name in ('fcntl', 'resource'):\n"
        "    try: __import__(name); print(name)\n"
        "    except ImportError: pass\n"
        "print([name for name in ('link', 'pread', 'statvfs', 'posix_fallocate') if hasattr(os, name)])\n"
        "print(hasattr(signal, 'pthread_sigmask'), shutil.disk_usage('.').free > 0)\n"
        "open('a', 'w').close(); held = open('a')\n"
        "for change in (lambda: os.unlink('a'), lambda: os.replace('a', 'b'), lambda: open('x:y', 'w')):\n"
        "    try: change(); print('done')\n"
        "    except OSError as error: print(error.strerror)\n"
        "held.close(); os.unlink('a')\n"
    )
    done = python("-c", code, cwd=tmp_path)
    said = "[]\nFalse True\nopen in this process\nopen in this process\na name with a colon\n"
    assert (done.stdout, done.stderr) == (said, "")
    assert not list(tmp_path.iterdir())


@needs_linux
def test_a_run_on_photos_with_its_cache(tmp_path: Path) -> None:
    from tiny_net import write_job

    job = write_job(tmp_path)
    options = ["--net", "tiny", "--checkpoint", job["checkpoint"], "--data", job["data"], "--exclude", "Logits"]
    options += ["--trainable", "Logits", "--train-dir", "run", "--steps", "6", "--cache-dir", "cache"]
    for steps in ("6", "8"):  # the second goes on
        options[options.index("--steps") + 1] = steps
        done = python(HERE / "tiny_net.py", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    assert open_checkpoint(tmp_path / "run").tensors["global_step"].load() == 8
    assert list((tmp_path / "cache").rglob("rows.index"))
    assert not list(tmp_path.rglob("*.lock"))


@needs_linux
def test_a_target_that_somebody_has_open_stays_and_is_named(tmp_path: Path) -> None:
    save_checkpoint(from_arrays({"a": np.ones(3)}), tmp_path / "m.npz", format="npz")
    before = (tmp_path / "m.npz").read_bytes()
    code = (
        "import numpy; from ckpt_tools import CheckpointError, from_arrays, save_checkpoint\n"
        "held = open('m.npz', 'rb')\n"
        "try: save_checkpoint(from_arrays({'b': numpy.ones(9)}), 'm.npz', format='npz', force=True)\n"
        "except CheckpointError as error: print(error)"
    )
    done = python("-c", code, cwd=tmp_path)
    said = (
        "cannot be replaced or removed: it is protected, or open in this or in another program. Write to another name."
    )
    assert (done.stdout, done.stderr) == (f"m.npz: {said}\n", "")
    assert (tmp_path / "m.npz").read_bytes() == before


@needs_linux
def test_two_writers_take_turns_and_a_killed_one_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "rows").touch()
    code = (
        "import subprocess, sys; from ckpt_tools.formats.locks import acquire, turn\n"
        "other = [sys.executable, '-c', 'from ckpt_tools.formats.locks import acquire; print(acquire(\"rows\"))']\n"
        "held = acquire('rows'); print(subprocess.run(other, capture_output=True, text=True).stdout.strip())\n"
        "held.release(); print(acquire('rows') is not None)\n"
        "import os; os._exit(9)"
    )
    done = python("-u", "-c", code, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("None\nTrue\n", 9)
    done = python("-c", "from ckpt_tools.formats.locks import turn\nwith turn('rows'): print('mine')", cwd=tmp_path)
    assert done.stdout == "mine\n"
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


@needs_linux
def test_ctrl_c_waits_until_files_are_moved(tmp_path: Path) -> None:
    code = (
        "import os, signal; from ckpt_tools.formats.output import _undisturbed\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # in the background it is ignored
        "try:\n"
        "    with _undisturbed():\n"
        "        os.kill(os.getpid(), signal.SIGINT); print('moved')\n"
        "except KeyboardInterrupt: print('stopped')"
    )
    assert python("-c", code, cwd=tmp_path).stdout == "moved\nstopped\n"
