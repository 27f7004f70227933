"""A document comes back as it was written, or is refused with its file and the reason."""

from __future__ import annotations

import json
import math
from contextlib import suppress

import pytest

from sdas.documents import read_document, read_json, write_document
from sdas.errors import CheckpointError, SdasError

CONTENT = {"a": 1, "b": [0.1, None, True, "ü\n"], "c": {"d": 1e-300, "5": 2**70}, "t": (1, 2), 3: "x"}


def test_what_is_written_comes_back(tmp_path):
    path = tmp_path / "x.json"
    write_document(path, CONTENT)
    assert read_document(path) == {**{str(key): value for key, value in CONTENT.items()}, "t": [1, 2]}
    write_document(path, read_document(path))
    assert read_document(path)["c"] == CONTENT["c"]
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    read_document(path)


def test_every_changed_character_is_noticed_or_means_the_same(tmp_path):
    path = tmp_path / "x.json"
    write_document(path, {"cutoff": 5.25, "names": ["O", "H"], "deep": {"n": 17}})
    content, text = read_document(path), path.read_text()
    for index in range(len(text)):
        for new in '0x" ,':
            path.write_text(text[:index] + new + text[index + 1 :])
            with suppress(SdasError):
                assert read_document(path) == content, (index, new)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "damaged JSON"),
        (b"", "damaged JSON"),
        (b"\xff\xfe", "damaged JSON"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "-Infinity is no JSON number"),
        (b"[" * 100_000, "damaged JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "damaged JSON"),
        (b"[1, 2]", "holds a list, not an object"),
        (b'{"a": 1}', "has no checksum: written by an earlier version, or edited: write it again"),
        (b'{"a": 1, "checksum": "0"}', "damaged or edited"),
        (b'{"a": 1, "checksum": {}}', "damaged or edited"),
    ],
)
def test_what_is_broken_is_refused_with_the_file_and_the_reason(tmp_path, content, reason):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_document(path, CheckpointError, "write it again")
    assert str(caught.value).startswith(str(path))


def test_missing_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(SdasError, match=r"x.json does not exist: make it"):
        read_json(tmp_path / "x.json", advice="make it")
    with pytest.raises(SdasError, match="cannot be read: Is a directory"):
        read_json(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_cannot_hold_are_not_written(tmp_path, value):
    path = tmp_path / "x.json"
    write_document(path, {"a": 1})
    with pytest.raises(SdasError, match=r"x.json: b\.c\[1\] is -?(nan|inf)"):
        write_document(path, {"b": {"c": [0.0, value]}})
    assert read_document(path) == {"a": 1}
