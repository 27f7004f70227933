"""The cache gives back what was put in, maps it without copies, and is either whole or not there."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
from multiprocessing import get_context

import numpy as np
import pytest

from sdas.data import DataError, FrameCache, read_frames, write_cache

CUBE = 6.0 * np.eye(3)


@pytest.fixture
def mixed(water):
    """Frames of different sizes, periodicity and labels."""
    periodic = np.ones(3, dtype=bool)
    one = {"numbers": np.array([79]), "positions": np.zeros((1, 3)), "forces": np.zeros((1, 3))}
    return [
        water(0),
        water(1, energy=None),
        water(2, forces=None, cell=CUBE, pbc=periodic, stress=np.eye(3)),
        water(3, **one, source="Löwe 狮: frame 9"),
        water(4, energy=None, forces=None, cell=CUBE, weight=0.25, config_type="liquid Löwe"),
    ]


def test_frames_come_back_bit_for_bit(tmp_path, mixed, same_frame):
    cache = write_cache(iter(mixed), tmp_path / "c")
    assert len(cache) == len(mixed)
    assert cache.species == (1, 8, 79)
    for index, frame in enumerate(mixed):
        same_frame(cache[index], frame)
        assert cache[index].source == cache.source(index) == frame.source
        assert cache.composition(index) == frame.composition
    assert [frame.source for frame in cache] == [frame.source for frame in mixed]
    assert [len(frame) for frame in cache[1:4]] == [3, 3, 1]
    assert cache[-1].source == mixed[-1].source
    assert cache.atom_counts().tolist() == [3, 3, 3, 1, 3]
    assert [cache.config_type(index) for index in range(5)] == [None, None, None, None, "liquid Löwe"]
    assert not cache.has("forces")
    for index in (5, -6):
        with pytest.raises(IndexError, match="of a cache of 5 frames"):
            cache[index]
    cache.verify()


def test_a_cache_holds_no_arrays_of_weights_and_types_that_no_frame_has(tmp_path, water):
    plain, weighted = [water(0), water(1)], [water(0), water(1, weight=2.0)]
    names = {key: set(write_cache(f, tmp_path / key).manifest["arrays"]) for key, f in (("p", plain), ("w", weighted))}
    assert names["w"] - names["p"] == {"weights"}
    assert not names["p"] & {"config_types", "config_type_offsets"}
    assert not (tmp_path / "p" / "weights.npy").exists()
    assert FrameCache.open(tmp_path / "p").fingerprint != FrameCache.open(tmp_path / "w").fingerprint


def test_frames_are_views_of_the_files(tmp_path, water):
    cache = write_cache([water(i) for i in range(4)], tmp_path / "c")
    frame = cache[2]
    for name in ("numbers", "positions", "forces"):
        assert np.shares_memory(getattr(frame, name), getattr(cache[2], name)), name
        assert not getattr(frame, name).flags.writeable
        whole = np.concatenate([getattr(frame, name) for frame in cache])
        np.testing.assert_array_equal(np.load(tmp_path / "c" / f"{name}.npy"), whole)
    assert cache.has("energy")
    assert cache.has("forces")


def test_the_fingerprint_is_of_the_content_alone(tmp_path, water):
    frames = [water(i) for i in range(4)]
    renamed = [water(i, source="elsewhere: frame 1") for i in range(4)]
    changed = [*frames[:3], water(3, energy=1.0)]
    marks = [write_cache(f, tmp_path / name).fingerprint for f, name in ((frames, "a"), (renamed, "b"), (changed, "c"))]
    assert marks[0] == marks[1] != marks[2]


def test_a_cache_travels_to_other_processes_as_its_path(tmp_path, water):
    cache = write_cache([water(i) for i in range(50)], tmp_path / "c")
    assert len(pickle.dumps(cache)) < 1000
    with get_context("spawn").Pool(1) as pool:
        assert pool.map(cache.source, range(50)) == [cache.source(i) for i in range(50)]


def test_a_bad_frame_leaves_nothing_behind(tmp_path, water):
    def frames():
        yield water(0)
        yield water(1, energy=float("nan"))

    with pytest.raises(DataError, match="water: frame 1: energy is nan"):
        write_cache(frames(), tmp_path / "c")
    with pytest.raises(DataError, match="water: frame 0: no stress"):
        write_cache([water(0)], tmp_path / "c", require=("stress",))
    with pytest.raises(DataError, match="no frames"):
        write_cache([], tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_cache_is_replaced_only_on_request_and_only_by_a_whole_one(tmp_path, water):
    path = tmp_path / "c"
    write_cache([water(0)], path)
    with pytest.raises(DataError, match="exists already"):
        write_cache([water(1)], path)
    with pytest.raises(DataError, match="no frames"):
        write_cache([], path, overwrite=True)
    assert FrameCache.open(path)[0].source == "water: frame 0"
    assert write_cache([water(1)], path, overwrite=True)[0].source == "water: frame 1"
    assert [entry.name for entry in tmp_path.iterdir()] == ["c"]
    other = tmp_path / "letters"
    other.mkdir()
    (other / "dear.txt").write_text("do not lose me")
    with pytest.raises(DataError, match="exists already"):
        write_cache([water(0)], other, overwrite=True)
    assert (other / "dear.txt").exists()


def test_a_killed_conversion_leaves_no_cache(tmp_path, water):
    script = textwrap.dedent(
        """
        import sys, numpy as np
        from sdas.data import Frame, write_cache
        def frames():
            for i in range(10**9):
                if i == 3000:
                    print("going", flush=True)
                yield Frame(np.array([8]), np.zeros((1, 3)), None, np.zeros(3, bool), 1.0, np.zeros((1, 3)), None, "x")
        write_cache(frames(), sys.argv[1])
        """
    )
    target = tmp_path / "c"
    child = subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"going\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    left = list(tmp_path.iterdir())
    assert [entry.name.startswith(".c.partial-") for entry in left] == [True]
    for path in (target, left[0]):
        with pytest.raises(DataError, match=r"does not exist|is not a frame cache: it has no meta\.json"):
            FrameCache.open(path)
    write_cache([water(0)], target)
    assert list(tmp_path.iterdir()) == [target]


def test_a_cache_that_a_killed_replacement_moved_aside_is_found(tmp_path, water):
    path, aside = tmp_path / "c", tmp_path / ".c.replaced-0123abcd"
    write_cache([water(0)], path)
    for look in (FrameCache.open, lambda path: list(read_frames(path))):
        os.rename(path, aside)
        look(path)
        assert os.listdir(tmp_path) == ["c"]
    os.rename(path, aside)
    with pytest.raises(DataError, match="exists already"):
        write_cache([water(1)], path)
    assert os.listdir(tmp_path) == ["c"]


def test_a_conversion_under_way_is_left_alone_by_another(tmp_path, water):
    def frames():
        yield water(0)
        assert len(list(tmp_path.iterdir())) == 1
        write_cache([water(1)], tmp_path / "c")
        yield water(2)

    with pytest.raises(DataError, match="exists already"):
        write_cache(frames(), tmp_path / "c")
    assert [frame.source for frame in FrameCache.open(tmp_path / "c")] == ["water: frame 1"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_cache_is_a_source_like_any_other(tmp_path, mixed, same_frame):
    write_cache(mixed, tmp_path / "c")
    for a, b in zip(read_frames(tmp_path / "c", require=()), mixed, strict=True):
        same_frame(a, b)


def test_permissions_follow_the_umask(tmp_path, water):
    before = os.umask(0o027)
    try:
        write_cache([water(0)], tmp_path / "c")
    finally:
        os.umask(before)
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o750
