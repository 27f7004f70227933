"""Download of a file with a known size and checksum: resumed where it broke off, verified, put in place whole."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdas.data.errors import DataError
from sdas.files import file_sha256

CHUNK_BYTES = 1 << 16
TIMEOUT_SECONDS = 30.0
ATTEMPTS = 4
RETRIED_STATUS = (408, 429, 500, 502, 503, 504)
Progress = Callable[[int, int], None]
"""Called with bytes present and bytes in all."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to be had at ``url``: its size in bytes and its SHA-256 in hexadecimal digits."""

    url: str
    bytes: int
    sha256: str


class _Broken(Exception):
    """The transfer failed in a way that another attempt may mend."""


def download(
    remote: RemoteFile, target: Path, progress: Progress | None = None, *, attempts: int = ATTEMPTS, pause: float = 1.0
) -> bool:
    """Bring ``remote`` to ``target``; return False if it was there already with the right content.

    Bytes arrive in ``target.part``, which stays when all attempts fail, so that the next call goes on from it.
    Between attempts it waits ``pause``, 2 ``pause``, 4 ``pause`` … seconds. Raises :class:`DataError` saying what to
    do by hand: if the address cannot be reached or does not have the file, if what came has another checksum, and if
    ``target`` is there with other content.
    """
    if target.exists():
        if target.stat().st_size == remote.bytes and file_sha256(target) == remote.sha256:
            return False
        raise DataError(f"{target} is there with other content than {remote.url}; move it away and fetch again")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    reason = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        resumed = part.exists() and part.stat().st_size > 0
        try:
            _transfer(remote, part, progress)
            _verify(remote, part, resumed)
        except _Broken as error:
            reason = str(error)
            continue
        os.replace(part, target)
        return True
    raise DataError(f"could not download {remote.url} in {attempts} attempts: {reason}. {_by_hand(remote, target)}")


def _transfer(remote: RemoteFile, part: Path, progress: Progress | None) -> None:
    start = part.stat().st_size if part.exists() else 0
    if start >= remote.bytes:
        return
    headers = {"User-Agent": "sdas", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        request = urllib.request.Request(remote.url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            continues = response.status == 206 and _range_start(response.headers.get("Content-Range")) == start
            here = start if continues else 0
            with open(part, "ab" if continues else "wb") as file:
                while here < remote.bytes and (chunk := response.read(CHUNK_BYTES)):
                    file.write(chunk)
                    here += len(chunk)
                    if progress is not None:
                        progress(here, remote.bytes)
                file.flush()
                os.fsync(file.fileno())
    except urllib.error.HTTPError as error:
        if error.code == 416:
            part.unlink(missing_ok=True)
        if error.code == 416 or error.code in RETRIED_STATUS:
            raise _Broken(f"HTTP status {error.code} {error.reason}") from None
        raise DataError(
            f"{remote.url}: HTTP status {error.code} {error.reason}. {_by_hand(remote, part.with_suffix(''))}"
        ) from None
    except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        raise _Broken(str(getattr(error, "reason", error)) or type(error).__name__) from None
    except ValueError as error:
        raise DataError(f"{remote.url} is no address that can be fetched: {error}") from None


def _verify(remote: RemoteFile, part: Path, resumed: bool) -> None:
    size = part.stat().st_size
    if size < remote.bytes:
        raise _Broken(f"the connection ended after {size} of {remote.bytes} bytes")
    found = file_sha256(part)
    if found != remote.sha256:
        part.unlink()
        message = f"{remote.url}: the checksum is {found}, expected {remote.sha256}"
        if resumed:
            raise _Broken(f"{message} after resuming")
        raise DataError(f"{message}; the file at this address is not the published one, and was removed")


def _range_start(content_range: str | None) -> int | None:
    first = (content_range or "").removeprefix("bytes ").partition("-")[0].strip()
    return int(first) if first.isdigit() else None


def _by_hand(remote: RemoteFile, target: Path) -> str:
    return f"Without access from here: download it elsewhere, put it at {target}, and run this again to verify it"
