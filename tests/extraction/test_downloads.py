"""Images at URLs: only if they are allowed, with limits, and from public addresses."""

import io
import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from PIL import Image

from umie.errors import UmieError
from umie.extraction import Extractor, downloads, extract_file
from umie.extraction.downloads import _is_public, download_image, downloaded
from umie.images import open_image
from umie.records import Record, read_jsonl


def png(color="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(buffer, "PNG")
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    asked: ClassVar[list] = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        if self.path == "/slow-header":
            with suppress(OSError):
                for _ in range(100):
                    self.wfile.write(b"H")
                    self.wfile.flush()
                    threading.Event().wait(0.05)
            return
        name = self.path.strip("/").partition("?")[0]
        if name.startswith("to-"):
            self.send_response(302)
            self.send_header(
                "Location", {"to-red": "/red.png", "to-loop": "/to-loop", "to-file": "file:///etc/passwd"}[name]
            )
            self.end_headers()
            return
        self.send_response(404 if name == "missing" else 200)
        self.end_headers()
        if name == "endless":
            try:
                while True:
                    self.wfile.write(b"0" * 100_000)
            except OSError:
                return
        if name == "slow":
            try:
                for _ in range(100):
                    self.wfile.write(b"0")
                    self.wfile.flush()
                    threading.Event().wait(0.05)
            except OSError:
                return
        self.wfile.write(
            {"red.png": png(), "text": b"no image", "%C3%A9.png": b"no image", "missing": b""}.get(name, png("blue"))
        )


@pytest.fixture(scope="module")
def server():
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    thread.join()
    running.server_close()


def test_an_image_is_downloaded_also_after_a_redirect(server):
    for path in ("/red.png", "/to-red", "/red.png?size=large"):
        assert download_image(f"{server}{path}", "any").getpixel((0, 0)) == (255, 0, 0)
    assert "/red.png?size=large" in Handler.asked


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/missing", "the server answered 404"),
        ("/text", "not a readable image"),
        ("/to-loop", "more than 3 redirects"),
        ("/to-file", "file:///etc/passwd: not an address"),
        ("/endless", "more than 2 MB"),
        ("/slow", "not complete after 1 s"),
        ("/slow-header", "not complete after 1 s"),
        ("/\u00e9.png", "not a readable image"),
    ],
)
def test_what_cannot_be_used_is_an_error(server, path, message, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_BYTES", 2_000_000)
    monkeypatch.setattr(downloads, "MAX_SECONDS", 1.0)
    with pytest.raises(UmieError, match=message):
        download_image(f"{server}{path}", "any")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "169.254.169.254", "192.168.0.1", "0.0.0.0"]
)
def test_private_addresses_are_refused(host):
    with pytest.raises(UmieError, match="an address of a private network"):
        download_image(f"http://{host}:9/a.png")


def test_addresses_inside_others_count():
    assert _is_public("93.184.216.34")
    assert _is_public("2606:2800:220:1:248:1893:25c8:1946")
    for address in ("64:ff9b::7f00:1", "2002:7f00:1::", "fec0::1", "::ffff:10.0.0.1", "224.0.0.1", "fe80::1%eth0"):
        assert not _is_public(address), address


def test_a_server_that_is_not_there(server):
    with pytest.raises(UmieError, match=r"cannot be reached"):
        download_image("http://127.0.0.1:1/a.png", "any")
    with pytest.raises(UmieError, match="not an address"):
        download_image("ftp://example.org/a.png", "any")


def test_each_url_is_asked_once(server):
    Handler.asked.clear()
    records = [
        Record("a", f"{server}/blue"),
        Record("b"),
        Record("c", f"{server}/blue", more_images=(f"{server}/red.png",)),
    ]
    found = downloaded(records, "any")
    assert downloaded([Record("a", "http://[::1/x.png")], "any")[0].image.reason  # no URL at all
    assert sorted(Handler.asked) == ["/blue", "/red.png"]
    assert found[1] is records[1]
    assert [open_image(image).getpixel((0, 0)) for image in found[2].images] == [(0, 0, 255), (255, 0, 0)]


def test_a_name_that_is_never_found_is_not_waited_for(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(downloads.socket, "getaddrinfo", lambda *_, **__: never.wait())
    monkeypatch.setattr(downloads, "_WAIT_S", 0.05)
    with pytest.raises(UmieError, match=r"slow\.example: cannot be reached \(its name was not found within 0 s\)"):
        download_image("http://slow.example/a.png")
    never.set()


def test_extraction_downloads_only_if_it_may(learned, server):
    record = Record("Saw Deke Roli", f"{server}/red.png")
    with pytest.raises(UmieError, match="a URL: allow downloads"):
        Extractor(*learned).extract(record)
    with pytest.raises(UmieError, match="an address of a private network"):
        Extractor(*learned, urls="public").extract(record)
    found = Extractor(*learned, urls="any").extract(record)
    assert found.record.image == record.image
    local = Extractor(*learned).extract(Record("Saw Deke Roli", Image.open(io.BytesIO(png()))))
    assert found.entities == local.entities
    assert found.entities
    assert Extractor(*learned, urls="any").attention(found)
    assert found.gate == pytest.approx(local.gate)
    assert Extractor(*learned, urls="any").extract("Saw Deke Roli", record.image).entities == local.entities
    told = Extractor(*learned, urls="any").explain(record.text, record.image, other=f"{server}/red.png")
    assert set(told.extractions) == {"given", "without", "blank", "other"}
    assert told.extractions["other"].entities == local.entities
    with pytest.raises(UmieError, match="a URL: allow downloads"):
        Extractor(*learned).explain(record.text, record.image)
    with pytest.raises(UmieError, match="urls is 'all'"):
        Extractor(*learned, urls="all")


def test_policies_apply_to_what_cannot_be_downloaded(learned_checkpoint, server, tmp_path):
    lines = [{"text": "Ann", "image": f"{server}/red.png"}, {"text": "Bob", "image": f"{server}/missing"}]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    options = {"device": "cpu", "urls": "any"}
    with pytest.raises(UmieError, match=r"in.jsonl:2: .*the server answered 404"):
        extract_file(learned_checkpoint, tmp_path / "in.jsonl", tmp_path / "a.jsonl", **options)
    summary = extract_file(
        learned_checkpoint, tmp_path / "in.jsonl", tmp_path / "b.jsonl", missing_images="text_only", **options
    )
    assert summary.warnings["image"] == 1
    assert [record.image for record in read_jsonl(tmp_path / "b.jsonl")] == [line["image"] for line in lines]
    summary = extract_file(learned_checkpoint, tmp_path / "in.jsonl", tmp_path / "c.jsonl", skip_bad=True, **options)
    assert (summary.written, summary.rejected) == (1, 1)
