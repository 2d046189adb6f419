"""The index of the dry run takes and refuses what a real one does."""

import hashlib
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest

from local_index import LocalIndex

BOUNDARY = "boundary"


def wheel(folder, name="down", version="0.1.0"):
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        # Bytes that a text parser would change: every value, carriage returns, the boundary.
        archive.writestr("data", bytes(range(256)) + b"\r\n\r\n--boundary-not\r\n" + b"\n" * 3)
    return path


def upload(url, path, **changes):
    fields = {
        ":action": "file_upload",
        "name": "down",
        "version": "0.1.0",
        "sha256_digest": hashlib.sha256(path.read_bytes()).hexdigest(),
    } | changes
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
        if value is not None
    ]
    parts.append(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; "
        f'name="content"; filename="{path.name}"\r\n\r\n'.encode()
    )
    body = b"".join(parts) + path.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def read(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read()


@pytest.fixture
def index(tmp_path):
    with LocalIndex(tmp_path / "index") as index:
        yield index


def test_what_was_uploaded_is_offered_byte_for_byte(index, tmp_path):
    path = wheel(tmp_path)
    assert upload(index.upload_url, path) == (200, "")
    assert b'<a href="/simple/down/">down</a>' in read(index.simple_url)
    page = read(f"{index.simple_url}Down/").decode()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"/files/down/{path.name}#sha256={digest}" in page
    base = index.simple_url.removesuffix("simple/")
    assert read(f"{base}files/down/{path.name}") == path.read_bytes()


def test_a_released_file_is_never_replaced(index, tmp_path):
    path = wheel(tmp_path)
    assert upload(index.upload_url, path)[0] == 200
    status, answer = upload(index.upload_url, path)
    assert (status, answer) == (400, "down-0.1.0-py3-none-any.whl exists already\n")


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"version": "0.1.1"}, "down-0.1.0-py3-none-any.whl is not down 0.1.1"),
        ({"name": "up"}, "down-0.1.0-py3-none-any.whl is not up 0.1.0"),
        ({"sha256_digest": "0" * 64}, "the SHA-256 digest is not that of the content"),
        ({"sha256_digest": None}, r"fields are missing: ['sha256_digest']"),
    ],
)
def test_a_form_that_does_not_fit_is_refused(index, tmp_path, changes, answer):
    status, text = upload(index.upload_url, wheel(tmp_path), **changes)
    assert status == 400
    assert answer in text
    assert not list(Path(tmp_path / "index").rglob("*.whl"))


@pytest.mark.parametrize("page", ["simple/nothing/", "files/down/no.whl", "files/../secret", ""])
def test_what_is_not_there_is_not_found(index, tmp_path, page):
    (tmp_path / "secret").write_text("")
    upload(index.upload_url, wheel(tmp_path))
    with pytest.raises(urllib.error.HTTPError, match="404") as error:
        read(index.simple_url.removesuffix("simple/") + page)
    error.value.close()
