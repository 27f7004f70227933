"""A short table of what GPU benchmarks found, beside what they are to reach.

Run: `python -m gpu.summary FOLDER`, the folder of the result files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PLAIN = ("ms", "share_of_roof", "share_of_roof_gathered", "us_per_atom", "steps_per_s", "copy_gb_per_s", "problem")
GOALS = {"share_of_roof": 0.6, "us_per_atom": 1.0, "steps_per_s": 1000.0}
SPREAD = ("ms_low", "ms_high", "gb", "peak_mib", "off_by", "off_by_eager", "eager_ms", "captured", "edges")


def main(folder: Path) -> None:
    """Print a line per case, and the ratios of rivals to ours."""
    print("goals:", ", ".join(f"{name} {goal:g}" for name, goal in GOALS.items()))
    for path in sorted(folder.glob("gpu_*.json")):
        record = json.loads(path.read_text())
        print(f"\n{record['benchmark']}, {record['machine']}")
        rows = record["cases"]
        for row in rows:
            case = " ".join(str(value) for name, value in row.items() if name not in (*PLAIN, *SPREAD))
            found = "  ".join(f"{name} {row[name]}" for name in PLAIN if name in row)
            ratio = _ratio(row, rows)
            print(f"  {case:<60} {found}" + (f"  {ratio:.2f} x ours" if ratio else ""))


def _ratio(row: dict[str, Any], rows: list[dict[str, Any]]) -> float | None:
    """A rival's time over ours for the same case."""
    name = "rival" if "rival" in row else "what"
    if row.get(name) in (None, "ours", "attention") or "ms" not in row:
        return None
    same = {key: value for key, value in row.items() if key not in (*PLAIN, *SPREAD, name)}
    for other in rows:
        if other.get(name) in ("ours", "attention") and "ms" in other and same.items() <= other.items():
            return row["ms"] / other["ms"]
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
