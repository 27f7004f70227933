"""The training loop.

    loss = λ_E · mean over frames (ΔE)² / s²  +  λ_F · mean over components (ΔF)² / s²

with E in eV, F in eV/Å and s the RMS of the training forces in eV/Å, so that the weights λ are dimensionless. The
network works in units of s, and an energy per species is fitted beforehand (:mod:`sdas.train.energy_reference`).
"""

from __future__ import annotations

import copy
import math
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sdas.checkpoint import load_training_state, save_model, save_training_state, versions
from sdas.config import Config, TrainConfig
from sdas.data import Frame
from sdas.errors import TrainingError
from sdas.run.lock import locked
from sdas.train import run_files
from sdas.train.display import Display
from sdas.train.graphs import GraphStore
from sdas.train.interruption import Interruption
from sdas.train.metrics import Metrics
from sdas.train.objective import DTYPES, batch_loss, build_model, make_optimizer, validate
from sdas.train.order import FrameOrder
from sdas.train.processes import Processes
from sdas.train.schedule import ema_decay, learning_rate
from sdas.train.state import Progress, capture, restore
from sdas_kernels.flops import FlopCounter, FlopModel


@dataclass(frozen=True)
class RunResult:
    """run_dir: where everything lies. summary: the content of summary.json; its "status" is complete or interrupted."""

    run_dir: Path
    summary: dict[str, Any]


def train(config: Config, resume: bool = False) -> RunResult:
    """Run a configuration, or with ``resume`` go on with the run in its run_dir.

    Raises :class:`sdas.errors.SdasError` for data, configurations and checkpoints that cannot be used, and
    :class:`TrainingError` when the loss is not finite; the state before that step is kept.
    """
    with Processes(config.train.device) as processes, ExitStack() as lock:
        folder = Path(config.run_dir)
        if processes.first:
            lock.enter_context(locked(folder))
            run_files.start_run(config, resume)
            run_files.convert_raw_files(config.data, folder)
        processes.wait()
        cache, split = run_files.open_data(config.data, folder)
        processes.wait()
        if processes.first:
            split.save(folder / run_files.SPLIT)
            run_files.say_how_frames_were_read(cache)
        return fit(config, cache, split.train, split.validation, processes, {"n_test": len(split.test)})


def fit(
    config: Config,
    frames: Sequence[Frame],
    train_indices: NDArray[np.int64],
    validation_indices: NDArray[np.int64],
    processes: Processes,
    facts: dict[str, Any] | None = None,
) -> RunResult:
    """Train on frames of a sequence, by index, from the last checkpoint in ``config.run_dir`` if there is one.

    ``facts`` are added to the summary. Everything else is as :func:`train` says.
    """
    settings, folder = config.train, Path(config.run_dir)
    if settings.batch_size < processes.size:
        raise TrainingError(f"train.batch_size {settings.batch_size} is less than the {processes.size} processes")
    folder.mkdir(parents=True, exist_ok=True)
    with _torch_settings(settings), Interruption() as interruption:
        model, force_rms = build_model(config, frames, train_indices)
        model.to(processes.device).train()
        averaged = copy.deepcopy(model).eval().requires_grad_(False)
        weights: list[torch.Tensor] = list(model.parameters())
        averaged_weights: list[torch.Tensor] = list(averaged.parameters())
        optimizer = make_optimizer(settings, weights)
        store = GraphStore(frames, config.model.cutoff, DTYPES[settings.dtype], config.data.graph_cache_gib * 2**30)
        order = FrameOrder(train_indices, settings.batch_size, settings.seed)
        flop_model, progress = FlopModel(), Progress()

        state = load_training_state(folder / run_files.CHECKPOINTS)
        if state is not None:
            progress = restore(state, flop_model, model, averaged, optimizer)
        start = time.monotonic() - progress.wall_s
        own_flops = progress.flops if processes.first else 0
        metrics = Metrics(folder, progress.step, settings.tensorboard) if processes.first else None

        def checkpoint() -> None:
            progress.flops = round(processes.total([own_flops])[0])
            if processes.first:
                saved = capture(progress, flop_model, model, averaged, optimizer)
                save_training_state(folder / run_files.CHECKPOINTS, saved)

        if state is None:
            checkpoint()
        display = Display(settings, progress, visible=processes.first)
        done, stopped_by = _fraction(settings, progress) >= 1, None
        while not done and not stopped_by:
            step, step_start = progress.step, time.monotonic()
            indices = order.batch(step)
            atoms = store.atoms(indices)
            batch = store.batch(indices[processes.rank :: processes.size]).to(processes.device)
            size = (batch.graph.num_atoms, batch.graph.num_edges, batch.graph.num_systems)
            counter = FlopCounter() if flop_model.needs_count(*size) else None
            with counter or nullcontext():
                optimizer.zero_grad()
                loss = batch_loss(settings, model(batch.graph), batch, force_rms, len(indices), atoms)
                loss.backward()
                own = [loss.item(), time.monotonic() - start if processes.first else 0.0, bool(interruption.signal)]
                loss_value, progress.wall_s, interrupted = processes.sum_gradients(weights, own)
                norm = nn.utils.clip_grad_norm_(weights, settings.clip_norm, foreach=True).item()
                if not (math.isfinite(loss_value) and math.isfinite(norm)):
                    checkpoint()
                    raise TrainingError(
                        f"step {step}: the loss is {loss_value}, the gradient norm {norm} (frames {indices.tolist()}); "
                        f"the state before this step is kept in {folder / run_files.CHECKPOINTS}. "
                        "Lower train.learning_rate, or look at these frames"
                    )
                rate = learning_rate(settings, step, _fraction(settings, progress))
                optimizer.param_groups[0]["lr"] = rate
                optimizer.step()
                with torch.no_grad():
                    torch._foreach_lerp_(averaged_weights, weights, 1 - ema_decay(settings, step))
            if counter is not None:
                flop_model.record(*size, counter.total)
                progress.note(counter)
            own_flops += counter.total if counter is not None else flop_model.evaluate(*size)
            progress.count_step(loss_value, atoms, time.monotonic() - step_start)
            if processes.size == 1:
                progress.flops = own_flops
            display.step(progress)

            done = _fraction(settings, progress) >= 1
            stopped_by = (interruption.signal or signal.SIGTERM) if interrupted else None
            if progress.step % settings.validate_every == 0 or done:
                progress.flops = round(processes.total([own_flops])[0])
                errors = validate(averaged, store, validation_indices, settings.batch_size, processes)
                row = progress.end_row(order.epoch(progress.step), rate, errors)
                if metrics is not None:
                    metrics.write(row)
            if progress.step % settings.checkpoint_every == 0 or done or stopped_by:
                checkpoint()
        display.close()

        summary = {
            "status": "complete" if done else "interrupted",
            "signal": None if done else stopped_by,
            "steps": progress.step,
            "train_flops": progress.flops,
            "flops_unknown": progress.flops_unknown,
            "flops_estimated": progress.flops_estimated,
            "wall_s": progress.wall_s,
            "n_train": len(train_indices),
            "n_val": len(validation_indices),
            **(facts or {}),
            "parameters": sum(weight.numel() for weight in weights),
            "force_rms_ev_per_ang": force_rms,
            "last_validation": progress.last,
            "best_validation": progress.best,
            "seed": settings.seed,
            "processes": processes.size,
            "versions": versions(),
            "machine": run_files.machine(processes.device),
        }
        if processes.first:
            if done:
                save_model(folder / run_files.MODEL, averaged, {"training": summary})
            run_files.write_summary(folder, summary)
        if metrics is not None:
            metrics.close()
        processes.wait()
        return RunResult(folder, summary)


def _fraction(settings: TrainConfig, progress: Progress) -> float:
    """The part of the run that has passed, by steps or by wall time."""
    if settings.steps is not None:
        return progress.step / settings.steps
    assert settings.minutes is not None
    return progress.wall_s / (60 * settings.minutes)


@contextmanager
def _torch_settings(settings: TrainConfig) -> Iterator[None]:
    """Threads, seeds and determinism as configured; threads and determinism are put back at the end."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.manual_seed(settings.seed)
    np.random.seed(settings.seed)  # noqa: NPY002
    random.seed(settings.seed)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
