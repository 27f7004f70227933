"""The labelled frames that a model is compared with, read as those were read that trained it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from sdas.config import load_data_config
from sdas.config.reading import ReadingOptions, make_reading_options
from sdas.data import Frame, FrameCache, read_frames
from sdas.data.errors import DataError
from sdas.data.frame import check_labelled
from sdas.data.isolated_atoms import is_isolated
from sdas.data.readers import detect_format
from sdas.data.reading_notes import ReadingNotes, lines_about_reading
from sdas.errors import SdasError
from sdas.run.fingerprint import data_fingerprints
from sdas.run.folder import CONFIG, SPLIT
from sdas.run.frames import open_cache, open_data, required


@dataclass(frozen=True)
class Training:
    """How the frames of a run were read. where: the file that says so, empty if nothing does. labels: label → names
    under which the files hold it. formats: readers of the files, none if not known. suffix: of the first file."""

    options: ReadingOptions = field(default_factory=ReadingOptions)
    where: str = ""
    labels: Mapping[str, Iterable[str]] = field(default_factory=dict)
    formats: Iterable[str] = ()
    suffix: str = ""

    def reading_of(self, path: Path, given: Mapping[str, Any]) -> ReadingOptions:
        """How to read ``path``: likewise, but for what is ``given``.

        The format holds only for files of the same suffix, and units only for files of the same format: another has
        units of its own.
        """
        options = self.options
        if self.suffix and path.suffix != self.suffix:
            options = options.updated({"format": None})
        format = given.get("format") or options.format or _format(path)
        if self.formats and format and format.partition(":")[0] not in self.formats:
            options = options.updated({"units": None})
        return options.updated(given)


@dataclass
class LabelledFrames:
    """frames: a stream, of ``source`` in words. reading: lines that say how raw files are read. notes: the names of
    their labels and the frames left out, complete after the last frame. caches: the same of caches. fingerprints: of
    the files that the frames come from, by path. paths: as they were named; none for the frames of a run. files: of
    each frame that was read, the file that it comes from. isolated_atoms: whether frames of isolated atoms, which tell
    energies of elements and nothing of bonds, are among them. left_out: how many of those were left out."""

    frames: Iterable[Frame]
    source: str
    training: Training = field(default_factory=Training)
    options: ReadingOptions = field(default_factory=ReadingOptions)
    reading: list[str] = field(default_factory=list)
    notes: ReadingNotes = field(default_factory=ReadingNotes)
    caches: list[dict[str, Any]] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)
    paths: Sequence[str] = ()
    files: list[str] = field(default_factory=list)
    isolated_atoms: bool = False
    left_out: int = 0

    def noted(self, frames: Iterable[Frame], file: str = "") -> Iterator[Frame]:
        """``frames``, each noted as one of ``file``, or of the file that it names as its source."""
        for frame in frames:
            if not self.isolated_atoms and is_isolated(frame):
                self.left_out += 1
                continue
            self.files.append(file or frame.source.rpartition(": ")[0])
            yield frame

    def checked(self) -> Iterator[Frame]:
        """The frames; raises :class:`DataError` for one without a label, with the names that were looked for."""
        return (check_labelled(frame, self.options) for frame in self.frames)

    def all_of(self, streams: Iterable[Iterator[Frame]]) -> Iterator[Frame]:
        """The frames of all files; raises :class:`SdasError` if they are isolated atoms alone."""
        yield from chain.from_iterable(streams)
        if self.left_out and not self.files:
            raise SdasError(f"{self.source}: isolated atoms alone, which are compared with --isolated-atoms only")

    def lines(self) -> list[str]:
        """Which labels the model is compared with, how they were read, and where that differs from the training."""
        documents = [self.notes.document(), *self.caches]
        told = [line for document in documents for line in lines_about_reading(document)]
        atoms = f"left out: {self.left_out} isolated atoms; --isolated-atoms compares them too"
        return [*self.reading, *told, *self._differences(), *([atoms] if self.left_out else [])]

    def facts(self) -> dict[str, Any]:
        """The same for a summary in JSON."""
        reading = {"options": self.options.changed(), **self.notes.document()}
        places = {"data_paths": list(self.paths), "data_fingerprints": self.fingerprints}
        return {"reading": reading, "isolated_atoms_left_out": self.left_out, **places}

    def _differences(self) -> list[str]:
        lines = []
        for label, names in self.notes.labels.items():
            learned = list(self.training.labels.get(label, names))
            if set(names) - set(learned):
                lines.append(f"note: {label} was learned from {', '.join(learned)}, and is now {', '.join(names)}")
        return lines


def frames_of_the_run(run: Path) -> LabelledFrames:
    """The test frames of a run; raises :class:`SdasError` if it has none."""
    if not (run / CONFIG).is_file():
        raise SdasError(f"{run} is not a run directory: name files of labelled frames after it")
    cache, split = open_data(load_data_config(run / CONFIG), run)
    if len(split.test) == 0:
        raise SdasError(f"{run}: the run kept no frames for tests: name files of labelled frames after it")
    files = [cache.path, *(path for path in [run / SPLIT] if path.is_file())]
    fingerprints = data_fingerprints(files)
    labelled = LabelledFrames((), f"test frames of {run}", caches=[cache.reading], fingerprints=fingerprints)
    labelled.frames = labelled.noted(cache[int(index)] for index in split.test)
    return labelled


def frames_of_files(
    model: Path, paths: Sequence[str], given: Mapping[str, Any], isolated_atoms: bool = False
) -> LabelledFrames:
    """Frames of files and caches; raw files are read as the run of ``model`` did, but for what is ``given``.

    Frames may have any of the labels; with ``skip: incomplete`` those without an energy or forces are left out.
    """
    training = training_of(model)
    options = training.options.updated(given)
    labelled = LabelledFrames((), ", ".join(paths), training, options, paths=paths, isolated_atoms=isolated_atoms)
    streams = []
    for path in paths:
        options = training.reading_of(Path(path), given)
        frames = read_frames(path, **options.model_dump(), require=required(options), notes=labelled.notes)
        streams.append(labelled.noted(frames, path))
        if _format(Path(path)) == "cache":
            labelled.caches.append(FrameCache.open(path).reading)
        else:
            labelled.reading.append(_how(path, options, given, training))
    labelled.fingerprints = data_fingerprints(paths)
    labelled.frames = labelled.all_of(streams)
    return labelled


def training_of(model: Path) -> Training:
    """How the run of ``model``, a run directory or the model in one, read its files.

    The cache of its frames says it, converted in the run or beforehand; without one, the configuration.
    """
    run = next((folder for folder in (model, model.resolve().parent) if (folder / CONFIG).is_file()), None)
    if run is None:
        return Training()
    config = load_data_config(run / CONFIG)
    try:
        cache = open_cache(config, run)
    except DataError:
        return Training(config.reading(), str(run / CONFIG))
    reading = cache.reading
    options = make_reading_options(reading.get("options", {}))
    suffix = Path(cache.source(0).rpartition(": ")[0]).suffix
    return Training(options, str(cache.path), reading.get("labels", {}), tuple(reading.get("formats", ())), suffix)


def _how(path: str, options: ReadingOptions, given: Mapping[str, Any], training: Training) -> str:
    changed = options.changed()
    told = ", ".join(f"{name} {value}" for name, value in changed.items()) or "no options"
    if not training.where:
        return f"{path}: read with {told}; how the model's own frames were read is not known here"
    inherited = f", as {training.where}" if set(changed) - set(given) else ""
    return f"{path}: read with {told}{inherited}"


def _format(path: Path) -> str | None:
    try:
        return detect_format(path) if path.exists() else None
    except DataError:
        return None
