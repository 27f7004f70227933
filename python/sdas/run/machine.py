"""Facts of the machine: what matters for speed, and what a run notes of it."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

import torch

SIMD_FLAGS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")


def describe_machine() -> dict[str, Any]:
    """cpu, cores_usable, cores_present, threads (of PyTorch), load, simd, memory_gib, gpus, system.

    load is the mean number of busy processes over the last minute: timings mean little where it exceeds the cores
    before they begin. gpus lists name, memory_gib and capability of each. What cannot be found out is None.
    """
    return {
        "cpu": processor(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cores_present": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "simd": _simd(),
        "memory_gib": _memory_gib(),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def describe_process(device: torch.device) -> dict[str, Any]:
    """Where this process runs, and the most memory that it held so far, MiB."""
    unit = 1024 if sys.platform != "darwin" else 1024**2
    facts: dict[str, Any] = {
        "system": platform.platform(),
        "processor": processor() or "unknown",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["gpu_peak_memory_mib"] = torch.cuda.max_memory_allocated(device) // 1024**2
    return facts


def is_busy(machine: dict[str, Any]) -> bool:
    """Whether a machine so described had work for half of its cores or more."""
    return machine["load"] is not None and machine["load"] >= 0.5 * machine["cores_usable"]


def processor() -> str | None:
    """The name of the processor; None if it cannot be found out."""
    return _cpuinfo("model name") or platform.processor() or None


def _simd() -> list[str]:
    flags = (_cpuinfo("flags") or _cpuinfo("Features") or "").split()
    return [flag for flag in SIMD_FLAGS if flag in flags]


def _cpuinfo(key: str) -> str | None:
    """The value of the first line of /proc/cpuinfo with this key."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    values = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key)
    return next(values, None)


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _gpus() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            {
                "name": properties.name,
                "memory_gib": round(properties.total_memory / 2**30, 1),
                "capability": f"{properties.major}.{properties.minor}",
            }
        )
    return found
