"""The server: what it answers to whom, what it keeps, and what it never does."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from umie.errors import UmieError
from umie.explorer.server import is_loopback, served


def fetch(url, data=None, **headers):
    """Return the status, the headers and the body of an answer."""
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode(errors="replace")


def upload(address, content, name="a.png"):
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body = head + content + b"\r\n--x--\r\n"
    return fetch(f"{address}gradio_api/upload", body, **{"Content-Type": "multipart/form-data; boundary=x"})


def test_the_page_may_load_nothing_from_elsewhere(address):
    status, headers, body = fetch(address)
    assert status == 200
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "gated/best against random/best" in body
    status, _, style = fetch(f"{address}theme.css")
    assert status == 200
    assert "url(http" not in style.replace("'", "").replace('"', "")
    assert "@import" not in style


def test_no_functions_are_offered_to_programs(address):
    assert fetch(f"{address}gradio_api/info")[2] == '{"named_endpoints":{},"unnamed_endpoints":{}}'
    for path in ("docs", "redoc", "openapi.json", "monitoring", "gradio_api/mcp/sse"):
        assert fetch(f"{address}{path}")[0] in (403, 404)


def test_another_name_for_this_machine_gets_nothing(address):
    assert fetch(address, Host="evil.example")[0] == 400
    assert fetch(address, Host="localhost")[0] == 200


def test_files_of_this_machine_are_not_served(address, records):
    for path in ("/etc/passwd", Path("pyproject.toml").resolve(), f"{records[0].image_folder}/{records[0].image}"):
        assert fetch(f"{address}gradio_api/file={path}")[0] in (403, 404)


def test_uploads_are_limited_and_stay_in_the_folder(address, folder):
    status, _, body = upload(address, b"0" * 1000)
    assert status == 200
    assert str(folder / "uploads") in body
    status, _, body = upload(address, b"0" * (2**20 + 1))
    assert (status, "maximum allowed size of 1048576 bytes" in body) == (413, True)
    assert sum(path.stat().st_size for path in (folder / "uploads").rglob("a.png")) == 1000


def test_a_port_in_use(address, both, folder):
    port = int(address.rstrip("/").rpartition(":")[2])
    message = rf"nothing can listen on 127.0.0.1:{port} \(.*\): use another host or port"
    with pytest.raises(UmieError, match=message), served(both, folder, port=port):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_only_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.2", "example.org"])
def test_other_machines(host):
    assert not is_loopback(host)
