"""`sdas free-energy`: free energies along collective variables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdas.errors import ConfigError, SdasError
from sdas.run.folder import FREE_ENERGY

if TYPE_CHECKING:
    from sdas.free_energy.landscape import Landscape
    from sdas.free_energy.run import FreeEnergy
    from sdas.free_energy.single_points import SinglePoints
    from sdas.free_energy.variables import Axis


def free_energy(
    model: Annotated[
        str, typer.Argument(help="Run directory or model directory; or an oracle of 'sdas label', as tblite:GFN2-xTB.")
    ],
    structure: Annotated[Path, typer.Option(help="Start: any file that ASE or 'sdas data' reads.")],
    cv: Annotated[
        list[str],
        typer.Option(
            help="distance:I,J, difference:I,J,K, angle:I,J,K, dihedral:I,J,K,L or coordination:I,J,…@RADIUS; one or "
            "two."
        ),
    ],
    range_: Annotated[
        list[str] | None,
        typer.Option("--range", metavar="LOW:HIGH", help="Of each variable, Å or degrees; a dihedral's is all of it."),
    ] = None,
    bins: Annotated[list[int] | None, typer.Option(help="Of each variable; 36 by default.")] = None,
    temperature: Annotated[float, typer.Option(help="K.")] = 300.0,
    steps: Annotated[int, typer.Option(help="Number of steps, those of an interrupted run included.")] = 100_000,
    timestep: Annotated[float, typer.Option(help="fs.")] = 0.5,
    replicas: Annotated[int, typer.Option(help="That run at once; error bars are over groups of them.")] = 4,
    walkers: Annotated[int, typer.Option(help="Replicas of a group, which share a bias.")] = 1,
    increment: Annotated[float, typer.Option(help="First rise of the bias per visit, k_B T.")] = 0.05,
    every: Annotated[int, typer.Option(help="Steps between visits.")] = 10,
    friction: Annotated[float, typer.Option(help="Of Langevin's thermostat, 1/ps.")] = 10.0,
    reference: Annotated[
        str | None,
        typer.Option(
            help="To give the sampling error: an oracle that labels frames of the model, or the results of its own run."
        ),
    ] = None,
    labels: Annotated[int, typer.Option(help="Frames of each bin that the reference labels.")] = 50,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Of the reference, as dispersion=d4.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Frames that the reference labels at a time.")] = 1,
    seed: Annotated[int, typer.Option(help="Of velocities and thermostat.")] = 0,
    frame: Annotated[int, typer.Option(help="Which frame of the structure file; negative counts from the end.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="Of a model's arithmetic: float64 or float32.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default free_energy in the run's.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew instead of resuming.")] = False,
) -> None:
    """Free energies by Wang–Landau dynamics; an interrupted run is resumed.

    A bias grows where replicas have been until they go everywhere alike. Writes free_energy.json and free_energy.svg.
    """
    from sdas.free_energy.landscape import DOCUMENT
    from sdas.free_energy.oracle import OracleForces
    from sdas.free_energy.run import Sampling
    from sdas.free_energy.run import free_energy as sample
    from sdas.md.structure import read_structure
    from sdas.run.model import results_folder

    sampling = Sampling(
        temperature, steps, timestep, replicas, walkers, increment, every, friction_per_ps=friction, seed=seed
    )
    axes = _axes(cv, range_ or [], bins or [])
    is_model = Path(model).exists()
    if not is_model:
        _check_oracle(model, f"{model}: there is no such run directory")
    if not is_model and (out is None or dtype is not None):
        raise SdasError("with an oracle, name a folder with --out, and leave --dtype out")
    folder = out or results_folder(model) / FREE_ENERGY
    atoms = read_structure(structure, frame)
    if reference is not None and Path(reference).resolve() in (folder.resolve(), (folder / DOCUMENT).resolve()):
        raise SdasError(f"--reference {reference}: is where this run writes: it would be compared with itself")
    known = None if reference is None else _reference(reference, labels, settings or [], workers)
    forces: Any = model if is_model else OracleForces(model)
    options = {"dtype": dtype or "float64"} if is_model else {}
    found = sample(forces, atoms, axes, sampling, folder, reference=known, fresh=fresh, progress=True, **options)
    _tell(found)
    typer.echo(f"written to {folder}")


def _reference(name: str, labels: int, settings: Sequence[str], workers: int) -> Landscape | SinglePoints:
    """Free energies that were written, or an oracle; raises SdasError for neither."""
    from sdas.config.label import parse_resources
    from sdas.free_energy.landscape import Landscape
    from sdas.free_energy.single_points import SinglePoints
    from sdas.label.cli import read_settings

    if Path(name).exists():
        return Landscape.read(name)
    _check_oracle(name, f"--reference {name}: there are no such results")
    return SinglePoints(name, labels, read_settings(settings), parse_resources(workers=workers))


def _check_oracle(name: str, otherwise: str) -> None:
    """Raise SdasError, with what it is not either, for a word that names no oracle."""
    from sdas.config.label import parse_oracle

    try:
        parse_oracle(name)
    except ConfigError as error:
        raise SdasError(f"{otherwise}, and {error}") from None


def _axes(names: Sequence[str], ranges: Sequence[str], bins: Sequence[int]) -> list[Axis]:
    """Raises SdasError where a range is missing or cannot be read."""
    from sdas.free_energy.variables import Axis, parse_variable

    if len(names) > 2:
        raise SdasError(f"a landscape has one or two variables, got {len(names)}")
    if len(ranges) > len(names) or len(bins) > len(names):
        raise SdasError("there are more ranges or bins than variables")
    axes = []
    for number, name in enumerate(names):
        variable = parse_variable(name)
        if number < len(ranges):
            try:
                low, high = (float(part) for part in ranges[number].split(":"))
            except ValueError:
                raise SdasError(f"--range is written LOW:HIGH, as in -180:180, got {ranges[number]!r}") from None
        elif variable.period is not None:
            low, high = -variable.period / 2, variable.period / 2
        else:
            raise SdasError(f"{name} needs a range: --range LOW:HIGH, in {variable.unit or 'no unit'}, for each")
        axes.append(Axis(variable, low, high, bins[number] if number < len(bins) else 36))
    return axes


def _tell(found: FreeEnergy) -> None:
    from sdas.free_energy.landscape import lowest

    landscape = found.landscape
    highest = float(landscape.mean[landscape.known].max())
    typer.echo(f"free energies from 0 to {highest:.2f} k_B T, in {int(landscape.known.sum())} bins")
    for place in lowest(landscape):
        typer.echo(f"  minimum at {', '.join(f'{value:.4g}' for value in place)}")
    if landscape.error is not None:
        typer.echo(f"  standard error {float(landscape.error[landscape.known].mean()):.2g} k_B T on average")
    flat = ", ".join(f"{value:.0%}" for value in found.flatness)
    typer.echo(f"  least visited bin over the mean: {flat}; a visit adds {max(found.increments):.1e} k_B T")
    if found.error is not None:
        noise = "" if found.error.noise_kt is None else f", of which noise explains {found.error.noise_kt:.2g}"
        typer.echo(
            f"sampling error {found.error.mean_kt:.2g} k_B T on average{noise}; {found.error.largest_kt:.2g} at most"
        )
    if found.reweighting is not None:
        effective = found.reweighting.effective[found.reweighting.known]
        worth = f"; those of a bin are worth {effective.min():.0f} at least, where known" if effective.size else ""
        typer.echo(
            f"  by {found.cost['single_energies']} frames that the reference labels in "
            f"{found.cost['single_energies_s']:.3g} s{worth}; overlap: {found.reweighting.overlap(landscape)}"
        )
    for note in found.notes:
        typer.secho(f"note: {note}", err=True)
