"""The shipped sample is rMD17's ethanol, bit for bit, and every other name is refused."""

import numpy as np
import pytest

from sdas.data import DataError, read_frames, sample


def test_the_ethanol_sample_reads_as_published():
    for path in sample("ethanol"):
        frames = list(read_frames(path))
        assert len(frames) == 1000
        assert all(frame.composition == ((1, 6), (6, 2), (8, 1)) for frame in frames)
        assert all(np.abs(frame.forces.sum(axis=0)).max() < 1e-5 for frame in frames)
    assert -4211 < frames[0].energy < -4208


def test_the_sample_is_bit_for_bit_the_published_file(real_data):
    for path in sample("ethanol"):
        with np.load(path) as ours, np.load(real_data(f"rmd17/{path.name}")) as published:
            assert set(ours.files) == {"nuclear_charges", "coords", "energies", "forces"}
            for name in ours.files:
                assert ours[name].dtype == published[name].dtype
                assert ours[name].tobytes() == published[name].tobytes()


def test_training_and_test_frames_of_the_sample_differ():
    train, test = ({frame.positions.tobytes() for frame in read_frames(path)} for path in sample("ethanol"))
    assert len(train) == len(test) == 1000
    assert not train & test


def test_an_unknown_sample_is_refused():
    with pytest.raises(DataError, match="no sample 'gold'; there is: ethanol"):
        sample("gold")
