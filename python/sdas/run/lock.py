"""One writer at a time in a run folder.

The lock is an `flock` on a file in the folder, so the system frees it when its process ends, in whatever way. The file
says who holds it. It is removed with the lock; one that a killed process left behind holds nobody up.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from sdas.errors import SdasError
from sdas.run.folder import LOCK

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


class FolderInUseError(SdasError):
    """Another process writes to the folder."""


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of `folder` until the block ends. A folder that is not there is made.

    A file system that knows no locks gets a warning: then nobody else is held off.

    Raises:
        FolderInUseError: another process holds it; the message says which, where, and since when.
        SdasError: the folder cannot be written to.
    """
    place = Path(folder)
    made = not place.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = _acquire(place)
    except OSError as error:
        raise SdasError(f"{place}: cannot be written to: {error.strerror}") from None
    try:
        with lock:
            yield
    finally:
        if made:
            with suppress(OSError):  # it holds files now
                place.rmdir()


def _acquire(place: Path) -> ExitStack:
    """The lock of `place`, held until the stack is closed."""
    while True:
        with ExitStack() as held:
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            held.callback(os.close, directory)
            descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666, dir_fd=directory)
            held.callback(os.close, descriptor)
            _lock(descriptor, place)
            if _is_still_there(descriptor, place):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(_ourselves()).encode(), 0)
                held.callback(_remove, directory)
                return held.pop_all()


def _is_still_there(descriptor: int, place: Path) -> bool:
    """Whether the file has not been removed, nor the folder replaced, between opening and locking."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(place / LOCK))
    except FileNotFoundError:
        return False


def _remove(directory: int) -> None:
    with suppress(OSError):  # with its folder, perhaps
        os.unlink(LOCK, dir_fd=directory)


def _lock(descriptor: int, place: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FolderInUseError(
            f"{place} is in use by {_owner(descriptor)}: wait until it ends, or choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"{place}: its file system has no locks ({error.strerror}); see to it that no other command writes there",
            stacklevel=6,
        )


def _ourselves() -> dict[str, str | int]:
    command = shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]) if sys.argv else ""
    since = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {"pid": os.getpid(), "host": socket.gethostname(), "command": command[:200], "since": since}


def _owner(descriptor: int) -> str:
    """Who holds the lock, in words; the file is empty for a moment after it was made."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {owner['pid']} on {owner['host']} ({owner['command']}) since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
