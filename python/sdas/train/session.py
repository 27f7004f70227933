"""A training run that can be advanced, looked at, changed, saved and gone on with.

    with Session(config, data, processes) as session:       # from the last checkpoint in run_dir, if there is one
        session.advance(Until(steps=500))
        session.use_model(wider)                             # what a policy may change between two advances
        session.use_data(more)
        session.learning_rate = 1e-3
        session.advance(Until(flops=3e12))
        session.validate()
        session.save()

The loss stands in :mod:`sdas.train.loss`. A checkpoint holds everything that a later session
needs: it goes on with the model, the data and the rate that the saved one had, to the same bits.
"""

from __future__ import annotations

import copy
import math
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

import sdas_kernels.nn
from sdas.config import Config
from sdas.data import Frame, FrameCache
from sdas.data.graphs import knows_states
from sdas.errors import CheckpointError, TrainingError
from sdas.run.checkpoint import load_training_state, save_training_state
from sdas.run.folder import CHECKPOINTS
from sdas.train.changes import Changes, check_beginning
from sdas.train.display import Display
from sdas.train.feed import Feed, order_of
from sdas.train.flop_model import FlopModels
from sdas.train.graphs import GraphStore
from sdas.train.inner_cutoffs import cover
from sdas.train.interruption import Interruption
from sdas.train.lone_atoms import lone_atoms_of
from sdas.train.loss import Loss, Terms
from sdas.train.objective import DTYPES, build_model, force_errors, trained_labels, validate
from sdas.train.optimizers import make_optimizer, set_rate
from sdas.train.processes import Processes
from sdas.train.rows import Rows
from sdas.train.schedule import Ramp, ema_decay, learning_rate
from sdas.train.state import Progress, capture, restore
from sdas.train.torch_settings import torch_settings
from sdas.train.until import Until
from sdas_kernels.flops import FlopCounter
from sdas_kernels.graph import NeighborGraph

FRAMES_NAMED = 8
"""Of a batch, in the message about a loss that is not finite."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Labeled frames, and the indices [n] of those that train and of those that validate."""

    frames: Sequence[Frame]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]


class Session:
    """One run of training, in this process and in those that torchrun started beside it. A context manager.

    `model` is trained. `averaged` is the moving average of its weights, which is validated and shipped. `progress`
    counts steps, seconds and FLOPs since the start. `interrupted` is the signal that asked it to stop, or None.

    Raises:
        TrainingError, ConfigError: settings, model or data that cannot be used.
        CheckpointError: the last checkpoint in `config.run_dir` is of another model, or its data are not there.
    """

    def __init__(self, config: Config, data: TrainingData, processes: Processes) -> None:
        settings = config.train
        if settings.batch_size is not None and settings.batch_size < processes.size:
            raise TrainingError(f"train.batch_size {settings.batch_size} is less than the {processes.size} processes")
        self.config, self.processes, self.folder = config, processes, Path(config.run_dir)
        self.progress, self.end = Progress(), Until.of(settings)
        self.interrupted: int | None = None
        self._data, self._inside = data, ExitStack()
        self._feed: Feed | None = None

    def __enter__(self) -> Session:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as inside:
            inside.enter_context(torch_settings(self.config.train))
            self._interruption = inside.enter_context(Interruption())
            saved = load_training_state(self.folder / CHECKPOINTS)
            if saved is None:
                model, reference = build_model(self.config, self._data.frames, self._data.train)
                for line in reference.lines() if self.processes.first else ():
                    print(line, file=sys.stderr)
                self.changes = Changes(
                    model=_shape(model),
                    unit=reference.unit,
                    learning_rate=None,
                    data=_cache_path(self._data),
                    energy_unit=reference.energy_unit,
                    energy_reference=reference.document(),
                )
                self._take_up(model)
                cover((self.model, self.averaged), self._data.frames, self._data.train.tolist())
            else:
                check_beginning(self.config, saved.document)
                self.changes = Changes.saved(saved.document["changes"])
                self._take_up(sdas_kernels.nn.SDAS(**self.changes.model).to(DTYPES[self.config.train.dtype]))
                self.progress = restore(saved, self.flop_models, self.model, self.averaged, self.optimizer)
                self._data = self._saved_data(saved.tensors)
            self._arrange()
            self._own_flops = self.progress.flops if self.processes.first else 0
            rows = (self.folder, self.progress.step, self.config.train.tensorboard)
            self._rows = Rows(*rows) if self.processes.first else None
            self._saved_s = self.progress.wall_s
            if saved is None:
                self.save()
            self._inside = inside.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_feed()
        if self._rows is not None:
            self._rows.close()
        self._inside.close()

    @property
    def data(self) -> TrainingData:
        """The frames in use."""
        return self._data

    @property
    def learning_rate(self) -> float:
        """The largest rate; warm-up and schedule multiply it, and rates of other weights keep their ratio to it."""
        changed = self.changes.learning_rate
        return self.config.train.learning_rate if changed is None else changed

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if not (math.isfinite(rate) and rate > 0):
            raise TrainingError(f"the learning rate must be positive, got {rate}")
        self.changes.learning_rate = float(rate)

    @property
    def ramp(self) -> Ramp | None:
        """What multiplies the rate besides, from one number of FLOPs to another: a warm-up or a decay."""
        return self.changes.ramp

    @ramp.setter
    def ramp(self, ramp: Ramp | None) -> None:
        self.changes.ramp = ramp

    def advance(self, until: Until) -> bool:
        """Train until that point of the run; False if a signal asked to stop before, with the state saved.

        Rows of metrics.csv and checkpoints are written on the way, as often as the configuration says.
        """
        settings, progress = self.config.train, self.progress
        self._start = time.monotonic() - progress.wall_s
        display = Display(until, progress, visible=self.processes.first)
        try:
            while not until.reached(progress):
                self._step(counts_all=until.flops is not None or self.ramp is not None)
                display.step(progress)
                if progress.step % settings.validate_every == 0:
                    self.validate()
                late = progress.wall_s - self._saved_s >= 60 * settings.checkpoint_minutes
                if progress.step % settings.checkpoint_every == 0 or late or self.interrupted:
                    self.save()
                if self.interrupted:
                    return until.reached(progress)
        finally:
            display.close()
        return True

    def validate(self) -> dict[str, Any]:
        """Errors of the averaged weights on the validation frames, and the step; empty without such frames.

        Ends a row of metrics.csv, unless one ended at this step.
        """
        progress = self.progress
        if progress.steps_since_row:
            self._count_all_flops()
            epoch = self._order.epoch(progress.step - self.changes.data_since)
            row = progress.end_row(epoch, self.errors())
            if self._rows is not None:
                self._rows.write(row)
        return progress.last

    def errors(self) -> dict[str, float] | None:
        """Errors of the averaged weights on the validation frames, as they are now; nothing is written."""
        self._settle()
        return validate(self.averaged, *self._validation)

    def frame_errors(self) -> NDArray[np.float64]:
        """Absolute force errors as they are now, eV/Å, a sum over components for each validation frame with forces."""
        return force_errors(self.averaged, *self._validation)

    def save(self) -> None:
        """Write a checkpoint; of the older ones the last is kept."""
        self._saved_s = self.progress.wall_s
        self._settle()
        self._count_all_flops()
        if not self.processes.first:
            return
        state = capture(self.progress, self.flop_models, self.model, self.averaged, self.optimizer)
        state.document["changes"] = asdict(self.changes)
        state.document["began_as"] = self.config.model.model_dump()
        state.document["optimizer"] = self.config.train.optimizer
        state.tensors["data.train"] = torch.as_tensor(self._data.train)
        state.tensors["data.validation"] = torch.as_tensor(self._data.validation)
        save_training_state(self.folder / CHECKPOINTS, state)

    def use_model(self, model: nn.Module, averaged: nn.Module | None = None, moments: str = "new") -> None:
        """Go on with another SDAS model; `averaged`, a copy of it unless given, is what its average starts from.

        moments: "new" starts the optimizer afresh; "kept" keeps the moments of weights whose name and shape stay.

        Raises:
            TrainingError: the model has other species, another cutoff or dtype, or another `charge_spin`.
        """
        self._check_model(model)
        if moments not in ("new", "kept"):
            raise TrainingError(f'moments must be "new" or "kept", got {moments!r}')
        weights, optimizer = dict(self.model.named_parameters()), self.optimizer
        self.changes.model = _shape(model)
        self._take_up(model, averaged)
        if moments == "kept":
            self._keep_moments(weights, optimizer)
        cover((self.model, self.averaged), self._data.frames, self._data.train.tolist())
        self._arrange()

    def use_data(self, data: TrainingData) -> None:
        """Go on with other frames. The unit of the loss and the energies per species stay as they are.

        Inner cutoffs become shorter where these frames have closer atoms, and never longer.
        """
        if len(data.train) == 0:
            raise TrainingError("no frames to train on")
        self._data = data
        self.changes.data, self.changes.data_since = _cache_path(data), self.progress.step
        cover((self.model, self.averaged), self._data.frames, self._data.train.tolist())
        self._arrange()

    def _step(self, counts_all: bool) -> None:
        settings, processes, progress = self.config.train, self.processes, self.progress
        step, began = progress.step, time.monotonic()
        assert self._feed is not None
        indices, batch = self._feed.take(step - self.changes.data_since)
        total, weights = self._store.counts(indices), self._loss.weights(self.end.fraction(progress))
        terms = self._loss.terms(batch, weights)
        size = (batch.graph.num_atoms, batch.graph.num_edges, batch.graph.num_systems)
        flop_model = self.flop_models.of(terms.kind(batch))
        counter = FlopCounter() if flop_model.needs_count(*size) else None
        with counter or nullcontext():
            self.optimizer.zero_grad()
            predicted = self._predict(batch.graph, terms) if terms.any else {}
            loss = self._loss(predicted, batch, terms, weights, total)
            if terms.any:
                loss.backward()
            wall_s = time.monotonic() - self._start if processes.first else 0.0
            own = [loss.item(), wall_s, bool(self._interruption.signal)]
            loss_value, progress.wall_s, interrupted = processes.sum_gradients(self._weights, own)
            norm = nn.utils.clip_grad_norm_(self._weights, settings.clip_norm, foreach=True).item()
            if not (math.isfinite(loss_value) and math.isfinite(norm)):
                self._diverged(loss_value, norm, indices)
            progress.learning_rate = self._rate_now()
            set_rate(self.optimizer, progress.learning_rate)
            self.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(self._averaged_weights, self._weights, 1 - ema_decay(settings, step))
        if counter is not None:
            flop_model.record(*size, counter.total)
            progress.note(counter)
        self._own_flops += counter.total if counter is not None else flop_model.evaluate(*size)
        progress.count_step(loss_value, total.atoms, time.monotonic() - began)
        if counts_all or processes.size == 1:
            self._count_all_flops()
        if interrupted:
            self.interrupted = self._interruption.signal or signal.SIGTERM

    def _predict(self, graph: NeighborGraph, terms: Terms) -> dict[str, torch.Tensor]:
        """What the model gives in a step; with dropout or several readouts one draw of it, alike in all processes."""
        asked, settings = {"forces": terms.forces, "stress": terms.stress}, self.config.train
        if not settings.dropout and self.changes.model.get("members", 1) == 1:
            return dict(self.model(graph, **asked))
        assert isinstance(self.model, sdas_kernels.nn.SDAS)
        generator = np.random.default_rng([settings.seed, self.progress.step])
        weights = sdas_kernels.nn.thinned_weights(self.model, settings.dropout, generator)
        return dict(functional_call(self.model, weights, (graph,), asked))

    def _rate_now(self) -> float:
        settings = self.config.train.model_copy(update={"learning_rate": self.learning_rate})
        rate = learning_rate(settings, self.progress.step, self.end.fraction(self.progress))
        return rate if self.ramp is None else rate * self.ramp.factor(self.progress.flops)

    def _diverged(self, loss: float, norm: float, indices: NDArray[np.int64]) -> None:
        self.save()
        frames = ", ".join(self._data.frames[int(index)].source for index in indices[:FRAMES_NAMED])
        more = f" and {len(indices) - FRAMES_NAMED} more" if len(indices) > FRAMES_NAMED else ""
        raise TrainingError(
            f"step {self.progress.step}: the loss is {loss}, the gradient norm {norm} ({frames}{more}); "
            f"the state before this step is kept in {self.folder / CHECKPOINTS}. "
            "Lower train.learning_rate, or look at these frames"
        )

    def _count_all_flops(self) -> None:
        """Bring `progress.flops` up to date: the FLOPs of all processes."""
        self.progress.flops = round(self.processes.total([self._own_flops])[0])

    def _take_up(self, model: nn.Module, averaged: nn.Module | None = None) -> None:
        """Train this model from now on: its average, optimizer and count of FLOPs begin."""
        self.model = model.to(self.processes.device).train()
        self.averaged = copy.deepcopy(model if averaged is None else averaged).to(self.processes.device)
        self.averaged.eval().requires_grad_(False)
        self._weights: list[torch.Tensor] = list(self.model.parameters())
        self._averaged_weights: list[torch.Tensor] = list(self.averaged.parameters())
        self.optimizer = make_optimizer(self.config.train, self.model)
        self.flop_models = FlopModels()

    def _keep_moments(self, before: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
        for name, weight in self.model.named_parameters():
            known = before.get(name)
            if known is not None and known.shape == weight.shape and known in optimizer.state:
                self.optimizer.state[weight] = optimizer.state[known]

    def _check_model(self, model: nn.Module) -> None:
        if not isinstance(model, sdas_kernels.nn.SDAS):
            raise TrainingError(f"the model must be an SDAS model, got {type(model).__name__}")
        for name in ("species", "cutoff", "charge_spin"):
            wanted, given = self.changes.model.get(name, False), model.config.get(name, False)
            if given != wanted:
                raise TrainingError(f"the model must have {name} {wanted}, got {given}")
        dtype = DTYPES[self.config.train.dtype]
        if model.embedding.weight.dtype != dtype:
            raise TrainingError(f"the model must be {dtype}, got {model.embedding.weight.dtype}")

    def _arrange(self) -> None:
        """Batches of the data in use, for the model in use, and their loss."""
        config, data = self.config, self._data
        settings, room = config.train, config.data.graph_cache_gib * 2**30
        trained_labels(settings, data.frames, data.train)
        self._loss = Loss(settings, self.changes.unit, self.changes.energy_unit or self.changes.unit)
        dtype, type_weights = DTYPES[settings.dtype], settings.config_type_weights
        states = knows_states(self.model)
        self._store = GraphStore(data.frames, config.model.cutoff, dtype, room, type_weights, states)
        self._validation = (self._store, data.validation, settings.batch_budget, self.processes)
        self._order = order_of(settings, self._store, data.train, data.validation)
        self._close_feed()
        self._lone_atoms = lone_atoms_of(config, self.changes.energy_reference, dtype, states)
        self._feed = Feed(self._order, self._store, self.processes, self._lone_atoms)

    def _settle(self) -> None:
        """Have atoms alone exact in what is validated and shipped."""
        if self._lone_atoms is not None:
            self._lone_atoms.settle(self.averaged)

    def _close_feed(self) -> None:
        if self._feed is not None:
            self._feed.close()

    def _saved_data(self, tensors: dict[str, torch.Tensor]) -> TrainingData:
        """The data that the saved session had in use."""
        path, frames = self.changes.data, self._data.frames
        if path != _cache_path(self._data):
            if path is None:
                raise CheckpointError(f"{self.folder}: goes on with frames that are no cache: open it with those")
            frames = FrameCache.open(path)
        return TrainingData(frames, tensors["data.train"].numpy(), tensors["data.validation"].numpy())


def _shape(model: Any) -> dict[str, Any]:
    """The arguments that an SDAS model was made with."""
    return dict(model.config)


def _cache_path(data: TrainingData) -> str | None:
    return str(data.frames.path) if isinstance(data.frames, FrameCache) else None
