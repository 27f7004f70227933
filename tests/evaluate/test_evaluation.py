import json

import numpy as np
import pytest
import torch

from sdas.data import DataError, Frame
from sdas.errors import SdasError
from sdas.evaluate import evaluate, load_evaluation, save_evaluation
from sdas.run.fingerprint import data_fingerprints, joined, model_fingerprint


class SumModel(torch.nn.Module):
    """Energy: the sum of the atomic numbers; force on an atom: its position."""

    def __init__(self, species=(1, 8)):
        super().__init__()
        self.species, self.cutoff, self.batches = species, 3.0, []
        self.weight = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        self.modes = []

    def forward(self, graph, forces=True, stress=False):
        self.batches.append(graph.num_systems)
        self.modes.append(self.training)
        energy = torch.zeros(graph.num_systems, dtype=torch.float64)
        energy = energy.index_add(0, graph.system, graph.numbers.double()) * self.weight
        return {"energy": energy, "forces": graph.positions * self.weight, "stress": graph.cells / 100}


def make_frame(numbers, energy_error=0.0, force_error=0.0, source="made: frame 0", **changes):
    numbers = np.array(numbers)
    positions = np.arange(3.0 * len(numbers)).reshape(-1, 3)
    fields = {
        "numbers": numbers,
        "positions": positions,
        "cell": None,
        "pbc": np.zeros(3, dtype=bool),
        "energy": float(numbers.sum()) - energy_error,
        "forces": positions - force_error,
        "stress": None,
        "source": source,
    }
    return Frame(**{**fields, **changes})


FRAMES = [make_frame([8, 1, 1], 0.003, 0.01), make_frame([8], -0.001, -0.02), make_frame([1, 1], 0.002, 0.0)]


def test_subnormal_numbers_are_zeros_to_the_model_meanwhile():
    def computes_with_subnormals():
        return bool((torch.full((1,), 1e-40) * 1).any())

    class Watched(SumModel):
        def forward(self, *given, **options):
            assert not computes_with_subnormals()
            return super().forward(*given, **options)

    evaluate(Watched(), FRAMES)
    assert computes_with_subnormals()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_errors_do_not_depend_on_the_batches(batch_size):
    model = SumModel()
    result = evaluate(model, FRAMES, batch_size)
    assert result.metrics["energy_mae_mev"] == pytest.approx(2.0)
    assert result.metrics["force_mae_mev_per_ang"] == pytest.approx((3 * 10 + 20) / 6)
    assert result.by_element["H"]["force_mae_mev_per_ang"] == pytest.approx(5)
    assert result.by_element["O"]["force_max_mev_per_ang"] == pytest.approx(20)
    assert result.offsets.tolist() == [0, 3, 4, 6]
    assert result.numbers.tolist() == [8, 1, 1, 8, 1, 1]
    np.testing.assert_allclose(result.energies, [10, 8, 2])
    np.testing.assert_allclose(result.forces[3], FRAMES[1].positions[0])
    assert max(model.batches) == min(batch_size, 3)
    assert sum(model.batches) == 3


def test_frames_may_come_as_a_stream():
    assert evaluate(SumModel(), (frame for frame in FRAMES), 2).n_frames == 3


def test_the_model_is_evaluated_in_eval_mode_and_left_as_it_was():
    model = SumModel().train()
    evaluate(model, FRAMES)
    assert model.modes == [False]
    assert model.training


def test_an_unknown_element_names_element_frame_and_species():
    frames = [*FRAMES, make_frame([7, 1, 6], source="new.xyz: frame 41")]
    with pytest.raises(SdasError, match=r"new.xyz: frame 41: the model does not know C, N; it was trained on H, O"):
        evaluate(SumModel(), frames)


def test_a_frame_counts_for_the_labels_that_it_has():
    """Of three frames one has both labels, one an energy, one forces; the errors are those of the labels."""
    frames = [
        make_frame([8, 1, 1], 0.003, 0.01),
        make_frame([1, 1], 0.005, forces=None),
        make_frame([8], force_error=0.03, energy=None),
    ]
    found = evaluate(SumModel(), frames, 2)
    assert found.metrics["energy_frames"] == found.metrics["force_frames"] == 2
    assert found.metrics["energy_mae_mev"] == pytest.approx((3 + 5) / 2)
    assert found.metrics["energy_mae_mev_per_atom"] == pytest.approx((3 / 3 + 5 / 2) / 2)
    assert found.metrics["force_mae_mev_per_ang"] == pytest.approx((3 * 10 + 30) / 4)
    assert found.by_element["H"]["n_atoms"] == 2
    energies_alone = evaluate(SumModel(), [frames[1]]).metrics
    assert energies_alone["force_frames"] == 0
    assert energies_alone["force_mae_mev_per_ang"] is energies_alone["force_cosine"] is None


def test_a_frame_without_any_label_is_an_error():
    with pytest.raises(DataError, match=r"bare.xyz: frame 3: no energy, forces or stress"):
        evaluate(SumModel(), [FRAMES[0], make_frame([8], source="bare.xyz: frame 3", energy=None, forces=None)])


def test_stress_is_compared_where_a_frame_has_one():
    """A molecule, which has no stress, among cells; errors are over all nine components, so a third of 0.009."""
    cell = np.diag([4.0, 5.0, 6.0])
    box = {"cell": cell, "pbc": np.ones(3, dtype=bool)}
    frame = make_frame([8], stress=cell / 100 - 0.009 * np.eye(3), **box)
    frames = [frame, make_frame([8], **box), FRAMES[0], frame]
    found = evaluate(SumModel(), frames)
    assert found.metrics["stress_mae_mev_per_ang3"] == pytest.approx(3)
    assert found.metrics["stress_frames"] == 2
    assert np.isnan(found.reference_stresses[1:3]).all()
    assert "stress_mae_mev_per_ang3" not in evaluate(SumModel(), frames[1:3]).metrics


def test_batches_are_full_where_frames_with_and_without_a_stress_are_mixed():
    """Predictions stand in the order of the frames all the same."""
    box = {"cell": np.diag([4.0, 5.0, 6.0]), "pbc": np.ones(3, dtype=bool)}
    stressed = {**box, "stress": np.zeros((3, 3))}
    frames = [make_frame([8] * (1 + k % 3) + [1] * k, **(stressed if k % 2 else {})) for k in range(12)]
    model = SumModel()
    found = evaluate(model, iter(frames), 3)
    assert model.batches == [3, 3, 3, 3]
    assert found.numbers.tolist() == [number for frame in frames for number in frame.numbers.tolist()]
    np.testing.assert_array_equal(found.energies, [frame.numbers.sum() for frame in frames])
    np.testing.assert_array_equal(found.forces, np.concatenate([frame.positions for frame in frames]))
    np.testing.assert_array_equal(np.isfinite(found.stresses[:, 0, 0]), [k % 2 == 1 for k in range(12)])


def test_errors_of_kinds_and_files():
    """Each row is what an evaluation of its frames alone says."""
    kinds = ["bulk", None, "slab", "bulk"]
    frames = [make_frame([8, 1], 0.01 * k, 0.02 * k, config_type=kind) for k, kind in enumerate(kinds)]
    found = evaluate(SumModel(), frames)
    assert list(found.by_config_type) == ["bulk", "without a name", "slab"]
    for name, chosen in {"bulk": [0, 3], "without a name": [1], "slab": [2]}.items():
        alone = evaluate(SumModel(), [frames[k] for k in chosen])
        row = dict(found.by_config_type[name])
        assert (row.pop("n_frames"), row.pop("n_atoms")) == (alone.n_frames, alone.n_atoms)
        assert row == pytest.approx(alone.metrics)
    assert found.by(["b", "a", "a", "b"])["b"]["energy_max_mev"] == pytest.approx(30)
    assert evaluate(SumModel(), FRAMES).by_config_type == {}


def test_numbers_that_are_not_finite_are_an_error():
    model = SumModel()
    model.weight.data.fill_(float("nan"))
    with pytest.raises(SdasError, match="made: frame 0: the model's energy is not finite"):
        evaluate(model, FRAMES)


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(SdasError, match="no frames"):
        evaluate(SumModel(), [])
    with pytest.raises(SdasError, match="batch size"):
        evaluate(SumModel(), FRAMES, 0)


def test_files_hold_what_was_measured(tmp_path):
    result = evaluate(SumModel(), FRAMES)
    path = save_evaluation(result, tmp_path, data="some.xyz")
    stored = json.loads(path.read_text())
    assert stored["data"] == "some.xyz"
    assert stored["n_frames"] == 3
    assert stored["energy_mae_mev"] == result.metrics["energy_mae_mev"]
    again, facts = load_evaluation(tmp_path)
    assert facts == {"data": "some.xyz", "data_fingerprints": {}}
    assert again.metrics == result.metrics
    assert again.by_element == result.by_element
    assert again.stresses is None
    np.testing.assert_array_equal(again.forces, result.forces)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evaluation.json", "predictions.npz"]


def test_missing_or_mixed_files_are_an_error(tmp_path):
    with pytest.raises(SdasError, match="no evaluation here"):
        load_evaluation(tmp_path)
    save_evaluation(evaluate(SumModel(), FRAMES), tmp_path)
    save_evaluation(evaluate(SumModel(), FRAMES[:1]), tmp_path / "other")
    (tmp_path / "other" / "predictions.npz").replace(tmp_path / "predictions.npz")
    with pytest.raises(SdasError, match="different runs"):
        load_evaluation(tmp_path)
    (tmp_path / "predictions.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(SdasError, match="damaged"):
        load_evaluation(tmp_path)


@pytest.mark.parametrize("name", ["numbers", "forces"])
def test_predictions_that_declare_more_than_they_hold_are_an_error(tmp_path, declare_too_much, name):
    save_evaluation(evaluate(SumModel(), FRAMES), tmp_path)
    declare_too_much(tmp_path / "predictions.npz", name)
    with pytest.raises(SdasError, match=r"damaged evaluation .*is said to take \d+ bytes.*run sdas evaluate again"):
        load_evaluation(tmp_path)


def test_both_files_name_the_model_and_the_data(tmp_path):
    model = SumModel()
    (tmp_path / "some.xyz").write_text("")
    data = data_fingerprints([tmp_path / "some.xyz"])
    result = evaluate(model, FRAMES)
    save_evaluation(result, tmp_path / "out", data_fingerprints=data)
    again, facts = load_evaluation(tmp_path / "out")
    assert again.model_fingerprint == result.model_fingerprint == model_fingerprint(model)
    assert facts["data_fingerprints"] == data
    with np.load(tmp_path / "out" / "predictions.npz") as stored:
        assert stored["model_fingerprint"] == model_fingerprint(model)
        assert stored["data_fingerprint"] == joined(data)


def test_predictions_of_another_model_are_not_taken_for_those_of_the_summary(tmp_path):
    """As a second evaluation leaves them that was killed between its two files."""
    save_evaluation(evaluate(SumModel(), FRAMES), tmp_path)
    other = SumModel()
    other.weight.data += 0.5
    save_evaluation(evaluate(other, FRAMES), tmp_path / "other")
    (tmp_path / "other" / "predictions.npz").replace(tmp_path / "predictions.npz")
    with pytest.raises(SdasError, match="of different runs: run sdas evaluate again"):
        load_evaluation(tmp_path)


@pytest.mark.parametrize("name", ["evaluation.json", "predictions.npz"])
def test_files_of_others_are_not_replaced(tmp_path, name):
    if name == "evaluation.json":
        (tmp_path / name).write_text('{"my": "grades"}')
    else:
        np.savez(tmp_path / name, weather=np.ones(3))
    before = (tmp_path / name).read_bytes()
    with pytest.raises(SdasError, match=f"{name} is not of an evaluation, and would be replaced: choose another"):
        save_evaluation(evaluate(SumModel(), FRAMES), tmp_path)
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["evaluation.json", "predictions.npz"])
def test_damaged_files_of_ours_are_replaced(tmp_path, name):
    for _ in range(2):
        save_evaluation(evaluate(SumModel(), FRAMES), tmp_path)
        load_evaluation(tmp_path)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
