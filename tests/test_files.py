"""What is written is the old or the new, whole, wherever the writer dies; and what the dead leave is swept."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sdas import files

TEXT = "text.json"


def write_folder(folder: Path, content: str) -> None:
    with files.new_folder(folder) as partial:
        for name in ("a", "b"):
            (partial / name).write_text(content)


def folder_content(folder: Path) -> set[str]:
    return {(folder / name).read_text() for name in ("a", "b")}


def die_at(line: int, act) -> int:
    """Run ``act`` in a process that dies before its ``line``-th line in files.py; its exit status, 0 if it lived."""
    child = os.fork()
    if child == 0:
        count = 0

        def local(frame, event, argument):
            nonlocal count
            count += event == "line"
            if count == line:
                os._exit(9)
            return local

        sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename == files.__file__ else None)
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(params=["exchange", "two renames"])
def way(request, monkeypatch):
    """The way a folder is replaced: one step, or what file systems without it are left with."""
    if request.param == "two renames":
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    return request.param


@pytest.fixture
def quick(monkeypatch):
    """No waiting for the disk: the death of a process loses nothing that it wrote."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.usefixtures("way", "quick")
def test_a_folder_is_the_old_or_the_new_wherever_the_writer_dies(tmp_path):
    target, seen, line = tmp_path / "c", set(), 0
    write_folder(target, "old")
    while True:
        line += 1
        status = die_at(line, lambda: write_folder(target, "new"))
        files.recover(target)
        content = folder_content(target)
        assert content in ({"old"}, {"new"}), line
        seen |= content
        if status == 0:
            break
        write_folder(target, "old")
        assert os.listdir(tmp_path) == ["c"], line
    assert content == {"new"}
    assert seen == {"old", "new"}
    assert line > 40


@pytest.mark.usefixtures("quick")
def test_a_file_is_the_old_or_the_new_wherever_the_writer_dies(tmp_path):
    target, line = tmp_path / TEXT, 0
    files.write_text(target, "old")
    while True:
        line += 1
        status = die_at(line, lambda: files.write_text(target, "new"))
        assert target.read_text() in ("old", "new"), line
        if status == 0:
            break
        files.write_text(target, "old")
        assert os.listdir(tmp_path) == [TEXT], line
    assert target.read_text() == "new"
    assert line > 15


@pytest.mark.usefixtures("way")
def test_a_failed_replacement_leaves_the_old_folder(tmp_path, monkeypatch):
    target = tmp_path / "c"
    write_folder(target, "old")
    with pytest.raises(TypeError):
        write_folder(target, None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="No space left"):
            write_folder(target, "new")
    assert folder_content(target) == {"old"}
    assert os.listdir(tmp_path) == ["c"]


def test_a_second_rename_that_fails_is_rolled_back(tmp_path, monkeypatch):
    target, real = tmp_path / "c", os.rename
    write_folder(target, "old")

    def failing(source, destination):
        if ".partial-" in str(source):
            refuse()
        real(source, destination)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="No space left"):
        write_folder(target, "new")
    assert folder_content(target) == {"old"}
    assert os.listdir(tmp_path) == ["c"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / TEXT
    files.write_text(target, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(target, "\ud800")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == [TEXT]


def refuse(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


LIVE = """
import sys
from sdas import files
def write(file):
    print("writing", flush=True)
    sys.stdin.readline()
    file.write(b"mine")
with files.new_folder(sys.argv[1] + "/c") as partial:
    files.write_atomically(sys.argv[1] + "/t", write)
    (partial / "a").write_text("mine")
"""


def test_what_a_live_process_is_writing_stays(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LIVE, str(tmp_path)], text=True, **pipes) as child:
        assert child.stdout.readline() == "writing\n"
        under_way = sorted(os.listdir(tmp_path))
        assert [name.partition(".partial-")[0] for name in under_way] == [".c", ".t"]
        files.sweep(tmp_path)
        write_folder(tmp_path / "c", "other")
        files.write_text(tmp_path / "t", "other")
        assert sorted(os.listdir(tmp_path)) == [*under_way, "c", "t"]
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.wait() == 0
    assert sorted(os.listdir(tmp_path)) == ["c", "t"]
    assert (tmp_path / "t").read_text() == (tmp_path / "c" / "a").read_text() == "mine"


def test_only_leftovers_are_swept(tmp_path):
    others = [".c.partial-12345678x", "c.partial-12345678", ".partial-12345678", ".d.partial-12345678", ".c.partial-"]
    for name in others:
        (tmp_path / name).write_text("keep")
    (tmp_path / ".c.partial-0123abcd").mkdir()
    (tmp_path / ".c\n*.partial-0123abcd").write_text("")
    files.sweep(tmp_path, "c")
    files.sweep(tmp_path, "c\n*")
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    files.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(set(others) - {".d.partial-12345678"})
    files.sweep(tmp_path / "absent")


def test_names_links_and_permissions_are_kept(tmp_path):
    for name in ("a b #2", "-x", "ü: '\"\n*[", os.fsdecode(b"\xff")):
        write_folder(tmp_path / name, "x")
        write_folder(tmp_path / name, "y")
        assert folder_content(tmp_path / name) == {"y"}
        files.write_text(tmp_path / name / TEXT, "z")
    (tmp_path / "link").symlink_to("-x")
    (tmp_path / "text").symlink_to(f"-x/{TEXT}")
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "text", "through")
        write_folder(tmp_path / "link", "through")
        files.write_text(tmp_path / "plain", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "text").is_symlink()
    assert folder_content(tmp_path / "-x") == {"through"}
    assert stat.S_IMODE((tmp_path / "-x").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == 0o640
    with pytest.raises(NotADirectoryError):
        write_folder(tmp_path / "plain", "x")
    assert (tmp_path / "plain").read_text() == "x"


@pytest.mark.parametrize("name", ["b #2", "-x", "a;b", "$HOME", "'\"\n", "plain/path", os.fsdecode(b"\xff")])
def test_a_path_in_an_advised_command_is_the_path(name):
    command = ["sh", "-c", f"printf %s {files.as_argument(name)}"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    assert os.path.normpath(os.fsdecode(shown)) == name


def test_an_error_without_a_file_or_of_an_unfinished_one_names_the_file_that_was_meant(tmp_path):
    def fill_the_disk(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as caught:
        files.write_atomically(tmp_path / "a.json", fill_the_disk)
    assert caught.value.filename == str(tmp_path / "a.json")
    with pytest.raises(OSError, match="No space left") as caught, files.new_folder(tmp_path / "a.cache") as partial:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial))
    assert caught.value.filename == str(tmp_path / "a.cache")
    with pytest.raises(OSError, match="No such file") as caught:
        files.write_atomically(tmp_path / "none" / "a.json", fill_the_disk)
    assert caught.value.filename == str(tmp_path / "none" / "a.json")
