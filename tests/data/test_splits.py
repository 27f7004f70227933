"""Parts never overlap, seeds repeat, sizes are met, and a split refuses data that it was not made for."""

import json

import numpy as np
import pytest

from sdas.data import DataError, Frame, Split, write_cache
from sdas.data.splits import composition_split, given_split, random_split, sizes_from_fractions


def frame(numbers, index=0):
    n = len(numbers)
    positions = 1.5 * np.arange(n, dtype=float)[:, None] * np.array([[1.0, 0, 0]])
    zeros = np.zeros((n, 3))
    return Frame(
        np.array(numbers), positions, None, np.zeros(3, bool), float(index), zeros, None, f"made: frame {index}"
    )


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    """100 frames of one composition."""
    return write_cache([frame([8, 1, 1], i) for i in range(100)], tmp_path_factory.mktemp("same") / "c")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Compositions of 1, 2, … 12 frames, atoms in varying order, mixed up: 78 frames."""
    frames = [frame([6] + [1] * k if i % 2 else [1] * k + [6], i) for k in range(1, 13) for i in range(k)]
    order = np.random.default_rng(0).permutation(len(frames))
    return write_cache([frames[i] for i in order], tmp_path_factory.mktemp("many") / "c")


def assert_disjoint(split):
    everything = np.concatenate([split.train, split.validation, split.test])
    assert len(np.unique(everything)) == len(everything) == sum(split.sizes())


def test_random_split_has_its_sizes_and_its_seed(same):
    split = random_split(same, (70, 10, 15), seed=3)
    assert split.sizes() == (70, 10, 15)
    assert_disjoint(split)
    again, other = random_split(same, (70, 10, 15), seed=3), random_split(same, (70, 10, 15), seed=4)
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(split, part), getattr(again, part))
    assert not np.array_equal(split.train, other.train)
    assert random_split(same, (100, 0, 0), 0).sizes() == (100, 0, 0)


def test_random_split_trains_on_every_element_that_it_tests(tmp_path):
    """27 elements in three frames each, in 27 of 81 frames two of them: most draws of 30 would lack some."""
    frames = [frame([3 + i % 27, 3 + (i + i // 54) % 27], i) for i in range(81)]
    cache = write_cache(frames, tmp_path / "c")
    for seed in range(10):
        split = random_split(cache, (30, 20, 31), seed)
        assert split.sizes() == (30, 20, 31)
        assert_disjoint(split)
        trained = {z for index in split.train for z in cache[index].numbers.tolist()}
        assert trained == set(range(3, 30))
    drawn = np.random.default_rng(0).permutation(81)[:30]
    assert len(set(random_split(cache, (30, 20, 31), 0).train) - set(drawn.tolist())) < 15  # most are as drawn


def test_random_split_does_what_it_can_for_elements_with_too_few_training_frames(tmp_path):
    cache = write_cache([frame([z, z]) for z in (3, 4, 5, 6)], tmp_path / "c")
    assert random_split(cache, (2, 1, 1), 0).sizes() == (2, 1, 1)


@pytest.mark.parametrize("sizes", [(90, 10, 1), (0, 10, 10), (10, -1, 10), (10, 10)])
def test_impossible_sizes_are_refused(same, sizes):
    with pytest.raises(DataError, match=r"asked for|sizes must be"):
        random_split(same, sizes, 0)


@pytest.mark.parametrize(
    ("count", "fractions", "sizes"),
    [(100, (0.8, 0.1, 0.1), (80, 10, 10)), (7, (0.5, 0.25, 0.25), (3, 2, 2)), (10, (0.3, 0.0, 0.2), (3, 0, 2))],
)
def test_fractions_become_whole_numbers(count, fractions, sizes):
    assert sizes_from_fractions(count, fractions) == sizes


@pytest.mark.parametrize("fractions", [(0.8, 0.2, 0.1), (-0.1, 0.5, 0.5), (0.5, 0.5)])
def test_wrong_fractions_are_refused(fractions):
    with pytest.raises(DataError, match="three numbers"):
        sizes_from_fractions(10, fractions)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sizes", [(58, 10, 10), (62, 8, 8), (40, 19, 19), (70, 8, 0), (76, 1, 1)])
def test_no_composition_is_in_two_parts(many, seed, sizes):
    split = composition_split(many, sizes, seed)
    assert_disjoint(split)
    parts = [{many.composition(i) for i in part} for part in (split.train, split.validation, split.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    for part, size in zip(parts, sizes, strict=True):
        assert bool(part) == (size > 0)
    for got, asked in zip(split.sizes(), sizes, strict=True):
        assert abs(got - asked) <= 6, "further from the size asked for than half the largest composition"


def test_composition_split_repeats_with_its_seed_and_varies_with_it(many):
    splits = [composition_split(many, (40, 19, 19), seed) for seed in (0, 0, 1, 2, 3)]
    np.testing.assert_array_equal(splits[0].test, splits[1].test)
    assert len({tuple(split.test) for split in splits}) > 1


def test_too_few_compositions_are_refused(same, many):
    with pytest.raises(DataError, match=r"1 composition\(s\), too few for 2 parts"):
        composition_split(same, (50, 50, 0), 0)
    assert composition_split(same, (100, 0, 0), 0).sizes() == (100, 0, 0)


def test_as_many_compositions_as_parts_is_enough(tmp_path):
    cache = write_cache([frame([6] * 3), frame([6, 6]), frame([6, 6]), frame([8, 8])], tmp_path / "c")
    assert sorted(composition_split(cache, (2, 1, 1), 0).sizes()) == [1, 1, 2]


def save(path, parts):
    if path.suffix == ".npz":
        np.savez(path, **{name: np.array(values) for name, values in parts.items()})
    elif path.suffix == ".json":
        path.write_text(json.dumps(parts))
    else:
        path.write_text("index,part\n" + "".join(f"{i},{name}\n" for name, values in parts.items() for i in values))
    return path


@pytest.mark.parametrize("suffix", [".npz", ".json", ".csv"])
def test_given_indices_are_taken_and_checked(tmp_path, same, suffix):
    split = given_split(same, save(tmp_path / f"a{suffix}", {"train": [5, 3], "val": [9], "test": [99, 0]}))
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([3, 5], [9], [0, 99])
    for parts, complaint in (
        ({"train": [1, 100]}, r"train index 100 is outside 0\.\.99"),
        ({"train": [1, -1]}, "train index -1 is outside"),
        ({"train": [1, 2, 1]}, "train index 1 appears more than once"),
        ({"train": [1, 2], "test": [2]}, "test index 2 is in an earlier part"),
        ({"test": [1]}, "no 'train' indices"),
    ):
        with pytest.raises(DataError, match=complaint):
            given_split(same, save(tmp_path / f"b{suffix}", parts))


def test_files_that_hold_no_indices_are_refused(tmp_path, same):
    for name, content, complaint in (
        ("a.csv", "index,part\nthree,train\n", "line 2 is not index,part"),
        ("a.json", "[1,", "cannot be read: damaged JSON"),
        ("b.json", '{"train": [0.5]}', "must be integers"),
        ("a.npz", "x", "not a complete .npz file"),
        ("a.txt", "1", "not .txt"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=complaint):
            given_split(same, tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        given_split(same, tmp_path / "nothing.csv")


def test_a_saved_split_belongs_to_its_data(tmp_path, same, many):
    split = random_split(same, (70, 10, 20), seed=3)
    split.save(tmp_path / "folder" / "s.json")
    loaded = Split.load(tmp_path / "folder" / "s.json", same)
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(split, part), getattr(loaded, part))
    assert loaded.method == "random, seed 3, sizes [70, 10, 20]"
    with pytest.raises(DataError, match="made for other data"):
        Split.load(tmp_path / "folder" / "s.json", many)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match="not a split"):
        Split.load(tmp_path / "x.json", same)
