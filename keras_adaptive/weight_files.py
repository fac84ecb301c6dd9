"""Where weight files are found: the package, the cache folder, a path or a URL of the user's."""

import hashlib
import http.client
import os
import pathlib
import re
import tempfile
import urllib.request
import uuid

from keras_adaptive.files import sha256 as sha256_of
from keras_adaptive.files import write_whole
from keras_adaptive.weights import WeightsError, most_bytes, read_weights

_TIMEOUT_SECONDS = 60
_CHUNK = 1 << 20
_HDF5 = b"\x89HDF\r\n\x1a\n"  # how its files begin


def cache_folder():
    """Return the folder for files that the package does not carry: `$KERAS_HOME/keras_adaptive`."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home) / "keras_adaptive"


def find(path, sha256):
    """Return where the weights of a record are: in the package, or in the cache folder.

    Args:
        path: path in the package.
        sha256: string. Digest of the file, which is its name in the cache folder.

    Raises:
        WeightsError: If they are in neither place.
    """
    cached = cache_folder() / f"{sha256}.h5"
    for place in (pathlib.Path(path), cached):
        if place.is_file():
            return place
    raise WeightsError(
        f"The weights are neither in the package, {path}, nor in the cache folder, {cached}. Put "
        "the file into one of these places, or install keras_adaptive again."
    )


def load(model, source):
    """Give a model the weights of a file that the user names, all of them or, after an error, none.

    Args:
        model: built `keras.Model`.
        source: as in `fetch`.

    Raises:
        WeightsError: As `fetch` and `read_weights`, or if a path leads to no file. What a URL gave
            and is not what its digest says, or has no digest, is then taken out of the cache.
    """
    path, digest = fetch(source, most_bytes(model))
    if not _is_url(os.fspath(source)):
        if not path.is_file():
            raise WeightsError(
                f"`weights` is {str(path)!r}, which "
                + ("is a folder. Give the file in it." if path.is_dir() else
                   "does not exist. Give the path or the https URL of a weight file.")
            )
        read_weights(model, path, digest)
        return
    try:
        read_weights(model, path, digest)
    except (WeightsError, FileNotFoundError) as error:  # another thread may have taken it away
        if digest is not None and path.is_file() and sha256_of(path) == digest:
            raise  # what was asked for, and would come again
        path.unlink(missing_ok=True)
        raise WeightsError(
            f"What {source} gave cannot be used and was taken out of the cache, so that the next "
            f"call fetches it again; see that the address is that of a whole weight file. {error}"
        ) from error


def fetch(source, most_bytes):
    """Return the path of a weight file that the user names, and the digest that it must have.

    A file behind a URL is kept in the cache folder, so that it comes over the net once.

    Args:
        source: path, or string `https://…`. A URL may end with `#sha256=` and 64 hexadecimal
            digits, which are checked.
        most_bytes: int. A larger file is not fetched.

    Returns:
        Tuple of a path and a string, `None` where no digest is known.

    Raises:
        WeightsError: If `source` is neither path nor URL, the URL is not https, cannot be had, or
            gives too many bytes or others than its digest says, or the cache folder cannot be
            written.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise WeightsError(
            f"`weights` is a path or a URL `https://…` of a weight file. Received: {source!r}."
        )
    text = os.fspath(source)
    if not _is_url(text):
        return pathlib.Path(text), None
    url, _, fragment = text.partition("#")
    digest = fragment.removeprefix("sha256=").lower() if fragment else None
    if not url.startswith("https://") or (fragment and not re.fullmatch("sha256=[0-9a-fA-F]{64}",
                                                                         fragment)):
        raise WeightsError(
            "`weights` is a path or a URL `https://…`, which may end with `#sha256=` and 64 "
            f"hexadecimal digits. Received: {text!r}."
        )
    name = digest or f"url-{hashlib.sha256(url.encode()).hexdigest()}"
    path = cache_folder() / f"{name}.h5"
    if not path.is_file():
        _check_writable(path.parent)
        content = _download(url, most_bytes)
        if digest not in (None, hashlib.sha256(content).hexdigest()):
            raise WeightsError(
                f"{url} has sha256 {hashlib.sha256(content).hexdigest()}, expected {digest}. The "
                "file there was changed; ask whoever gave you the digest."
            )
        if not content.startswith(_HDF5):
            raise WeightsError(
                f"{url} gave no weight file (HDF5) but {content[:40]!r}. Check the address."
            )
        # Another process or thread may fetch the same file.
        own = path.with_name(f"{uuid.uuid4().hex}.{path.name}")
        try:
            write_whole(own, lambda partial: partial.write_bytes(content))
            os.replace(own, path)
        except OSError as error:
            raise _cannot_write(path.parent, error) from error
        finally:
            own.unlink(missing_ok=True)
    return path, digest


def _is_url(text):
    return bool(re.match("[a-zA-Z][a-zA-Z0-9+.-]+://", text))


def _check_writable(folder):
    """Raise a `WeightsError` if a folder cannot be written, before anything is fetched for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder, error):
    return WeightsError(
        f"The cache folder {folder} cannot be written: {error}. Set the environment variable "
        "KERAS_HOME to a folder that can, or fetch the file yourself and give its path."
    )


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows no redirection to anything but https."""

    def redirect_request(self, request, file, code, message, headers, url):
        if not url.startswith("https://"):
            raise WeightsError(f"{request.full_url} leads to {url}, which is no https address.")
        return super().redirect_request(request, file, code, message, headers, url)


def _open(url):
    return urllib.request.build_opener(_OnlyHttps).open(url, timeout=_TIMEOUT_SECONDS)


def _download(url, most_bytes):
    too_large = WeightsError(
        f"{url} is larger than the weights of this network can be, {most_bytes:,} bytes. Build the "
        "network with the arguments that the weights were trained with."
    )
    content = bytearray()
    try:
        with _open(url) as answer:
            declared = answer.headers.get("Content-Length", "")
            if declared.isdecimal() and int(declared) > most_bytes:
                raise too_large
            while chunk := answer.read(_CHUNK):
                content += chunk
                if len(content) > most_bytes:
                    raise too_large
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(f"{url} cannot be fetched: {error}.") from error
    if declared.isdecimal() and len(content) != int(declared):
        raise WeightsError(
            f"{url} gave {len(content):,} of {int(declared):,} bytes. The connection broke; call "
            "again."
        )
    return bytes(content)
