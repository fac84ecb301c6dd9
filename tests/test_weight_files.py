"""Weights behind a URL: only https, never more than the network can hold, whole or not at all."""

import contextlib
import hashlib
import http.client
import io
import threading
import urllib.error
import urllib.request

import keras
import pytest
from numpy.testing import assert_array_equal

from keras_adaptive import weight_files
from keras_adaptive.weights import WeightsError, write_weights

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


@pytest.fixture
def model():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(3, name="exit1")(inputs))


@pytest.fixture
def body(model, tmp_path):
    """A whole file of the model's weights, all of them ones."""
    before = model.get_weights()
    model.set_weights([value * 0 + 1 for value in before])
    write_weights(model, tmp_path / "whole.h5")
    model.set_weights(before)
    return (tmp_path / "whole.h5").read_bytes()


def test_half_a_file_is_fetched_again_the_next_time(serve, model, body, tmp_path):
    """A server that declares no length and breaks off must not fill the cache for ever."""
    before = model.get_weights()
    serve(body[:len(body) // 2])
    with pytest.raises(WeightsError, match="cannot be used and was taken out of the cache"):
        weight_files.load(model, URL)
    assert kept(tmp_path) == []
    assert_array_equal(model.get_weights()[0], before[0])

    requests = serve(body)
    weight_files.load(model, URL)
    weight_files.load(model, URL)

    assert_array_equal(model.get_weights()[0], before[0] * 0 + 1)
    assert requests == [URL]


def test_a_copy_that_was_damaged_in_the_cache_is_fetched_again(serve, model, body, tmp_path):
    """And one that is what the digest says stays, also where the network is another."""
    serve(body)
    digest = hashlib.sha256(body).hexdigest()
    cached = tmp_path / "keras_adaptive" / f"{digest}.h5"
    cached.parent.mkdir()
    cached.write_bytes(body[:-1] + b"!")
    with pytest.raises(WeightsError, match=f"taken out of the cache.*expected {digest}"):
        weight_files.load(model, f"{URL}#sha256={digest}")

    weight_files.load(model, f"{URL}#sha256={digest}")

    inputs = keras.Input((4,))
    other = keras.Model(inputs, keras.layers.Dense(3, name="exit2")(inputs))
    with pytest.raises(WeightsError, match="exit1 is unknown"):
        weight_files.load(other, f"{URL}#sha256={digest}")
    assert cached.read_bytes() == body


def test_threads_fetch_one_file_at_the_same_time(serve, tmp_path, monkeypatch):
    """Each gets it, and nothing else is left."""
    serve(BODY)
    barrier, failures = threading.Barrier(4), []
    download = weight_files._download
    write = weight_files.write_whole

    def together(*arguments):
        content = download(*arguments)
        barrier.wait(10)
        return content

    def write_together(path, fill):
        write(path, fill)
        barrier.wait(10)

    def fetch():
        try:
            weight_files.fetch(URL, 10)
        except Exception as error:
            failures.append(error)

    monkeypatch.setattr(weight_files, "_download", together)
    monkeypatch.setattr(weight_files, "write_whole", write_together)
    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(kept(tmp_path)) == 1


def test_a_cache_that_cannot_be_written_is_told_before_anything_is_fetched(serve, monkeypatch,
                                                                           tmp_path):
    """With the setting that names another folder."""
    requests = serve(BODY)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))

    with pytest.raises(WeightsError, match="cannot be written.*KERAS_HOME"):
        weight_files.fetch(URL, 10)
    assert requests == []


def test_a_full_disk_is_told(serve, monkeypatch, tmp_path):
    serve(BODY)

    def fail(path, fill):
        raise OSError("No space left on device")

    monkeypatch.setattr(weight_files, "write_whole", fail)
    with pytest.raises(WeightsError, match="cannot be written: No space left"):
        weight_files.fetch(URL, 10)
    assert kept(tmp_path) == []


def test_what_is_no_file_is_told(model, tmp_path):
    """Without the words of the operating system."""
    with pytest.raises(WeightsError, match="is a folder"):
        weight_files.load(model, tmp_path)
    with pytest.raises(WeightsError, match="nowhere.h5', which does not exist"):
        weight_files.load(model, tmp_path / "nowhere.h5")
    with pytest.raises(WeightsError, match="a path or a URL .*Received: 5"):
        weight_files.load(model, 5)
