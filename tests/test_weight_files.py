"""Weights behind a URL: only https, never more than the network can hold, whole or not at all."""

import contextlib
import hashlib
import http.client
import io
import urllib.error
import urllib.request

import pytest

from keras_adaptive import weight_files
from keras_adaptive.weights import WeightsError

URL = "https://example.org/weights.h5"
BODY = b"\x89HDF\r\n\x1a\n!!"  # ten bytes that begin as HDF5 files do


class Answer(io.BytesIO):
    """What a server sends: a body, and the length that it declares."""

    def __init__(self, body, declared):
        super().__init__(body)
        self.headers = {} if declared is None else {"Content-Length": str(declared)}


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Return a function that says what the server sends; it returns the list of requests."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def serve(body, declared=None):
        requests = []
        monkeypatch.setattr(weight_files, "_open", lambda url: requests.append(url)
                            or contextlib.closing(Answer(body, declared)))
        return requests
    return serve


def kept(tmp_path):
    folder = tmp_path / "keras_adaptive"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_path_is_taken_as_it_is(tmp_path):
    """Nothing is copied, and no digest is known."""
    assert weight_files.fetch(tmp_path / "weights.h5", 10) == (tmp_path / "weights.h5", None)


def test_a_file_comes_over_the_net_once(serve, tmp_path):
    requests = serve(BODY, len(BODY))

    first, _ = weight_files.fetch(URL, 10)
    again, _ = weight_files.fetch(URL, 10)

    assert first == again and first.read_bytes() == BODY
    assert requests == [URL]


def test_a_digest_behind_the_url_is_checked(serve, tmp_path):
    """And handed on, so that the copy in the cache is checked each time it is read."""
    serve(BODY)
    digest = hashlib.sha256(BODY).hexdigest()

    path, expected = weight_files.fetch(f"{URL}#sha256={digest}", 10)

    assert (path.name, expected) == (f"{digest}.h5", digest)
    with pytest.raises(WeightsError, match=f"has sha256 {digest}, expected {'0' * 64}"):
        weight_files.fetch(f"{URL}#sha256={'0' * 64}", 10)
    assert kept(tmp_path) == [f"{digest}.h5"]


@pytest.mark.parametrize("declared", [11, None, 5])
def test_a_file_that_is_too_large_is_not_kept(serve, tmp_path, declared):
    """Whatever length the server declares."""
    serve(b"x" * 11, declared)

    with pytest.raises(WeightsError, match="larger than the weights of this network can be, 10"):
        weight_files.fetch(URL, 10)
    assert kept(tmp_path) == []


def test_a_connection_that_breaks_leaves_nothing(serve, tmp_path):
    serve(b"weig", 7)

    with pytest.raises(WeightsError, match="gave 4 of 7 bytes"):
        weight_files.fetch(URL, 10)
    assert kept(tmp_path) == []


def test_a_server_that_does_not_answer_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def fail(url):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(weight_files, "_open", fail)
    with pytest.raises(WeightsError, match="example.org/weights.h5 cannot be fetched.*no route"):
        weight_files.fetch(URL, 10)


@pytest.mark.parametrize("source", [
    "http://example.org/weights.h5", "file:///etc/passwd", "ftp://example.org/w.h5",
    f"{URL}#sha256=12", f"{URL}#md5={'0' * 32}",
])
def test_other_addresses_are_refused(source):
    """What is not encrypted can be changed on its way."""
    with pytest.raises(WeightsError, match="a path or a URL `https://"):
        weight_files.fetch(source, 10)


def test_a_redirection_to_plain_http_is_refused():
    handler = weight_files._OnlyHttps()

    with pytest.raises(WeightsError, match="leads to http://example.org"):
        handler.redirect_request(urllib.request.Request(URL), None, 302, "Found", {},
                                 "http://example.org/w.h5")


def test_what_is_no_weight_file_is_not_kept(serve, tmp_path):
    """A page that asks for a password, say, must not be found in the cache the next time."""
    serve(b"<html>log")

    with pytest.raises(WeightsError, match="gave no weight file .HDF5. but b'<html>log'"):
        weight_files.fetch(URL, 10)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("error", [
    http.client.InvalidURL("a space"), http.client.IncompleteRead(b"half"), OSError("no route")])
def test_what_the_net_answers_is_told(monkeypatch, tmp_path, error):
    """With the address, and as an error that the caller expects."""
    def fail(url):
        raise error
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(weight_files, "_open", fail)

    with pytest.raises(WeightsError, match="https://example.org/weights.h5 cannot be fetched"):
        weight_files.fetch(URL, 10)
