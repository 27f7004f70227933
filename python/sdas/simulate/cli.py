"""`sdas data simulate`: frames of a molecule by an inexpensive engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from sdas.errors import SimulationError


def simulate(
    out: Annotated[Path, typer.Option(help="The extended XYZ file to write.")],
    smiles: Annotated[str | None, typer.Option(help="A molecule, as CCO.")] = None,
    sequence: Annotated[str | None, typer.Option(help="A capped peptide, as ACE-ALA-NME.")] = None,
    start: Annotated[Path | None, typer.Option(help="A file with structures of one molecule.")] = None,
    engine: Annotated[str, typer.Option(help="mmff, uff, openmm, tblite or model:RUN.")] = "mmff",
    sampling: Annotated[str, typer.Option(help="dynamics, modes or torsions.")] = "dynamics",
    frames: Annotated[int, typer.Option(help="Frames to make.")] = 1000,
    temperature: Annotated[float, typer.Option(help="Temperature, K.")] = 300.0,
    conformers: Annotated[int, typer.Option(help="Most conformers to start from.")] = 4,
    interval: Annotated[float, typer.Option(help="Time between frames of a trajectory, fs.")] = 100.0,
    equilibration: Annotated[float, typer.Option(help="Time before the first frame, fs.")] = 1000.0,
    timestep: Annotated[float, typer.Option(help="Time step, fs.")] = 0.5,
    friction: Annotated[float, typer.Option(help="Friction of the thermostat, 1/ps.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of embedding, velocities and all else that is random.")] = 0,
    labels: Annotated[bool, typer.Option("--labels", help="Write the engine's energies and forces too.")] = False,
) -> None:
    """Simulate a molecule given by --smiles, --sequence or --start, and write frames without labels.

    Frames in which atoms overlap or bonds are torn are dropped and counted. An interrupted command goes on when it is
    given again.
    """
    from sdas.config.simulate import parse_simulation
    from sdas.data import read_frames
    from sdas.data.writing import check_place, write_frames
    from sdas.simulate.molecule import from_frames, from_sequence, from_smiles
    from sdas.simulate.pool import simulate_pool

    config = parse_simulation(
        engine=engine, sampling=sampling, frames=frames, temperature_k=temperature, conformers=conformers,
        interval_fs=interval, equilibration_fs=equilibration, timestep_fs=timestep, friction_per_ps=friction, seed=seed,
    )  # fmt: skip
    if [smiles, sequence, start].count(None) != 2:
        raise SimulationError("give one of --smiles, --sequence and --start")
    check_place(out, "engine", start)
    if smiles is not None:
        molecule = from_smiles(smiles, conformers, seed)
    elif sequence is not None:
        molecule = from_sequence(sequence, conformers, seed)
    else:
        assert start is not None
        molecule = from_frames(list(read_frames(start, require=())))
    kept = out.with_name(f"{out.name}.made.json")
    for remark in molecule.remarks:
        typer.echo(f"note: {remark}", err=True)
    with tqdm(total=frames, desc="simulate", unit="frame", disable=None) as bar:
        pool = simulate_pool(molecule, config, labels=labels, progress=bar.update, keep=kept)
    write_frames(out, pool.frames)
    kept.unlink(missing_ok=True)
    told = ", ".join(f"{count} {reason}" for reason, count in pool.dropped.items()) or "none"
    used = min(conformers, len(molecule.conformers))
    typer.echo(f"{len(pool.frames)} frames of {len(molecule.numbers)} atoms from {used} conformers; dropped: {told}")
    typer.echo(f"written to {out}")
