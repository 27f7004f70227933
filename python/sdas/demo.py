"""`sdas demo`: the whole way from data to dynamics, on the ethanol frames that come with the package.

950 frames train and 50 validate out of rMD17's train_01, all 1000 of test_01 test: the split of published tables.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from sdas.config import Config, load_config, parse_config
from sdas.errors import SdasError
from sdas.files import sweep
from sdas.run.fingerprint import data_fingerprints
from sdas.run.folder import (
    BEFORE_FIRST_CHECKPOINT,
    CHECKPOINTS,
    CONFIG,
    DYNAMICS,
    INTERPRETATION,
    LOCK,
    MODEL,
    SUMMARY,
    VALIDATION,
)
from sdas.run.lock import locked

N_TRAIN, N_VALIDATION = 950, 50
MD_STEPS, MD_TIMESTEP_FS, MD_TEMPERATURE_K = 2000, 0.5, 300.0
TEST_FRAMES_PER_CALL = 50
SECONDS_AROUND, SECONDS_PER_MD_STEP = 30, 0.006
"""For the outlook, on a busy core: what imports, test and report take, and a step of dynamics."""

RUN_CONTENT = {
    *BEFORE_FIRST_CHECKPOINT, CHECKPOINTS, SUMMARY, MODEL, DYNAMICS, INTERPRETATION, VALIDATION, LOCK,
    "evaluation.json", "predictions.npz", "report.html", "report.json",
}  # fmt: skip
"""What training, evaluation, dynamics, interpretation, validation and report write into a run directory."""

RECIPE = {"ema_decay": 0.995, "validate_every": 200, "checkpoint_every": 1000}
PATIENT_RECIPE = {**RECIPE, "learning_rate": 5e-3, "ema_decay": 0.999, "validate_every": 500}
PATIENT_FROM_MINUTES = 3.0
"""From this wall time on a smaller rate and a longer average are worth their slower start. Else the defaults hold."""


def demo(
    minutes: Annotated[float, typer.Option(help="Wall time of the training, minutes.")] = 5.0,
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of weights, of the order of frames, and of velocities.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one.")] = "auto",
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads; a small molecule gives more than one little to do.")
    ] = 1,
    md_steps: Annotated[int, typer.Option(help="Steps of 0.5 fs of the simulation at constant energy.")] = MD_STEPS,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove the run that is there and begin anew.")] = False,
) -> None:
    """Train on the shipped ethanol frames, test, run dynamics, and write a report.

    An interrupted demo goes on where it stopped; a finished one is only evaluated and reported again.
    """
    import torch

    from sdas.data import read_frames, sample
    from sdas.evaluate import evaluate, save_evaluation
    from sdas.md import MDSettings, SDASCalculator, UnstableRunError, simulate
    from sdas.report import write_report
    from sdas.run.model import load_run_model

    train_file, test_file = sample("ethanol")
    config = demo_config(minutes, out, seed, device, threads, train_file)
    torch.set_num_threads(threads)
    if fresh:
        _remove_run(out)
    typer.echo(outlook(minutes, out, md_steps))
    typer.echo(f"1/4 training for {minutes:g} min on {N_TRAIN} frames of ethanol, in {out}")
    summary = _train(config)

    typer.echo("2/4 testing on 1000 frames")
    model = load_run_model(out, summary["machine"]["device"])
    frames = list(read_frames(test_file))
    with locked(out):
        result = evaluate(model, frames, TEST_FRAMES_PER_CALL, progress=True)
        save_evaluation(
            result, out, model=str(out), data=str(test_file), data_fingerprints=data_fingerprints([test_file])
        )

    typer.echo(f"3/4 dynamics at constant energy, {md_steps * MD_TIMESTEP_FS / 1000:g} ps from {MD_TEMPERATURE_K:g} K")
    settings = MDSettings(steps=md_steps, timestep_fs=MD_TIMESTEP_FS, temperature_k=MD_TEMPERATURE_K, seed=seed)
    drift = None
    try:
        start = to_atoms(frames[0])
        drift = simulate(
            start, SDASCalculator(model, device="cpu"), settings, out / DYNAMICS, fresh=True, progress=True
        ).drift
    except UnstableRunError as error:
        typer.echo(f"{error}\nA model needs more training than {minutes:g} min for that; the report goes without.")

    typer.echo("4/4 report")
    command = f"sdas demo --minutes {minutes:g} --out {out} --seed {seed} --threads {threads}"
    page = write_report(out, reproduce=[command])
    numbers = result.metrics
    typer.echo(
        f"\nforce MAE     {numbers['force_mae_mev_per_ang']:.2f} meV/Å\n"
        f"energy MAE    {numbers['energy_mae_mev']:.2f} meV\n"
        f"training      {summary['steps']} steps, {summary['wall_s']:.0f} s, {summary['train_flops']:.3g} FLOPs"
    )
    if drift is not None:
        typer.echo(f"energy drift  {drift.drift_mev_per_atom_per_ps:+.3f} meV/atom/ps")
    typer.echo(f"report        {page}")


def outlook(minutes: float, out: Path, md_steps: int) -> str:
    """What the time ahead holds, for whoever waits."""
    simulated_ps = md_steps * MD_TIMESTEP_FS / 1000
    seconds = max(1, round(md_steps * SECONDS_PER_MD_STEP))
    rest = max(1, round((SECONDS_AROUND + seconds) / 60))
    return (
        f"The way from quantum chemistry to dynamics, in about {minutes + rest:g} minutes:\n"
        f"  1. train     {minutes:g} min, on frames of ethanol labelled by density functional theory (rMD17)\n"
        f"  2. test      seconds, on 1000 frames that the model has not seen\n"
        f"  3. simulate  about {seconds} s, for {simulated_ps:g} ps at constant energy\n"
        f"  4. report    seconds: {out / 'report.html'}\n"
        "Ctrl-C stops it safely; the same command goes on. Training and dynamics that are done are not done again.\n"
    )


def demo_config(minutes: float, out: Path, seed: int, device: str, threads: int, data: Path) -> Config:
    """The training configuration of the demo."""
    recipe = PATIENT_RECIPE if minutes >= PATIENT_FROM_MINUTES else RECIPE
    split = {"method": "random", "sizes": [N_TRAIN, N_VALIDATION, 0], "seed": 0}
    content: dict[str, Any] = {
        "run_dir": str(out),
        "data": {"path": str(data), "split": split},
        "train": {**recipe, "minutes": minutes, "seed": seed, "device": device, "threads": threads},
    }
    return parse_config(content, "sdas demo")


def to_atoms(frame: Any) -> Any:
    """A frame as `ase.Atoms`, without its labels."""
    from ase import Atoms

    return Atoms(numbers=frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)


def _train(config: Config) -> dict[str, Any]:
    """Train, go on with an interrupted run, or find that a run of the same settings has finished."""
    from sdas.train import train

    folder = Path(config.run_dir)
    resume = (folder / CONFIG).is_file()
    if resume and _physics(load_config(folder / CONFIG)) != _physics(config):
        raise SdasError(f"{folder} holds a run with other settings: add --fresh to replace it, or choose another --out")
    result = train(config, resume=resume)
    if result.summary.get("status") != "complete":
        raise SdasError(f"the training was interrupted; the same command goes on from {folder}")
    return result.summary


def _physics(config: Config) -> dict[str, Any]:
    """What makes two runs the same."""
    return {"data": config.data.split, "model": config.model, "train": config.train}


def _remove_run(folder: Path) -> None:
    """Remove a run directory; one with files of somebody else stays, and is an error."""
    from sdas.md.folder import check_folder

    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / CONFIG).is_file():
            raise SdasError(f"{folder} is not a run directory: it is left alone, choose another --out")
        with ExitStack() as locks:
            locks.enter_context(locked(folder))
            sweep(folder)
            foreign = sorted({path.name for path in folder.iterdir()} - RUN_CONTENT)
            if foreign:
                raise SdasError(f"{folder} holds {foreign[0]}, which no run wrote: choose another --out")
            if (folder / DYNAMICS).is_dir():
                locks.enter_context(locked(folder / DYNAMICS))
                check_folder(folder / DYNAMICS, fresh=True)
            shutil.rmtree(folder)
