"""Google Cloud Storage, on a server with the part of its JSON API that reading needs."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.errors import NotACheckpointError, RemoteError

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # it would ask by gRPC, which the server here does not speak
pytest.importorskip("gcsfs")

ARRAYS = {"net/large": np.arange(1 << 20, dtype="float32"), "net/words": np.array(["one", "zwei"])}
API, DOWNLOAD = "/storage/v1/b/models/o", "/download/storage/v1/b/models/o/"


class _Handler(BaseHTTPRequestHandler):
    """A bucket `models` of one folder. Bytes that were sent of objects are added up in `server.sent`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:  # noqa: N802 - as the library has it
        url, folder = urlsplit(self.path), self.server.folder
        if url.path.startswith(DOWNLOAD) and (file := folder / unquote(url.path.removeprefix(DOWNLOAD))).is_file():
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            data = file.read_bytes()[first : last + 1]
            self.server.sent += len(data)
            self._answer(206, data)
        elif url.path.rstrip("/") == API:
            prefix = parse_qs(url.query).get("prefix", [""])[0]
            found = [path.name for path in sorted(folder.iterdir()) if path.name.startswith(prefix)]
            self._answer(200, json.dumps({"items": [self._item(name) for name in found]}).encode())
        elif url.path.startswith("/storage/v1/b/secret/"):
            self._answer(403, b'{"error": {"code": 403, "message": "Anonymous caller does not have access"}}')
        elif url.path.startswith(f"{API}/") and (folder / unquote(url.path.removeprefix(f"{API}/"))).is_file():
            self._answer(200, json.dumps(self._item(unquote(url.path.removeprefix(f"{API}/")))).encode())
        else:
            self._answer(404, b'{"error": {"code": 404, "message": "No such object"}}')

    def _item(self, name: str) -> dict[str, str]:
        told = (self.server.folder / name).stat()
        facts = {"size": str(told.st_size), "generation": str(told.st_mtime_ns), "etag": f"{told.st_mtime_ns:x}"}
        return {"kind": "storage#object", "bucket": "models", "name": name, **facts}

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(ConnectionError):  # a client that is closed meanwhile
            self.wfile.write(data)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    from fsspec.config import conf

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.folder, server.sent, server.daemon_threads = tmp_path, 0, True
    save_checkpoint(from_arrays(ARRAYS), tmp_path / "m.ckpt")
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setitem(conf, "gs", {"endpoint_url": endpoint, "token": "anon"})
    yield server
    server.shutdown()
    server.server_close()


def test_a_bucket_is_what_the_folder_is(bucket: ThreadingHTTPServer) -> None:
    here, there = open_checkpoint(bucket.folder / "m.ckpt"), open_checkpoint("gs://models/m.ckpt")
    assert there.tensors.specs() == here.tensors.specs()
    assert bucket.sent < 1000  # the index
    assert all(np.array_equal(there.tensors[name].load(), here.tensors[name].load()) for name in ARRAYS)


def test_an_object_that_is_written_anew_while_it_is_read(bucket: ThreadingHTTPServer) -> None:
    tensors = open_checkpoint("gs://models/m.ckpt").tensors
    assert tensors["net/words"].load().tolist() == [b"one", b"zwei"]
    save_checkpoint(from_arrays({**ARRAYS, "net/large": ARRAYS["net/large"] + 1}), bucket.folder / "m.ckpt", force=True)
    with pytest.raises(RemoteError, match=r"net/large: was changed while it was read\. Run the command again"):
        tensors["net/large"].load()


def test_what_is_not_there_and_what_is_forbidden(bucket: ThreadingHTTPServer) -> None:
    with pytest.raises(NotACheckpointError, match=r"gs://models/n\.ckpt: there is no such file or checkpoint"):
        open_checkpoint("gs://models/n.ckpt")
    with pytest.raises(RemoteError, match=r"gs://secret/m\.ckpt: no permission to read it .*Log in: gcloud auth"):
        open_checkpoint("gs://secret/m.ckpt")
