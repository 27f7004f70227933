"""The numbers of a report are those of the model that lies in the run; what is of another is left out, and said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from typer.testing import CliRunner

from sdas.cli import app
from sdas.data import Frame, write_cache
from sdas.documents import read_document, write_document
from sdas.md import Replicas
from sdas.md.faults import Limits
from sdas.md.replica_run import run_replicas
from sdas.report import read_run, write_report
from sdas.run.checkpoint import read_model_document, save_model
from sdas.run.fingerprint import data_fingerprints, model_fingerprint

ERRORS = ("energy_mae_mev", "energy_rmse_mev", "force_mae_mev_per_ang", "force_rmse_mev_per_ang", "apr", "n_test")
DRIFT = ("md_drift_mev_per_atom_per_ps", "md_fluctuation_mev_per_atom")


def reported(run_dir: Path) -> dict:
    write_report(run_dir)
    return json.loads((run_dir / "report.json").read_text())


def edit(path: Path, **changes: object) -> None:
    """Replace keys of a sealed document; None removes one."""
    content = {**read_document(path), **changes}
    write_document(path, {key: value for key, value in content.items() if value is not None})


def edit_plain(path: Path, remove: list[str]) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in remove}))


@pytest.fixture
def retrained(run_dir, model):
    """The run after its training went on: another model, which took more FLOPs."""
    before = model_fingerprint(model)
    with torch.no_grad():
        model.embedding.weight += 0.1
    summary = {**read_document(run_dir / "summary.json"), "steps": 600, "train_flops": 8e12}
    save_model(run_dir / "model", model, {"training": summary})
    write_document(run_dir / "summary.json", summary)
    return before, model_fingerprint(model)


def test_where_all_agrees_nothing_is_noted(run_dir, model):
    numbers = reported(run_dir)
    assert numbers["notes"] == []
    assert numbers["model_fingerprint"] == model_fingerprint(model)
    assert all(numbers[name] is not None for name in (*ERRORS, *DRIFT))
    assert 'class="stale"' not in (run_dir / "report.html").read_text()


def test_errors_and_drift_of_another_model_are_left_out_and_both_models_named(run_dir, retrained):
    before, now = retrained
    numbers = reported(run_dir)
    assert all(numbers[name] is None for name in (*ERRORS, *DRIFT))
    assert (numbers["model_fingerprint"], numbers["train_flops"], numbers["steps"]) == (now, 8e12, 600)
    evaluation, dynamics = numbers["notes"]
    both = f"is of another model ({before[:12]}…) than the run's ({now[:12]}…), and left out: run sdas"
    assert evaluation.startswith(f"The evaluation {both} evaluate")
    assert dynamics.startswith(f"The run of dynamics {both} md")
    page = (run_dir / "report.html").read_text()
    assert page.count('class="stale"') == 2
    assert page.count("<svg") == 3, "only those of the training"
    for words in ("Accuracy on the test frames", "Molecular dynamics", "meV/atom/ps"):
        assert words not in page


def test_the_command_says_what_it_left_out(run_dir, retrained):
    result = CliRunner().invoke(app, ["report", str(run_dir)])
    assert result.exit_code == 0
    assert result.stderr.count("note: ") == 2
    assert "left out" in result.stderr


def test_results_that_do_not_name_their_model_are_shown_and_doubted(run_dir):
    of_this_version = ["model_fingerprint", "predictions_sha256", "data_fingerprints", "checksum"]
    edit_plain(run_dir / "evaluation.json", of_this_version)
    edit_plain(run_dir / "md" / "md.json", ["model"])
    numbers = reported(run_dir)
    assert all(numbers[name] is not None for name in (*ERRORS, *DRIFT))
    assert len(numbers["notes"]) == 2
    assert all("earlier version, which did not note the model" in note for note in numbers["notes"])


def test_a_run_without_a_model_has_nothing_to_compare_with(run_dir):
    for path in (run_dir / "model").iterdir():
        path.unlink()
    (run_dir / "model").rmdir()
    numbers = reported(run_dir)
    assert numbers["model_fingerprint"] is None
    assert numbers["force_mae_mev_per_ang"] == pytest.approx(25)
    assert all("the run has none to compare with" in note for note in numbers["notes"])


def test_an_evaluation_of_data_that_changed_is_left_out(run_dir, tmp_path):
    data = tmp_path / "water.xyz"
    data.write_text("made up")
    edit(run_dir / "evaluation.json", data_fingerprints=data_fingerprints([data]), data_paths=["a b.xyz"])
    assert reported(run_dir)["notes"] == []
    data.write_text("made down")
    numbers = reported(run_dir)
    assert all(numbers[name] is None for name in ERRORS)
    assert all(numbers[name] is not None for name in DRIFT)
    assert numbers["notes"] == [
        f"{data} changed since the evaluation was made of it, which is left out: run sdas evaluate '{run_dir}' "
        "'a b.xyz' again."
    ]
    data.unlink()
    assert reported(run_dir)["notes"] == [], "what is not there cannot be compared"


def test_a_cache_that_was_damaged_since_is_not_the_one_that_was_used(run_dir, tmp_path):
    frame = Frame(np.array([1]), np.zeros((1, 3)), None, np.zeros(3, bool), 1.0, np.zeros((1, 3)), None, "made")
    write_cache([frame], tmp_path / "cache")
    edit(run_dir / "evaluation.json", data_fingerprints=data_fingerprints([tmp_path / "cache"]))
    assert reported(run_dir)["notes"] == []
    (tmp_path / "cache" / "energies.npy").write_bytes(b"")
    assert "cache changed since" in reported(run_dir)["notes"][0]


def test_numbers_are_of_the_training_that_made_the_model(run_dir):
    """A training that went on and was stopped has spent more than the model cost."""
    edit(run_dir / "summary.json", status="interrupted", steps=450, train_flops=9e13, wall_s=4000.0)
    header, *rows = (run_dir / "metrics.csv").read_text().splitlines()
    more = [row.replace(row.split(",")[0], "450", 1) for row in rows[-1:]]
    (run_dir / "metrics.csv").write_text("\n".join([header, *rows, *more]) + "\n")
    numbers = reported(run_dir)
    assert (numbers["steps"], numbers["train_flops"], numbers["wall_s"]) == (300, 4e12, 299.6)
    assert numbers["apr"] == pytest.approx(1 / 0.025 / 4e12)
    assert numbers["notes"][0].startswith("The model is that of step 300. The training went on to step 450")
    assert read_run(run_dir).training.metrics["step"].max() == 300
    assert read_model_document(run_dir / "model")["extra"]["training"]["steps"] == 300


def test_dynamics_that_are_being_lengthened_are_shown_up_to_their_last_end(run_dir):
    with open(run_dir / "md" / "log.csv", "a") as file:
        file.write("2000,20000,-10,1,-8,900\n")
    log = read_run(run_dir).dynamics.log
    assert log["step"].max() == 100


def replicas_of(run_dir, model):
    atoms = Atoms("OHH", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    replicas = Replicas(model, [atoms] * 2, "langevin", timestep_fs=0.1, limits=Limits(hottest_k=1e9))
    run_replicas(replicas, 4, run_dir / "replicas", every=1)


def test_replicas_of_the_model_are_on_the_page_and_others_are_left_out(run_dir, model, make_model):
    replicas_of(run_dir, model)
    numbers = reported(run_dir)
    assert (numbers["replicas"], numbers["replicas_ended"], numbers["replicas_stable_fs"]) == (2, 0, 0.4)
    text = (run_dir / "report.html").read_text()
    assert "2 replicas, 4 steps of 0.1 fs, Langevin(friction_per_ps=2.0). 0 ended before" in text
    shutil.rmtree(run_dir / "replicas")
    replicas_of(run_dir, make_model(channels=4, heads=4, lmax=1, layers=2))
    numbers = reported(run_dir)
    assert numbers["replicas"] is None
    assert numbers["notes"][0].startswith("The run of replicas is of another model")


def test_diffusion_and_free_energy_of_the_model_are_on_the_page_and_others_are_left_out(run_dir, model):
    constant = {
        "element": "Li", "diffusion_ang2_per_ps": 0.137, "interval_95_ang2_per_ps": [0.11, 0.16], "atoms": 27,
        "replicas": 2, "length_fs": 5e4, "lags_fs": [1000.0, 2000.0], "msd_ang2": [1.0, 1.8], "start_fs": 1000.0,
        "intercept_ang2": 0.2,
    }  # fmt: skip
    error = {"element": "Li", "error": 0.08, "interval": [0.01, 0.2], "signed": 0.08, "overlap": True}
    of_model = {"model": model_fingerprint(model), "notes": ["seen"]}
    diffusion = {"constants": [constant], "errors": [error], "finite_size_correction_ang2_per_ps": None, **of_model}
    curve = {
        "variables": ["dihedral:0,1,2,8"], "units": ["°"], "centers": [[-90.0, 0.0, 90.0]],
        "free_energy_kt": [0.0, 1.5, None], "standard_error_kt": [0.1, 0.1, None], "bins_not_visited": 1,
        "increments_kt": [1e-4, 2e-4], "run": {"steps": 1000, "temperature_k": 300.0},
        "sampling_error": {"mean_kt": 0.21, "largest_kt": 0.4, "noise_kt": None, "bins": 2}, **of_model,
    }  # fmt: skip
    for name, document in (("diffusion", diffusion), ("free_energy", curve)):
        (run_dir / name).mkdir()
        write_document(run_dir / name / f"{name}.json", document)
    numbers = reported(run_dir)
    assert (numbers["diffusion_ang2_per_ps"], numbers["sampling_error_kt"]) == ({"Li": 0.137}, 0.21)
    text = (run_dir / "report.html").read_text()
    for shown in ("<td>0.137</td><td>0.11</td><td>0.16</td>", "Li is 8 % off the reference", "1 bins are empty",
                  "Sampling error 0.21 k_B T", "Free energy along the variable"):  # fmt: skip
        assert shown in text
    reweighting = {
        "reference": "tblite:GFN2-xTB", "overlap": "partial", "free_energy_kt": [0.1, 1.4, None],
        "difference_kt": [0.1, -0.1, None], "difference_error_kt": [0.02, 0.02, None],
        "difference_interval_95_kt": [[0.06, -0.14, None], [0.14, -0.06, None]], "frames": [20, 20, 2],
        "effective_frames": [18.2, 17.5, 1.1], "fewest_effective_frames": 10,
    }  # fmt: skip
    reweighted = {**curve, "reweighting": reweighting, "cost": {"single_energies": 42}}
    write_document(run_dir / "free_energy" / "free_energy.json", reweighted)
    reported(run_dir)
    text = (run_dir / "report.html").read_text()
    for shown in ("By 42 frames that tblite:GFN2-xTB labels; overlap: partial", "less that of the model",
                  "how many they are worth"):  # fmt: skip
        assert shown in text
    write_document(run_dir / "diffusion" / "diffusion.json", {**diffusion, "model": "0" * 64})
    numbers = reported(run_dir)
    assert numbers["diffusion_ang2_per_ps"] == {}
    assert numbers["notes"][0].startswith("The diffusion constant is of another model")
