"""A run folder has one writer at a time, and a crash frees it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

from sdas.errors import SdasError
from sdas.run.folder import LOCK
from sdas.run.lock import FolderInUseError, locked

HOLDER = """
import sys, time
from sdas.run.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path / "run"."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_told_who_holds_the_folder(holder, tmp_path):
    with pytest.raises(FolderInUseError) as caught, locked(tmp_path / "run"):
        pass
    words = rf"{re.escape(str(tmp_path / 'run'))} is in use by process {holder.pid} on {socket.gethostname()} "
    assert re.match(words + r"\(.*\) since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC: wait", str(caught.value))
    assert str(tmp_path / "run") in str(caught.value).partition("(")[2]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_end_of_the_process_frees_the_folder(holder, tmp_path, end):
    holder.send_signal(end)
    holder.wait()
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).is_file()


def test_nothing_is_left_of_a_lock(tmp_path):
    with locked(tmp_path / "new"):
        pass
    assert os.listdir(tmp_path) == []
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "file").write_text("kept")
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "run"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path / "run") == ["file"]


def test_one_process_does_not_get_a_lock_twice(tmp_path):
    with locked(tmp_path), pytest.raises(FolderInUseError, match=f"process {os.getpid()}"), locked(tmp_path):
        pass


def test_a_folder_that_takes_the_place_of_a_locked_one_stays_locked(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_text("kept")
    with locked(tmp_path / "run"), locked(tmp_path / "new"):
        os.rename(tmp_path / "run", tmp_path / "old")
        os.rename(tmp_path / "new", tmp_path / "run")
        with pytest.raises(FolderInUseError), locked(tmp_path / "run"):
            pass
        shutil.rmtree(tmp_path / "old")
    assert os.listdir(tmp_path / "run") == ["file"]


def test_only_one_of_many_at_a_time(tmp_path):
    """Locks are taken and removed in quick turn, so files vanish between being opened and being locked."""
    inside, most = [], []

    def take():
        for _ in range(200):
            try:
                with locked(tmp_path / "run"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except FolderInUseError:
                pass

    (tmp_path / "run").mkdir()
    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert os.listdir(tmp_path / "run") == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    words = f"{re.escape(str(tmp_path))}: cannot be written to: Read-only file system"
    with pytest.raises(SdasError, match=words), locked(tmp_path):
        pass


def test_a_file_in_its_place_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(SdasError, match="run: cannot be written to: File exists"), locked(tmp_path / "run"):
        pass


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match=r"its file system has no locks \(No locks available\)"), locked(tmp_path):
        pass


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(SdasError, match="cannot be written to"), locked(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "kept"
