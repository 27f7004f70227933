"""What a progress bar of dynamics tells."""

from __future__ import annotations

from typing import Any

NS_PER_DAY = 86400 * 1e-6
"""A femtosecond per second."""
SHOW_EVERY = 20
"""Steps."""


def show_speed(bar: Any, simulated_fs: float) -> None:
    """Nanoseconds per day behind tqdm's bar, of steps in which `simulated_fs` are simulated."""
    facts = bar.format_dict
    if facts["elapsed"] > 0:
        speed = (facts["n"] - facts["initial"]) / facts["elapsed"]
        bar.set_postfix_str(f"{NS_PER_DAY * speed * simulated_fs:.3g} ns/day", refresh=False)
