"""Selections are those of their formulas and of another library, and leave near-duplicates out."""

from __future__ import annotations

import numpy as np
import pytest

from sdas.active.select import Frames, lcmd, maxdist, select
from sdas.errors import ActiveError


def frames(features, shapes=None, kinds=None) -> Frames:
    features = np.asarray(features, dtype=float)
    shapes = features if shapes is None else shapes
    return Frames(features, np.zeros(len(features), dtype=np.int64) if kinds is None else np.array(kinds), list(shapes))


NOTHING = frames(np.zeros((0, 2)))


@pytest.mark.parametrize("with_train", [True, False])
@pytest.mark.parametrize(("rule", "name"), [(maxdist, "MaxDist"), (lcmd, "LargestClusterMaxDist")])
def test_distances_choose_as_bmdal_does(rule, name, with_train, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)  # the library is of the days of NumPy 1
    selection = pytest.importorskip("bmdal_reg.bmdal.selection", reason="BMDAL ABSENT: pip install bmdal-reg")
    from bmdal_reg.bmdal.feature_data import TensorFeatureData
    from bmdal_reg.bmdal.feature_maps import IdentityFeatureMap
    from bmdal_reg.bmdal.features import Features

    generator = np.random.default_rng(1)
    pool = generator.normal(size=(60, 4)) * [1, 2, 0.5, 3]
    train = generator.normal(size=(9, 4)) if with_train else np.zeros((0, 4))

    def theirs(values):
        return Features(IdentityFeatureMap(n_features=4), TensorFeatureData(torch.from_numpy(values)))

    method = getattr(selection, f"{name}SelectionMethod")(theirs(pool), theirs(train), sel_with_train=with_train)
    wanted = method.select(20).tolist()
    assert rule(np.zeros(60), pool, train, 20).tolist() == wanted


def test_topk_takes_the_most_uncertain_ones():
    scores = np.array([0.1, 0.9, 0.4, 0.8, 0.9])
    chosen = select("topk", 3, scores, frames(np.eye(5)), frames(np.zeros((0, 5))), threshold=0.1, seed=0).chosen
    assert chosen == [1, 4, 3]


def test_random_follows_its_seed_and_not_the_scores():
    pool, none = frames(np.eye(30)), frames(np.zeros((0, 30)))

    def chosen(seed, scores):
        return select("random", 10, scores, pool, none, threshold=0.0, seed=seed).chosen

    first = chosen(3, np.arange(30.0))
    assert first == chosen(3, -np.arange(30.0)) != chosen(4, np.arange(30.0))
    assert len(set(first)) == 10


@pytest.mark.parametrize("rule", ["topk", "random", "maxdist", "lcmd"])
def test_near_duplicates_are_passed_over(rule):
    """Five places, three frames at each but one, which is labeled: four different ones can be chosen."""
    places = np.repeat(10.0 * np.arange(5)[:, None] * [1, 0], 3, axis=0)
    places[:, 1] += np.tile([0.0, 0.005, 0.01], 5)
    pool, labeled = frames(places), frames([[0.0, 0.0]])
    scores = np.linspace(1, 2, 15)
    found = select(rule, 6, scores, pool, labeled, threshold=0.02, seed=0)
    assert sorted({index // 3 for index in found.chosen}) == [1, 2, 3, 4]
    assert len(found.chosen) == 4
    assert sorted(found.chosen + found.duplicates) == list(range(15))
    assert len(select(rule, 15, scores, pool, labeled, threshold=0.0, seed=0).chosen) == 15


def test_frames_of_another_kind_are_no_duplicates():
    pool = frames([[1.0], [1.0]], kinds=[0, 1])
    found = select("topk", 2, np.array([1.0, 2.0]), pool, frames(np.zeros((0, 1))), threshold=0.5, seed=0)
    assert found.chosen == [1, 0]


def test_what_cannot_be_is_refused():
    with pytest.raises(ActiveError, match="select must be one of topk, random, maxdist, lcmd, got 'best'"):
        select("best", 1, np.ones(1), frames([[0.0, 0.0]]), NOTHING, threshold=0.0, seed=0)
    with pytest.raises(ActiveError, match="frame 1 of the pool is not finite"):
        select("topk", 1, np.array([1.0, np.nan]), frames(np.eye(2)), NOTHING, threshold=0.0, seed=0)
