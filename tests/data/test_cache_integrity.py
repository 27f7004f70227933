"""What a cache gives out is what was put in, all of one generation, or an error that names the file."""

import json
import os
import pickle
import shutil
import sys
import threading
import zlib

import numpy as np
import pytest

from sdas import files
from sdas.data import DataError, FrameCache, cache_files, read_frames, write_cache
from sdas.documents import read_document, write_document

CUBE = 6.0 * np.eye(3)


@pytest.fixture
def frames(water):
    """Of every label, so that every array has content."""
    periodic = np.ones(3, dtype=bool)
    every = {"cell": CUBE, "pbc": periodic, "weight": 0.5, "config_type": "crystal", "charge": -1.0, "spin": 2.0}
    return [water(i, stress=np.eye(3) * i, source=f"file: frame {i}", **every) for i in range(40)]


@pytest.fixture
def path(tmp_path, frames):
    write_cache(frames, tmp_path / "c")
    return tmp_path / "c"


def flip(file, byte):
    content = bytearray(file.read_bytes())
    content[byte] ^= 1
    file.write_bytes(content)


def read_all(path):
    return [pickle.dumps([getattr(frame, name) for name in frame.__slots__]) for frame in FrameCache.open(path)]


@pytest.mark.parametrize("name", sorted(cache_files.COLUMNS | cache_files.OPTIONAL))
@pytest.mark.parametrize("byte", [cache_files.HEADER_BYTES, -1])
def test_a_flipped_bit_is_noticed_when_it_is_read(path, name, byte):
    whole = read_all(path)
    flip(path / f"{name}.npy", byte)
    with pytest.raises(DataError, match=rf"{name}.npy: damaged frame cache: bytes 128 to \d+ are not what was written"):
        read_all(path)
    flip(path / f"{name}.npy", byte)
    assert read_all(path) == whole


def test_only_what_is_read_is_checked_and_only_once(tmp_path, water, monkeypatch):
    many = np.tile(water().positions, (4000, 1))
    big = {"numbers": np.tile([8, 1, 1], 4000), "positions": many, "forces": many}
    write_cache([water(i, **big) for i in range(3)], tmp_path / "c")
    flip(tmp_path / "c" / "forces.npy", -1)
    checked = []
    monkeypatch.setattr(zlib, "crc32", lambda data, real=zlib.crc32: (checked.append(len(data)), real(data))[1])
    cache = FrameCache.open(tmp_path / "c")
    cache[0], cache[1]
    assert 7 * cache_files.BLOCK_BYTES < sum(checked) < (tmp_path / "c" / "forces.npy").stat().st_size * 2
    checked.clear()
    cache[0], cache[1]
    assert checked == []
    with pytest.raises(DataError, match=r"forces\.npy: damaged frame cache: bytes \d+ to 864128 are not"):
        cache[2]


@pytest.mark.parametrize("name", sorted({*cache_files.COLUMNS, "checksums"}))
def test_truncated_missing_and_foreign_files_are_noticed(path, tmp_path, frames, name):
    file = path / f"{name}.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    short = "is damaged" if name == "checksums" else f"has {len(whole) - 1} bytes instead of {len(whole)}"
    with pytest.raises(DataError, match=rf"damaged frame cache: {name}.npy {short}"):
        FrameCache.open(path)
    file.write_bytes(whole.replace(b"'descr'", b"'DESCR'"))
    with pytest.raises(DataError, match=f"{name}.npy (disagrees|is damaged)"):
        FrameCache.open(path)
    write_cache(frames[::-1], tmp_path / "other")
    shutil.copy(tmp_path / "other" / f"{name}.npy", file)
    with pytest.raises(DataError, match=rf"{name}.npy .* of another cache"):
        FrameCache.open(path)
    file.unlink()
    with pytest.raises(DataError, match=rf"{name}.npy is missing"):
        FrameCache.open(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.update(version=99), "version 99, this release reads"),
        (lambda m: m.update(version=1), "damaged or edited"),
        (lambda m: m.update(format="other"), "format 'other'"),
        (lambda m: m.pop("arrays"), "damaged or edited"),
        (lambda m: m["arrays"]["forces"].update(sha256="0" * 64), "damaged or edited"),
        (lambda m: m.update(species=[1]), "damaged or edited"),
        (lambda m: m.update(energy=float("nan")), "NaN is no JSON number"),
    ],
)
def test_a_wrong_manifest_is_noticed(path, change, complaint):
    manifest = json.loads((path / "meta.json").read_text())
    change(manifest)
    (path / "meta.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=complaint):
        FrameCache.open(path)
    for content in (b"{", b"[]", b"\xff"):
        (path / "meta.json").write_bytes(content)
        with pytest.raises(DataError, match=r"meta.json: cannot be read: .*: convert again"):
            FrameCache.open(path)


def test_arrays_that_do_not_fit_together_are_refused(path):
    manifest = read_document(path / "meta.json")
    shape = manifest["arrays"]["forces"]["shape"]
    generation, data = manifest["generation"], (path / "forces.npy").read_bytes()[cache_files.HEADER_BYTES : -24]
    shape[0] -= 1
    (path / "forces.npy").write_bytes(cache_files.npy_header("<f8", tuple(shape), generation) + data)
    manifest["arrays"]["forces"]["bytes"] -= 24
    write_document(path / "meta.json", manifest)
    with pytest.raises(DataError, match="its arrays do not fit together"):
        FrameCache.open(path)


@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_a_cache_that_is_replaced_while_it_is_opened_is_one_of_the_two(path, frames, way, monkeypatch):
    """A replacement at every single moment of opening: before each file that is opened."""
    if way == "two renames":
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    old, new = read_all(path), None
    real, moment, opened = os.open, 0, 0

    def replacing(name, flags, *rest, **options):
        nonlocal opened
        if sys._getframe(1).f_code.co_filename.endswith(("cache_columns.py", "<string>")) and not writing:
            opened += 1
            if opened == moment:
                rewrite(frames[::-1])
        return real(name, flags, *rest, **options)

    def rewrite(content):
        nonlocal writing
        writing = True
        write_cache(content, path, overwrite=True)
        writing = False

    writing = False
    rewrite(frames[::-1])
    new = read_all(path)
    monkeypatch.setattr(os, "open", replacing)
    while opened >= moment:
        moment, opened = moment + 1, 0
        rewrite(frames)
        opened = 0
        assert read_all(path) in (old, new), moment
    assert moment > len(cache_files.COLUMNS)


def test_a_cache_that_is_replaced_all_the_time_is_always_whole(path, frames, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    stop = threading.Event()

    def rewrite():
        while not stop.is_set():
            for content in (frames[::-1], frames):
                write_cache(content, path, overwrite=True)

    whole = {tuple(read_all(path))}
    write_cache(frames[::-1], path, overwrite=True)
    whole.add(tuple(read_all(path)))
    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        assert {tuple(read_all(path)) for _ in range(100)} <= whole
    finally:
        stop.set()
        writer.join()


def test_a_replaced_cache_is_not_taken_for_the_one_that_was_sent(path, frames):
    sent = pickle.dumps(FrameCache.open(path))
    write_cache(frames[::-1], path, overwrite=True)
    with pytest.raises(DataError, match="replaced by a cache of other frames while it was in use"):
        pickle.loads(sent)
    write_cache(frames, path, overwrite=True)
    assert len(pickle.loads(sent)) == len(frames)


def make_version_1(path):
    manifest = {**read_document(path / "meta.json"), "version": 1}
    del manifest["generation"], manifest["checksums"]
    for name, entry in manifest["arrays"].items():
        header = cache_files.npy_header(entry["dtype"], tuple(entry["shape"]))
        file = path / f"{name}.npy"
        file.write_bytes(header + file.read_bytes()[cache_files.HEADER_BYTES :])
    (path / "checksums.npy").unlink()
    (path / "meta.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", sorted(cache_files.COLUMNS | cache_files.OPTIONAL))
def test_a_cache_of_version_1_is_checked_whole_and_told(path, name):
    whole, mark = read_all(path), FrameCache.open(path).fingerprint
    make_version_1(path)
    with pytest.warns(UserWarning, match="a frame cache of version 1, without checksums of blocks"):
        assert read_all(path) == whole
    with pytest.warns(UserWarning, match="version 1"):
        assert write_cache(read_frames(path), path.with_name("d")).fingerprint == mark
    flip(path / f"{name}.npy", -1)
    with (
        pytest.raises(DataError, match=f"the content of {name}.npy changed"),
        pytest.warns(UserWarning, match="version 1"),
    ):
        FrameCache.open(path)
    manifest = json.loads((path / "meta.json").read_text())
    for key in ("species", "arrays", "fingerprint"):
        (path / "meta.json").write_text(json.dumps({**manifest, key: {"forces": 1}}))
        with pytest.raises(DataError, match="is damaged: its fingerprint does not match"):
            FrameCache.open(path)
