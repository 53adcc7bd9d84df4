# SPDX-License-Identifier: GPL-2.0-only
"""Bytes from the network: resumed where they broke off, and checked to their digest.

The only module that knows urllib3. A file under its own name is always whole
and checked; ``<name>.part`` is on its way, ``<name>.refused-<digest>`` was not
what it should be and is kept for a look.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import ssl
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import filelock
import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError

from workbench.errors import InfraError

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.progress import Progress

_CHUNK = 1 << 18
_ATTEMPTS = 5
_BACKOFF_SECONDS = 1.0
_CONNECT_SECONDS = 8.0
_READ_SECONDS = 60.0
_SPARE_BYTES = 64 << 20
_OK, _PARTIAL, _PAST_END, _ERROR, _BUSY, _SERVER_ERROR = 200, 206, 416, 400, 429, 500


class MissingError(InfraError):
    """The server answered, and does not give this file."""

    def __init__(self, url: str, status: int) -> None:
        """Keep the status for the message of whoever knows who listed the file."""
        super().__init__(
            f"answers {status}", where=url, next_step="see if 'kpw kernels --refresh' lists it"
        )
        self.status = status


class UnreachableError(InfraError):
    """No answer: no network, no such host, or a server in trouble."""

    def __init__(self, url: str, why: str) -> None:
        """Say why in the words of the library."""
        super().__init__(
            f"cannot be reached ({why})",
            where=url,
            next_step="check the network and run it again; what has been downloaded is kept",
        )


@dataclass(frozen=True)
class Wanted:
    """A file: its bare ``name``, where it is, what it must be; ``size`` in bytes if known.

    ``proxy`` is used when the environment names none.
    """

    name: str
    url: str
    sha256: str
    size: int | None = None
    proxy: str = ""


def fetch(wanted: Wanted, directory: Path, progress: Progress) -> Path:
    """Bring a file into a directory and return its path.

    MissingError or UnreachableError when it cannot be had, InfraError when it
    is not what it should be or the disk is full; a part is kept for the next run.
    """
    target = directory / wanted.name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(directory / f".{wanted.name}.lock"):
            if not is_whole(target, wanted.sha256, progress):
                _bring(wanted, target, progress)
    except OSError as error:
        raise _disk(error, directory) from error
    return target


def is_whole(file: Path, sha256: str, progress: Progress) -> bool:
    """Tell whether a file is there and is the one meant; another is set aside."""
    if not file.exists():
        return False
    found = digest(file)
    if found == sha256:
        return True
    aside = set_aside(file, file, found)
    progress.note(f"{file}: not the file meant by its digest; set aside as {aside.name}")
    return False


def digest(file: Path) -> str:
    """Return the sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def get(url: str, limit: int, proxy: str = "") -> bytes:
    """Return a small file of at most ``limit`` bytes; its truth is the caller's to check."""
    try:
        response = _request(url, 0, proxy)
        try:
            if response.status >= _ERROR:
                raise _refusal(url, response.status)
            data = response.read(limit + 1, decode_content=False)
        finally:
            response.release_conn()
            response.close()
    except HTTPError as error:
        raise UnreachableError(url, _why(error)) from error
    if len(data) > limit:
        raise InfraError(
            f"sends more than {limit} bytes",
            where=url,
            next_step="see what it sends: a proxy may answer in its place",
        )
    return data


def _bring(wanted: Wanted, target: Path, progress: Progress) -> None:
    part = target.with_name(f"{target.name}.part")
    begun = part.stat().st_size if part.exists() else 0
    _room(target.parent, (wanted.size or 0) - begun)
    _transfer(wanted, part, progress)
    found = digest(part)
    if found != wanted.sha256 and begun:
        # The part may be of another file (a mirror that changed, a cut power
        # supply); only a whole download says what the server really has.
        progress.note(f"{wanted.name}: the part kept from before does not fit; starting afresh")
        part.unlink()
        _transfer(wanted, part, progress)
        found = digest(part)
    if found != wanted.sha256:
        aside = set_aside(part, target, found)
        raise InfraError(
            f"wrong digest: sha256 is {found[:12]}… and should be {wanted.sha256[:12]}…",
            where=wanted.url,
            next_step=f"refused and set aside as {aside}",
        )
    part.replace(target)


def set_aside(file: Path, name: Path, found: str) -> Path:
    """Keep a file that is not ``name`` for a look; ``found`` is its digest."""
    aside = name.with_name(f"{name.name}.refused-{found[:8]}")
    file.replace(aside)
    return aside


def _room(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed + _SPARE_BYTES:
        raise InfraError(
            f"the disk is too full: {needed >> 20} MiB are to come, {free >> 20} MiB are free",
            where=str(directory),
            next_step="free some space, or set KPW_CACHE to another disk",
        )


def _transfer(wanted: Wanted, part: Path, progress: Progress) -> None:
    """Append until the server says that is all; a broken connection is taken up again."""
    fruitless = 0
    begun = False
    while True:
        before = _size(part)
        try:
            return _receive(wanted, part, progress)
        except UnreachableError:
            if not begun:
                raise
            fruitless += 1
        except HTTPError as error:
            got = _size(part) > before
            begun, fruitless = begun or got, 0 if got else fruitless + 1
            if _no_connection(error) and not begun:
                raise UnreachableError(wanted.url, _why(error)) from error
            if fruitless >= _ATTEMPTS:
                raise UnreachableError(wanted.url, _why(error)) from error
        if fruitless >= _ATTEMPTS:
            raise UnreachableError(wanted.url, "the connection breaks off again and again")
        progress.note(f"{wanted.name}: the connection broke at {_size(part) >> 20} MiB; resuming")
        time.sleep(_BACKOFF_SECONDS * fruitless)


def _receive(wanted: Wanted, part: Path, progress: Progress) -> None:
    offset = _size(part)
    response = _request(wanted.url, offset, wanted.proxy)
    try:
        if response.status == _PAST_END:
            return  # nothing left to send: the digest will tell
        if response.status >= _ERROR:
            raise _refusal(wanted.url, response.status)
        if not _continues(response, offset):
            offset = 0
        total = _announced(response, offset) if wanted.size is None else wanted.size
        if wanted.size is None:
            _room(part.parent, (total or offset) - offset)
        what = f"downloading {wanted.name}"
        with part.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            for chunk in response.stream(_CHUNK, decode_content=False):
                file.write(chunk)
                offset += len(chunk)
                progress.step(what, offset, total, "bytes")
                if wanted.size is not None and offset > wanted.size:
                    return  # too much already: the digest will tell
    finally:
        # Not back into the pool: an answer that was left half read would lie there.
        response.close()


def _announced(response: urllib3.BaseHTTPResponse, offset: int) -> int | None:
    """Return the size of the whole file, if the server says how much is to come."""
    length = response.headers.get("Content-Length", "")
    return offset + int(length) if length.isdecimal() else None


def _continues(response: urllib3.BaseHTTPResponse, offset: int) -> bool:
    """Tell whether the answer begins where our part ends."""
    said = response.headers.get("Content-Range", "")
    return response.status == _PARTIAL and said.startswith(f"bytes {offset}-")


def _request(url: str, offset: int, proxy: str) -> urllib3.BaseHTTPResponse:
    headers = {"Accept-Encoding": "identity", "User-Agent": "kpw"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    return _pool(url, proxy).request(
        "GET",
        url,
        headers=headers,
        preload_content=False,
        timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
        # Redirects are followed; everything else is ours, since we can resume.
        retries=urllib3.Retry(connect=0, read=0, status=0, other=0, redirect=5),
    )


def _pool(url: str, proxy: str) -> urllib3.PoolManager:
    """Return a way to a server, by the proxy and the certificates this machine is set up with."""
    context = ssl.create_default_context()  # honours SSL_CERT_FILE and SSL_CERT_DIR
    parts = urlsplit(url)
    named = urllib.request.getproxies().get(parts.scheme) or proxy
    if named and not urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(named, ssl_context=context)
    return urllib3.PoolManager(ssl_context=context)


def _refusal(url: str, status: int) -> InfraError:
    if status == _BUSY or status >= _SERVER_ERROR:
        return UnreachableError(url, f"it answers {status}")
    return MissingError(url, status)


def _no_connection(error: HTTPError) -> bool:
    reason = error.reason if isinstance(error, MaxRetryError) else error
    return isinstance(reason, NewConnectionError)


def _why(error: HTTPError) -> str:
    reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    return str(reason).rpartition(": ")[2].strip() or type(reason).__name__


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _disk(error: OSError, directory: Path) -> InfraError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return InfraError(
            "the disk is full",
            where=str(directory),
            next_step="free some space and run it again; what has been downloaded is kept",
        )
    return InfraError(
        os.strerror(error.errno or 0),
        where=str(error.filename or directory),
        next_step="mend that and run it again; what has been downloaded is kept",
    )
