"""Data shipped inside the package, so that everything can be tried without a download."""

from __future__ import annotations

from pathlib import Path

from sdas.data.errors import DataError

SAMPLES = {"ethanol": ("rmd17_ethanol_train_01.npz", "rmd17_ethanol_test_01.npz")}
FOLDER = Path(__file__).parent.parent / "samples"


def sample(name: str) -> tuple[Path, Path]:
    """Paths of the training and the test file of a shipped sample.

    ``ethanol``: rMD17's ethanol, 1000 + 1000 frames of its split 01, kcal/mol and Å, PBE/def2-SVP (Christensen and
    von Lilienfeld, 2020, arXiv:2007.09593). Raises :class:`DataError` for any other name.
    """
    if name not in SAMPLES:
        raise DataError(f"no sample {name!r}; there is: {', '.join(SAMPLES)}")
    train, test = (FOLDER / file for file in SAMPLES[name])
    return train, test
