"""A web server for tests and benchmarks that serves a folder by ranges and counts the bytes sent."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeServer(ThreadingHTTPServer):
    """`sent` is the number of bytes of all answers' bodies; `asked` has method, name and range of each request.

    `ranges`: whether it knows them. `forbidden`: names that it gives to nobody. `breaks`: how many of the answers to
    come break off in their middle.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.forget()
        self.ranges = True
        self.forbidden: set[str] = set()
        self.breaks = 0

    def forget(self) -> None:
        """Counts from nothing again."""
        self.sent = 0
        self.asked: list[tuple[str, str, str]] = []


class _Handler(SimpleHTTPRequestHandler):
    server: RangeServer
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: object) -> None:
        super().__init__(*args, directory=str(args[2].folder))

    def log_message(self, *_: object) -> None:
        pass

    def send_head(self):  # noqa: ANN201 - as the library has it
        name = self.path.partition("?")[0].lstrip("/")
        given = self.headers.get("Range", "")
        with self.server.lock:
            self.server.asked.append((self.command, name, given))
        if name in self.server.forbidden:
            self.send_error(403)
            return None
        self.left = None
        file = Path(self.translate_path(self.path))
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", given)
        if not (self.server.ranges and span and file.is_file()):
            return super().send_head()
        size = file.stat().st_size
        start, end = int(span[1]), min(int(span[2]) + 1, size)
        if start >= size:
            self.send_error(416)
            return None
        self.send_response(206)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Last-Modified", self.date_time_string(file.stat().st_mtime))
        self.end_headers()
        opened = file.open("rb")
        opened.seek(start)
        self.left = end - start
        return opened

    def copyfile(self, source, outputfile) -> None:  # noqa: ANN001
        with self.server.lock:
            breaks = self.server.breaks > 0
            self.server.breaks -= breaks
        if breaks:
            self.left = (self.left or 2) // 2
            self.close_connection = True
        while data := source.read(1 << 20 if self.left is None else min(self.left, 1 << 20)):
            self.left = self.left and self.left - len(data)
            with self.server.lock:
                self.server.sent += len(data)
            outputfile.write(data)
            if self.left == 0:
                return


@contextmanager
def serving(folder: Path) -> Iterator[RangeServer]:
    """A server of this folder, on a port of its own, for as long as the block runs."""
    server = RangeServer(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
