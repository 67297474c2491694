"""A local web server that simulates unreliable mirrors."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class File:
    """A file and the faults with which it is served."""

    content: bytes
    etag: str | None = '"1"'
    ranges: bool = True  # False: the Range header is ignored
    length: bool = True  # False: no Content-Length, the connection's end is the file's
    status: int | None = None  # an HTTP error to return instead
    cuts: list[int] = field(default_factory=list)  # bytes after which the next responses are cut
    claims: int | None = None  # a wrong Content-Length


@dataclass
class Mirror:
    """The server's address, its files by path, and the requests so far: path, Range, If-Range."""

    url: str
    files: dict[str, File]
    asked: list[tuple[str, str | None, str | None]]


@contextmanager
def serving(**files: File) -> Iterator[Mirror]:
    mirror = Mirror("", dict(files), [])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, wanted = self.path.strip("/"), self.headers["Range"]
            mirror.asked.append((path, wanted, self.headers["If-Range"]))
            file = mirror.files[path]
            if file.status:
                self.send_error(file.status)
                return
            unchanged = self.headers["If-Range"] in (None, file.etag)
            start = 0
            if wanted and file.ranges and unchanged:
                asked = re.fullmatch(r"bytes=(\d+)-", wanted)
                assert asked, wanted
                start = int(asked[1])
            if start >= len(file.content) and start:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                total = len(file.content)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if file.length:
                self.send_header("Content-Length", str(file.claims or len(file.content) - start))
            if file.etag:
                self.send_header("ETag", file.etag)
            self.end_headers()
            end = start + file.cuts.pop(0) if file.cuts else None
            with suppress(ConnectionError):  # the client may close the connection early
                self.wfile.write(file.content[start:end])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
