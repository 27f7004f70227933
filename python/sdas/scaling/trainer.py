"""Where an adaptive run trains: sessions in its folder and in those of its trials, and how they grow."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sdas.config import Config
from sdas.errors import ScalingError
from sdas.files import new_folder, write_text
from sdas.run.folder import CHECKPOINTS, METRICS
from sdas.scaling.pool import Pool
from sdas.scaling.rules import Rules, Sizes
from sdas.scaling.settings import starting_sizes
from sdas.train.processes import Processes
from sdas.train.schedule import Ramp
from sdas.train.session import Session
from sdas.train.until import Until
from sdas_kernels.nn import SDAS, grow


class Interrupted(Exception):
    """A signal asked the run to stop; its state is saved."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


@dataclass(frozen=True)
class Place:
    """A folder with a state that is trained, and the sizes that it has there.

    origin: the folder with the state that it begins from. since: FLOPs of its model and those before it when it grew.
    """

    folder: Path
    sizes: Sizes
    since: int = 0
    origin: Path | None = None


class Trainer:
    """Trains at one place at a time. A state that is on disk at a place is gone on with, so acts can be done again."""

    def __init__(self, config: Config, rules: Rules, pool: Pool, processes: Processes) -> None:
        self.config, self.rules, self.pool, self.processes = config, rules, pool, processes
        self.folder, self.start = Path(config.run_dir), starting_sizes(config, pool)
        self._opened: Session | None = None

    def close(self) -> None:
        """Close the session that is open."""
        if self._opened is not None:
            self._opened.__exit__(None, None, None)
            self._opened = None

    def train(self, place: Place, target: float, ramp: Ramp | None) -> dict[str, Any]:
        """Train what is at a place until that many FLOPs, validate and save it.

        Raises :class:`Interrupted` if a signal asked to stop.
        """
        session = self.session(place)
        if ramp is not None:
            session.ramp = ramp
        whole = session.advance(Until(flops=target))
        if whole:
            session.validate()
            session.save()
        if session.interrupted is not None:
            raise Interrupted(session.interrupted)
        progress = session.progress
        error = progress.last["force_mae_mev_per_ang"] / 1000
        outcome = {"step": progress.step, "flops": progress.flops, "error": error, "folder": self.name(place)}
        return outcome | {"parameters": sum(weight.numel() for weight in session.model.parameters())}

    def error(self, place: Place) -> float:
        """The force error of what is at a place, in eV/Å."""
        errors = self.session(place).errors()
        assert errors is not None
        return errors["force_mae_mev_per_ang"] / 1000

    def frame_errors(self, place: Place) -> list[float]:
        """What each validation frame with forces adds to the error of what is at a place, in eV/Å, summed over
        components."""
        return self.session(place).frame_errors().tolist()

    def take(self, place: Place) -> dict[str, Any]:
        """Put the state at a place, that of a trial, in place of the run's."""
        self.close()
        if self.processes.first:
            copy_state(place.folder, self.folder)
        self.processes.wait()
        return {"folder": self.name(place)}

    def session(self, place: Place) -> Session:
        """The session at a place, opened where it is not, with the sizes that it has to have there."""
        if self._opened is None or self._opened.folder != place.folder:
            self.close()
            if place.origin is not None and self.processes.first and not (place.folder / CHECKPOINTS).exists():
                copy_state(place.origin, place.folder)
            self.processes.wait()
            config = self.config.model_copy(update={"run_dir": str(place.folder)})
            self._opened = Session(config, self.pool.data(self.start.frames), self.processes).__enter__()
            self._opened.end = Until(flops=config.scaling.flops)
        session = self._opened
        if sizes_of(session) != place.sizes:
            self._grow(session, place)
        return session

    def _grow(self, session: Session, place: Place) -> None:
        """Give the session the sizes of a place; the rate starts from zero where the model changes."""
        flops, sizes = session.progress.flops, place.sizes
        if flops != place.since:
            raise ScalingError(
                f"{place.folder}: its state is of {flops} FLOPs where the ledger says {place.since}: files were moved "
                "or lost; start another run"
            )
        to = {name: size for name, size in asdict(sizes).items() if name != "frames"}
        if self.rules.reset_optimizer or any(size != session.changes.model[name] for name, size in to.items()):
            model, averaged = (self._grown(each, to) for each in (session.model, session.averaged))
            session.use_model(model, averaged, "new" if self.rules.reset_optimizer else "kept")
            session.ramp = Ramp(flops, flops + self.config.scaling.warmup * self.rules.delta_flops, 0.0, 1.0)
        if sizes.frames != len(session.data.train):
            session.use_data(self.pool.data(sizes.frames))

    def _grown(self, model: nn.Module, to: dict[str, int]) -> SDAS:
        assert isinstance(model, SDAS)
        return grow(model, **to, seed=self.config.train.seed)

    def name(self, place: Place) -> str:
        """The folder of a place in that of the run."""
        return place.folder.relative_to(self.folder).as_posix()


def copy_state(origin: Path, folder: Path) -> None:
    """Put the training states and metrics.csv of one folder into another, the states at once or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    if (origin / METRICS).exists():
        write_text(folder / METRICS, (origin / METRICS).read_text(encoding="utf-8"))
    with new_folder(folder / CHECKPOINTS) as partial:
        shutil.copytree(origin / CHECKPOINTS, partial, dirs_exist_ok=True)


def sizes_of(session: Session) -> Sizes:
    """The sizes of the model and of the data of a session."""
    shape = session.changes.model
    return Sizes(shape["channels"], shape["heads"], shape["layers"], shape["lmax"], len(session.data.train))
