"""A server process: slow clients, full queues, clients that go away, and the end by a signal."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from browser import open_page

from umie.serving import bind

HEAD = b"POST /extract HTTP/1.1\r\nhost: umie\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
TIMEOUT_S = 2


@contextlib.contextmanager
def server_of(checkpoint, *options):
    command = [sys.executable, "-m", "umie", "serve", "--model", str(checkpoint), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        lines = []
        while not lines or not lines[-1].startswith("Serving "):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        yield process, lines[-1].split(" at ")[1].split()[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def server(checkpoint):
    with server_of(checkpoint, "--timeout-s", str(TIMEOUT_S), "--max-queue", "2", "--batch-size", "1") as found:
        yield found


@pytest.fixture
def url(server):
    return server[1]


@contextlib.contextmanager
def connection(url, sent):
    target = httpx.URL(url)
    with socket.create_connection((target.host, target.port), timeout=10) as own:
        own.sendall(sent)
        yield own


def answered(url, text="Ann met Bob"):
    response = httpx.post(f"{url}/extract", json={"text": text}, timeout=10)
    return response.status_code == 200 and response.json()["text"] == text


def received(own):
    """Return all that a server sends until it closes the connection."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := own.recv(65_536):
            data += part
    return data


@pytest.mark.slow
def test_slow_clients_are_cut_and_block_nobody(url):
    began, stopped = time.monotonic(), threading.Event()
    heads = (HEAD % 1000, b"POST /extract HTTP/1.1\r\n", b"")
    with contextlib.ExitStack() as stack:
        body, head, silent = (stack.enter_context(connection(url, sent)) for sent in heads)

        def drip():
            while not stopped.wait(0.1):
                with contextlib.suppress(OSError):
                    body.sendall(b" ")
                    head.sendall(b"a")

        dripping = threading.Thread(target=drip)
        dripping.start()
        stack.callback(dripping.join)
        stack.callback(stopped.set)
        assert answered(url)
        assert time.monotonic() - began < TIMEOUT_S
        answer = received(body)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"longer than 2 seconds to arrive" in answer
        assert received(head) == received(silent) == b""
        assert TIMEOUT_S - 0.5 < time.monotonic() - began < TIMEOUT_S + 5


def test_what_is_too_large_is_refused_so_that_the_client_sees_it(url):
    for content in (b" " * 30_000_000, (b" " * 1_000_000 for _ in range(30))):  # with its length, and in chunks
        response = httpx.post(f"{url}/extract", content=content, timeout=10)
        assert (response.status_code, set(response.json())) == (413, {"error"})
    with connection(url, HEAD.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n") % 30_000_000) as own:
        assert received(own).startswith(b"HTTP/1.1 413 ")  # before anything is sent
    with connection(url, b"no http\r\n\r\n") as own:
        head, _, body = received(own).partition(b"\r\n\r\n")
        assert (head.split()[1], json.loads(body)) == (b"400", {"error": "Invalid HTTP request received."})


def test_a_full_queue_refuses_and_loses_nothing(url):
    async def ask_all():
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            return await asyncio.gather(*(client.post("/extract", json={"text": f"Ann {n}"}) for n in range(30)))

    responses = asyncio.run(ask_all())
    statuses = [one.status_code for one in responses]
    assert set(statuses) == {200, 503}
    for number, one in enumerate(responses):
        if one.status_code == 200:
            assert one.json()["text"] == f"Ann {number}"
        else:
            assert one.headers["retry-after"] == "1"


def test_a_client_that_goes_away_blocks_nobody(url):
    body = json.dumps({"text": "Ann " * 1_000}).encode()
    for _ in range(5):
        with connection(url, HEAD % len(body) + body):
            pass
    while not answered(url):  # the queue has two places
        time.sleep(0.05)


def test_the_page_sends_its_form(url):
    with open_page() as page:
        page.open(f"{url}/docs")
        page.run("""
            document.querySelector("form").text.value = "Ann met <b>Bob</b>";
            document.querySelector("form").options.value = '{"tasks": ["mner"]}';
            document.querySelector("button").click();""")
        deadline = time.monotonic() + 10
        while not (answer := page.run('return document.querySelector("pre").textContent')).startswith("{"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert json.loads(answer)["text"] == "Ann met <b>Bob</b>"
        assert json.loads(answer)["tasks"] == ["mner"]
        assert page.problems() == []


def test_a_signal_ends_the_server_after_its_last_answer(server):
    process, url = server
    body = json.dumps({"text": "Ann met Bob in Rome"}).encode()
    with connection(url, HEAD % len(body) + body[:-1]) as own:
        while b"umie" not in httpx.get(url).content:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        while True:
            try:
                connection(url, b"").__enter__().close()
            except OSError:  # no longer accepted
                break
            time.sleep(0.01)
        own.sendall(body[-1:])
        answer = received(own)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Ann met Bob in Rome" in answer
    assert process.wait(20) == 0
    assert process.stdout.read() == ""


def test_an_address_in_use_is_named_before_the_model_is_loaded(umie, checkpoint):
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        code, _, err = umie("serve", "--model", checkpoint, "--port", taken.getsockname()[1])
    assert (code, "Address already in use; use another --host or --port" in err) == (2, True)
    code, _, err = umie("serve", "--model", checkpoint, "--host", "no.such.invalid")
    assert (code, "cannot listen at no.such.invalid" in err) == (2, True)


def test_options_are_checked(umie, checkpoint):
    assert "--model is missing" in umie("serve")[2]
    assert "neither an existing directory nor a hub name" in umie("serve", "--model", "no such")[2]
    assert "timeout_s is 0.0" in umie("serve", "--model", checkpoint, "--timeout-s", 0)[2]
    assert "curl localhost:8000/extract" in umie("serve", "--help")[1]
