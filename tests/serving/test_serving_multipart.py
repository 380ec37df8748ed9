"""The parts of forms: those of a real client are read back, and damage is an error."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.serving.limits import RequestError
from umie.serving.multipart import Part, media_type, parts_of

contents = st.one_of(st.binary(max_size=50), st.lists(st.sampled_from([b"\r\n", b"--", b"\n", b"x"])).map(b"".join))


def form(files):
    request = httpx.Request("POST", "http://umie", files=files)
    return request.read(), request.headers["content-type"]


@given(st.lists(st.tuples(st.sampled_from(["image", "text", "request"]), contents), min_size=1, max_size=5))
def test_what_a_client_sends_is_read(fields):
    body, header = form(fields)
    kind, boundary = media_type(header)
    assert kind == "multipart/form-data"
    assert parts_of(body, boundary, 5) == [Part(*field) for field in fields]


@given(st.integers(0, 400), st.binary(max_size=3))
def test_damage_is_an_error_or_another_form(place, inserted):
    body, header = form([("text", b"Ann"), ("image", b"\x89PNG\r\n" * 9)])
    damaged = body[:place] + inserted + body[place + 1 :]
    try:
        parts = parts_of(damaged, media_type(header)[1], 5)
    except RequestError as error:
        assert error.status == 400
    else:
        assert all(isinstance(part.content, bytes) for part in parts)


def test_quotes_and_a_preamble():
    header = 'Multipart/Form-Data; charset=utf-8; boundary="a b"'
    body = b"preamble\r\n--a b\r\ncontent-disposition: form-data; NAME=text\r\n\r\nAnn\r\n--a b--\r\nepilogue"
    assert parts_of(body, media_type(header)[1], 1) == [Part("text", b"Ann")]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "does not end"),
        (b"--x\r\n\r\nAnn\r\n--x--", "no name"),
        (b"--x\r\ncontent-disposition: form-data\r\n\r\nAnn\r\n--x--", "no name"),
        (b"--x\r\na: " + b"b" * 5_000 + b"\r\n\r\nAnn\r\n--x--", "too long"),
        (b"--x\r\n--x--", "no headers"),
    ],
)
def test_what_is_no_form_is_an_error(body, message):
    with pytest.raises(RequestError, match=message):
        parts_of(body, "x", 5)
