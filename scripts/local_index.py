"""A package index on the loopback interface, for the dry run of a release.

It takes uploads as an index does, by the form that `uv publish` and twine send, and offers them by
PEP 503's simple pages. It lives as long as the `with` block and listens to this machine only.
"""

import email
import email.policy
import functools
import hashlib
import html
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename


class LocalIndex:
    """An index over `folder`, which holds one subfolder a package."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(folder))
        # Asks 50 times a second whether to stop.
        serve = functools.partial(self._server.serve_forever, poll_interval=0.02)
        self._thread = threading.Thread(target=serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def simple_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/simple/"

    @property
    def upload_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/upload/"


class _RefusedError(Exception):
    """An upload that an index would refuse; the text is the answer."""


def _store(folder: Path, content_type: str, body: bytes) -> None:
    """Keep the file of an upload form, under the conditions of a real index.

    Raises:
        _RefusedError: a field is missing, the name, version or digest is not the file's, or a file
            of this name is there already: what was released is never replaced.
    """
    form = email.message_from_bytes(
        b"Content-Type: " + content_type.encode("ascii") + b"\r\n\r\n" + body,
        policy=email.policy.HTTP,
    )
    parts = {part.get_param("name", header="content-disposition"): part for part in form.walk()}
    fields = {
        name: part.get_content().strip()
        for name, part in parts.items()
        if part.get_filename() is None and part.get_content_maintype() == "text"
    }
    missing = {":action", "name", "version", "sha256_digest", "content"} - parts.keys()
    if missing:
        raise _RefusedError(f"fields are missing: {sorted(missing)}")
    filename = parts["content"].get_filename() or ""
    # Bytes as they were sent, whatever type the sender gave them or left out.
    content = parts["content"].get_payload(decode=True)
    if not isinstance(content, bytes):
        raise _RefusedError(f"{filename}: expected one file, got a form in the form")
    parse = parse_wheel_filename if filename.endswith(".whl") else parse_sdist_filename
    name, version = parse(filename)[:2]
    if (name, str(version)) != (canonicalize_name(fields["name"]), fields["version"]):
        raise _RefusedError(f"{filename} is not {fields['name']} {fields['version']}")
    if hashlib.sha256(content).hexdigest() != fields["sha256_digest"]:
        raise _RefusedError(f"{filename}: the SHA-256 digest is not that of the content")
    target = folder / name / filename
    if target.exists():
        raise _RefusedError(f"{filename} exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _links(folder: Path, base: str) -> str:
    """A simple page: one link a child of `folder`, files with their digest."""
    lines = []
    for child in sorted(folder.iterdir()):
        fragment = "/"
        if child.is_file():
            fragment = f"#sha256={hashlib.sha256(child.read_bytes()).hexdigest()}"
        lines.append(f'<a href="{base}{html.escape(child.name)}{fragment}">{child.name}</a><br>')
    return "<!DOCTYPE html>\n<html><body>\n" + "\n".join(lines) + "\n</body></html>\n"


def _handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page, *rest = self.path.strip("/").split("/")
            # In its normal form, a name cannot lead out of the folder.
            name = canonicalize_name(rest[0]) if rest else ""
            match page, rest:
                case "simple", []:
                    self._answer(200, _links(folder, "/simple/").encode(), "text/html")
                case "simple", [_] if (folder / name).is_dir():
                    links = _links(folder / name, f"/files/{name}/")
                    self._answer(200, links.encode(), "text/html")
                case "files", [_, file] if (folder / name / file).is_file():
                    content = (folder / name / file).read_bytes()
                    self._answer(200, content, "application/octet-stream")
                case _:
                    self._answer(404, b"not here\n", "text/plain")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                _store(folder, self.headers["Content-Type"], body)
            except _RefusedError as error:
                self._answer(400, f"{error}\n".encode(), "text/plain")
            else:
                self._answer(200, b"", "text/plain")

        def _answer(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the dry run says what it does."""

    return Handler
