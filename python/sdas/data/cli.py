"""``sdas data``: fetch, convert, inspect and split data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from sdas.config.reading import flag_of, make_reading_options
from sdas.config.reading_flags import takes_reading_options
from sdas.data import cache_files, splits
from sdas.data.cache import FrameCache, write_cache
from sdas.data.download import Progress
from sdas.data.elements import unknown_elements
from sdas.data.errors import DataError
from sdas.data.frame import LABELS
from sdas.data.isolated_atoms import structures
from sdas.data.readers import detect_format, read_frames
from sdas.data.reading_notes import ReadingNotes, lines_about_reading
from sdas.data.rmd17 import BASE_URL, fetch_rmd17
from sdas.data.statistics import summarize
from sdas.errors import ConfigError, describe

app = typer.Typer(help="Fetch, convert, inspect and split data.", no_args_is_help=True)
fetch_app = typer.Typer(help="Download public data sets.", no_args_is_help=True)
app.add_typer(fetch_app, name="fetch")


class Method(str, Enum):
    """How ``sdas data split`` chooses frames."""

    random = "random"
    composition = "composition"
    indices = "indices"


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn errors about data and files into one line on standard error and exit status 1."""
    try:
        yield
    except (DataError, ConfigError, OSError) as error:
        typer.echo(f"error: {describe(error)}", err=True)
        raise typer.Exit(1) from None


def _labels(text: str) -> tuple[str, ...]:
    labels = tuple(word.strip() for word in text.split(",") if word.strip() not in ("", "none"))
    unknown = [label for label in labels if label not in LABELS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is no label; choose among {', '.join(LABELS)}, or none")
    return labels


def _numbers(text: str, kind: type, name: str) -> list[float]:
    try:
        values = [kind(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3:
        raise typer.BadParameter(f"{name} takes three numbers, train,validation,test; got {text!r}")
    return values


@app.command()
@takes_reading_options
def convert(
    sources: Annotated[list[Path], typer.Argument(metavar="SRC...", help="Files or folders with frames.")],
    to: Annotated[Path, typer.Option(help="The cache to make.")],
    given: dict[str, Any],
    require: Annotated[str, typer.Option(help="Labels that every frame must have, or none.")] = "energy,forces",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a cache that is there already.")] = False,
) -> None:
    """Read SRC..., convert to Å and eV, check every frame, and write one memory-mapped cache."""
    required = _labels(require)
    with _plain_errors():
        options, notes = make_reading_options(given), ReadingNotes()
        streams = [read_frames(source, **options.model_dump(), require=required, notes=notes) for source in sources]
        frames = tqdm(chain.from_iterable(streams), unit=" frames", disable=None, leave=False)
        cache = write_cache(frames, to, require=required, overwrite=overwrite, options=options, notes=notes)
    typer.echo(f"{cache.path}: {len(cache)} frames, {cache.manifest['atoms']} atoms")
    for line in lines_about_reading(cache.reading):
        typer.echo(f"  {line}")


@app.command()
@takes_reading_options
def info(
    path: Annotated[Path, typer.Argument(help="A cache, or anything that can be converted to one.")],
    given: dict[str, Any],
    verify: Annotated[bool, typer.Option("--verify", help="Compare the SHA-256 of a cache too.")] = False,
) -> None:
    """Frames, atoms, elements, and statistics of energies and forces."""
    with _plain_errors():
        options, notes = make_reading_options(given), ReadingNotes()
        format = options.format or (detect_format(path) if path.exists() else None)
        reading = FrameCache.open(path).reading if format == "cache" else {}
        if format == "cache" and (unused := [name for name in given if name != "format"]):
            raise DataError(f"{flag_of(unused[0])} is for raw files; {path} is a cache, made of them once")
        if format == "cache" and verify:
            FrameCache.open(path).verify()
        frames = read_frames(path, **{**options.model_dump(), "format": format}, require=(), notes=notes)
        summary = summarize(tqdm(frames, unit=" frames", disable=None, leave=False))
    typer.echo(f"{path}: {format}")
    for line in (*summary.lines(), *lines_about_reading(reading), *lines_about_reading(notes.document())):
        typer.echo(f"  {line}")


@app.command()
def split(
    cache: Annotated[Path, typer.Argument(help=f"A cache: a folder with {cache_files.MANIFEST}.")],
    to: Annotated[Path | None, typer.Option(help="The JSON file to write; CACHE.split.json unless given.")] = None,
    by: Annotated[Method, typer.Option(help="How frames are chosen.")] = Method.random,
    sizes: Annotated[str | None, typer.Option(help="Frames to train, validate and test on, as 950,50,1000.")] = None,
    fractions: Annotated[str | None, typer.Option(help="The same as fractions, as 0.8,0.1,0.1.")] = None,
    indices: Annotated[Path | None, typer.Option(help="Indices to use: .npz, .json or .csv.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random order.")] = 0,
) -> None:
    """Divide a cache into training, validation and test frames."""
    if (by is Method.indices) != (indices is not None):
        raise typer.BadParameter("--by indices and --indices FILE go together")
    if by is not Method.indices and (sizes is None) == (fractions is None):
        raise typer.BadParameter("give either --sizes or --fractions")
    parts = _numbers(sizes, int, "--sizes") if sizes else None
    shares = _numbers(fractions, float, "--fractions") if fractions else None
    target = to or cache.with_name(f"{cache.resolve().name}.split.json")
    with _plain_errors():
        frames = FrameCache.open(cache)
        splits.check_place(target)
        if indices is not None:
            made = splits.given_split(frames, indices)
        else:
            there = len(structures(frames))
            counts = splits.sizes_from_fractions(there, shares) if shares else [int(part) for part in parts or ()]
            choose = splits.random_split if by is Method.random else splits.composition_split
            made = choose(frames, counts, seed)
        made.save(target)
        unknown = unknown_elements(frames, made.train, {"validation": made.validation, "test": made.test})
    for sentence in unknown:
        typer.echo(f"note: {sentence}; 'sdas train' will refuse this split", err=True)
    typer.echo(f"{target}: " + ", ".join(f"{n} {part}" for n, part in zip(made.sizes(), splits.PARTS, strict=True)))


@fetch_app.callback()
def fetch() -> None:
    """Download public data sets."""


@fetch_app.command()
def rmd17(
    molecule: Annotated[str, typer.Option(help="A molecule, or all.")] = "ethanol",
    to: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("rmd17"),
    split: Annotated[int, typer.Option(min=1, max=5, help="Which of the five published splits.")] = 1,
    url: Annotated[str, typer.Option(help="Folder to download from.")] = BASE_URL,
) -> None:
    """Revised MD17: 1000 training and 1000 test frames per molecule, PBE/def2-SVP, CC0, 0.7 to 1.8 MB a file."""
    bar = tqdm(unit="B", unit_scale=True, disable=None, leave=False)

    def progress(name: str) -> Progress:
        def show(here: int, total: int) -> None:
            bar.set_description(name)
            bar.total = total
            bar.n = here
            bar.refresh()

        return show

    with bar, _plain_errors():
        paths = fetch_rmd17(molecule, to, split=split, base_url=url, progress=progress)
    for path in paths:
        typer.echo(path)
