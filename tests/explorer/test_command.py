"""`umie explore`: its help and its errors, and a page that is served until it is interrupted."""

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest


def test_the_help_teaches(umie):
    code, out, _ = umie("explore", "--help")
    assert code == 0
    for words in ("umie explore -m", "--compare", "Ctrl+C", "extra `web`"):
        assert words in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model is missing"),
        (["-m", "nowhere/at/all"], "nowhere/at/all"),
        (["-m", "MODEL", "--images", "."], "describe --data, which is missing"),
        (["-m", "MODEL", "--compare", "MODEL"], "both variants are called"),
        (["-m", "MODEL", "--data", "EMPTY"], "contains no records"),
        (["-m", "MODEL", "--data", "EMPTY", "-f", "nonsense"], "Unknown data format 'nonsense'"),
        (["-m", "MODEL", "--port", "0"], "--port"),
        (["-m", "MODEL", "--host", "no such host"], "nothing can listen on no such host:"),
    ],
)
def test_bad_arguments(umie, saved, tmp_path, port, arguments, message):
    (tmp_path / "empty.jsonl").write_text("")
    given = {"MODEL": saved, "EMPTY": tmp_path / "empty.jsonl"}
    code, out, error = umie("explore", "--port", port, *(given.get(one, one) for one in arguments))
    assert (code, out) == (2, "")
    assert message in error
    assert "Traceback" not in error


def test_without_gradio_the_extra_is_named(umie, saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, error = umie("explore", "-m", saved)
    assert code == 2
    assert "umie explore needs gradio: pip install 'umie[web]'" in error


@pytest.mark.slow
def test_it_serves_until_it_is_interrupted(saved, records, tmp_path, port):
    line = {"text": records[0].text, "image": records[0].image}
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps(line))
    command = [sys.executable, "-m", "umie", "explore", "-m", saved, "--data", data, "--port", port, "--device", "cpu"]
    command += ["--images", records[0].image_folder, "--host", "0.0.0.0"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*map(str, command)], **streams, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        assert f":{port}/ in a browser" in process.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            assert records[0].text in answer.read().decode()
    finally:
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "everybody who can reach 0.0.0.0 can use this page" in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == [data]  # uploads and examples are removed
