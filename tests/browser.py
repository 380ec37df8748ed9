"""Headless Chromium, driven by ChromeDriver over HTTP (W3C WebDriver), without further packages."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


class Driver:
    """A page in the browser."""

    def __init__(self, address, options):
        self.address = address
        self.session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": options}})["sessionId"]

    def _call(self, method, path, value=None):
        data = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def _in_session(self, path, value):
        return self._call("POST", f"/session/{self.session}{path}", value)

    def open(self, place):
        """Open a file or an address."""
        self._in_session("/url", {"url": place if "://" in str(place) else Path(place).as_uri()})

    def run(self, script):
        """Run a script in the page and return its value."""
        return self._in_session("/execute/sync", {"script": script, "args": []})

    def wait_for(self, script, seconds=20):
        """Run a script until its value is true, and return the value; fail if it is not within some seconds."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"not within {seconds} s: {script}"
            time.sleep(0.05)
        return value

    def click(self, selector):
        """Click the first element, with the mouse."""
        self._in_session(f"/element/{self._element(selector)}/click", {})

    def type(self, selector, text):
        """Type a text into the first element; a file input takes the path of a file instead."""
        self._in_session(f"/element/{self._element(selector)}/value", {"text": text})

    def press(self, *keys):
        """Press keys together, such as ``"\\ue009", "\\ue007"`` (Control and Enter), where the focus is."""
        actions = [{"type": "keyDown", "value": key} for key in keys]
        actions += [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self._in_session("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def _element(self, selector):
        (value,) = self._in_session("/element", {"using": "css selector", "value": selector}).values()
        return value

    def tabs(self, number):
        """Return the names of so many tabs, the first of which is shown; see ``show``."""
        handles = self._call("GET", f"/session/{self.session}/window/handles")
        while len(handles) < number:
            handles.append(self._in_session("/window/new", {"type": "tab"})["handle"])
        return handles

    def show(self, tab):
        """Show a tab."""
        self._in_session("/window", {"handle": tab})

    def close_tab(self):
        self._call("DELETE", f"/session/{self.session}/window")

    def media(self, name, value):
        """Set a media feature, e.g. ``prefers-color-scheme`` to ``dark``."""
        features = {"features": [{"name": name, "value": value}]}
        self._in_session("/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": features})

    def requested(self):
        """Return the addresses that were requested since the last call, but not by the browser's own first page."""
        messages = [
            json.loads(one["message"])["message"] for one in self._in_session("/se/log", {"type": "performance"})
        ]
        sent = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("chrome://", "chrome-untrusted://"))]

    def resize(self, width, height=900):
        """Show the page at a width, as a device of that width does."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}
        self._in_session("/goog/cdp/execute", command)

    def save_picture(self, path):
        """Save a picture of the whole page."""
        command = {"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": True}}
        Path(path).write_bytes(base64.b64decode(self._in_session("/goog/cdp/execute", command)["data"]))

    def problems(self):
        """Return the errors of the page: of scripts, of its security policy, and of what it failed to load."""
        return [one["message"] for one in self._in_session("/se/log", {"type": "browser"}) if one["level"] == "SEVERE"]

    def close(self):
        self._call("DELETE", f"/session/{self.session}")


@contextmanager
def open_page():
    """Start the browser; skip the test if it is not installed."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium, chromium-driver)")
    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            port = next(
                line.split("port ")[1].strip(" .\n") for line in process.stdout if "successfully on port" in line
            )
            chrome = {"binary": chromium, "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
            options = {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
            page = Driver(f"http://127.0.0.1:{port}", options)
            try:
                yield page
            finally:
                page.close()
        finally:
            process.kill()
            process.communicate()
