"""Files and folders that appear whole or not at all, and what killed processes leave of them.

    write_text(folder / "summary.json", text)
    with new_folder("frames.cache") as folder:      # replaces a folder of that name when the block ends
        (folder / "meta.json").write_text(text)

Everything is written under the name ``.NAME.partial-…`` beside its place, forced to disk, and then given its name. A
folder that has the name already is exchanged in one step where the file system can (``renameat2``); elsewhere it is
called ``.NAME.replaced-…`` for the moment between two renames, and :func:`recover` finds it there if the process is
killed in that moment. The writer holds a lock on what it writes. A crash frees the lock, so that :func:`sweep` can tell
what a dead process left from what a live one is writing.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>partial|replaced)-[0-9a-f]{8}", re.DOTALL)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)

StrPath = str | os.PathLike[str]


def write_atomically(path: StrPath, write: Callable[[IO[bytes]], Any]) -> None:
    """Call ``write`` with a binary file that becomes ``path`` once it is complete and on disk.

    A symbolic link is followed. Raises OSError, and whatever ``write`` raises; the file that was there is unchanged.
    """
    target = Path(os.path.realpath(path))
    sweep(target.parent, target.name)
    with errors_naming(target):
        partial, descriptor = _claim(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                file.flush()
                os.fsync(descriptor)
                os.replace(partial, target)
            _sync_folder(target.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_text(path: StrPath, text: str) -> None:
    """Replace a text file, in UTF-8, at once or not at all. Names of files that are not UTF-8 keep their bytes."""
    content = text.encode("utf-8", "surrogateescape")
    write_atomically(path, lambda file: file.write(content))


def as_argument(path: StrPath) -> str:
    """The path as it is typed in a shell, in a command that a message advises."""
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def file_sha256(path: StrPath) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def new_folder(path: StrPath) -> Iterator[Path]:
    """A new folder to write to, which becomes ``path`` when the block ends, in place of a folder that is there.

    Its files are forced to disk first. If the block raises nothing changes. A symbolic link is followed.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    recover(target)
    sweep(target.parent, target.name)
    with errors_naming(target):
        partial, descriptor = _claim(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield partial
            _sync_content(partial)
            _put_in_place(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(descriptor)


def recover(path: StrPath) -> None:
    """Put back the folder ``path`` if a replacement of it was killed between its two renames.

    Where a live process is between them, waits for it. Raises OSError if the folder cannot be given its name again.
    """
    target = Path(os.path.realpath(path))
    if target.exists():
        return
    for aside in _leftovers(target.parent, target.name, "replaced"):
        with suppress(FileNotFoundError), _opened(aside) as descriptor:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not target.exists():
                os.rename(aside, target)


def sweep(folder: StrPath, name: str | None = None) -> None:
    """Remove what dead processes left of unfinished files and folders in ``folder``: all, or those called ``name``."""
    for path in [*_leftovers(Path(folder), name, "replaced"), *_leftovers(Path(folder), name, "partial")]:
        found = _LEFTOVER.fullmatch(path.name)
        assert found is not None
        if found["kind"] == "replaced":
            recover(path.with_name(found["name"]))
        with suppress(OSError), _opened(path) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


@contextmanager
def errors_naming(target: Path) -> Iterator[None]:
    """Within, an OSError that names no file, or an unfinished one, names ``target``."""
    try:
        yield
    except OSError as error:
        if error.filename is None or _LEFTOVER.fullmatch(os.path.basename(os.fsdecode(error.filename))):
            error.filename = os.fspath(target)
        raise


def _leftovers(folder: Path, name: str | None, kind: str) -> list[Path]:
    try:
        present = os.listdir(folder)
    except OSError:
        return []
    matches = [found for found in map(_LEFTOVER.fullmatch, present) if found is not None and found["kind"] == kind]
    return [folder / found.string for found in matches if name in (None, found["name"])]


def _claim(target: Path, flags: int) -> tuple[Path, int]:
    """A new name beside ``target``, and a descriptor of the new file or folder there that holds its lock."""
    while True:
        partial = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
        if flags & os.O_DIRECTORY:
            os.mkdir(partial)
        try:
            descriptor = os.open(partial, flags, 0o666)
        except FileNotFoundError:
            if not target.parent.is_dir():
                raise
            continue  # swept before it was locked: take another name
        with suppress(OSError):  # a file system without locks: then nothing is swept there either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if partial.exists():
            return partial, descriptor
        os.close(descriptor)


def _put_in_place(partial: Path, target: Path) -> None:
    """Give ``partial`` the name ``target``. A folder that has it ends under another name, or is removed."""
    if not target.is_dir():
        os.rename(partial, target)
    elif not _exchange(partial, target):
        _replace_by_two_renames(partial, target)
    _sync_folder(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _replace_by_two_renames(partial: Path, target: Path) -> None:
    aside = target.with_name(f".{target.name}.replaced-{secrets.token_hex(4)}")
    with _opened(target) as descriptor:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(target, aside)
        try:
            os.rename(partial, target)
        except OSError:
            os.rename(aside, target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync_content(folder: Path) -> None:
    """Force the files in ``folder``, and the folder itself, to disk."""
    for entry in sorted(os.listdir(folder)):
        with _opened(folder / entry) as descriptor:
            os.fsync(descriptor)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Force the entries of ``folder`` to disk, where the file system can."""
    with _opened(folder) as descriptor:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
