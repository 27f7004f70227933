"""The picture of the README: `python bench/picture.py` writes docs/pictures/speed.svg from bench/results.

Bars start at zero and share one scale per panel. The numbers are those of one record, which the caption names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "bench" / "results" / "models-intel-r--xeon-r--processor--2-cores-1-threads.json"
PICTURE = ROOT / "docs" / "pictures" / "speed.svg"
MODELS = {
    "ours": ("SDAS, these kernels", "#0b5fff"),
    "nequip compiled": ("NequIP, compiled", "#c9ccd1"),
    "nequip eager": ("NequIP, eager", "#c9ccd1"),
    "mace eager": ("MACE, eager", "#c9ccd1"),
}
PANELS = [  # title, system, quantity
    ("999 atoms of water: milliseconds", "999 water", "ms"),
    ("999 atoms of water: MiB of memory", "999 water", "peak_mib"),
    ("aspirin, 21 atoms: milliseconds", "aspirin", "ms"),
]
NAMES, PANEL, BAR, ROW, TOP, MARGIN = 165, 260, 150, 30, 62, 16


def picture(record: dict[str, Any]) -> str:
    """The SVG of a record of `bench_models.py`."""
    width, height = MARGIN + NAMES + PANEL * len(PANELS), TOP + ROW * len(MODELS) + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="13" fill="#1f2328">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(MARGIN, 24, "Energies and forces on one CPU core: shorter is better", size=16, weight="bold"),
    ]
    for row, (name, color) in enumerate(MODELS.values()):
        weight = "bold" if row == 0 else "normal"
        lines.append(_text(MARGIN, TOP + ROW * row + 19, name, color=color if row == 0 else None, weight=weight))
    for column, (title, system, quantity) in enumerate(PANELS):
        left = MARGIN + NAMES + PANEL * column
        values = [_value(record, system, model, quantity) for model in MODELS]
        lines.append(_text(left, TOP - 8, title, size=12))
        for row, (value, (_, color)) in enumerate(zip(values, MODELS.values(), strict=True)):
            top, length = TOP + ROW * row + 5, BAR * value / max(values)
            lines.append(f'<rect x="{left}" y="{top}" width="{length:.1f}" height="20" fill="{color}"/>')
            lines.append(_text(left + length + 6, top + 15, f"{value:.3g}" if value < 1000 else f"{value:.0f}"))
    caption = (
        f"{record['machine']}, one thread, float32; 32 channels, lmax 2, 2 layers, cutoff 5 Å for all; random weights. "
        "Speed says nothing of accuracy."
    )
    lines += [_text(MARGIN, height - 14, caption, size=11, color="#59636e"), "</svg>"]
    return "\n".join(lines) + "\n"


def _value(record: dict[str, Any], system: str, model: str, quantity: str) -> float:
    found = [c for c in record["cases"] if (c["step"], c["channels"], c["system"]) == ("forces", 32, system)]
    return float(found[0]["models"][model][quantity])


def _text(x: float, y: float, text: str, size: int = 13, color: str | None = None, weight: str = "normal") -> str:
    fill = f' fill="{color}"' if color else ""
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}"{fill}>{escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(picture(json.loads(RECORD.read_text(encoding="utf-8"))), encoding="utf-8")
