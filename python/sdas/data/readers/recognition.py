"""Which format a file or folder has, by its name and content."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from ase.io.bundletrajectory import BundleTrajectory

from sdas.data import cache_files
from sdas.data.errors import DataError
from sdas.data.readers import cp2k, deepmd, fitsnap, hdf5, mlearn, mtp, npz, pacemaker, qm9
from sdas.data.readers.ase_files import DATABASE_SUFFIXES, DATABASES
from sdas.data.readers.ase_formats import about_program, guess_format, head_of
from sdas.data.readers.hdf5_file import groups_of, is_hdf5, sound
from sdas.data.readers.oc20_lmdb import lmdb_files

GROUPS_LOOKED_AT = 1000
HDF5_SUFFIXES = (".h5", ".hdf5")
KNOWN = (
    "rmd17 (npz with nuclear_charges, coords), sgdml (npz with z, R), ase (extended XYZ, .traj and all else that ASE "
    "reads), ase-db (.db, .aselmdb), deepmd (folder or HDF5 with type.raw), oc20-lmdb (.lmdb), hdf5 (SPICE, ANI and "
    "their like), mtp (.cfg of MLIP), fitsnap (JSON of FitSNAP), mlearn (JSON list of pymatgen structures), "
    "pacemaker (.pckl.gzip), cp2k (NAME-pos-1.xyz), qm9 (XYZ of QM9), cache (made by 'sdas data convert')"
)


def detect_format(path: Path) -> str:
    """The name of the reader for ``path``, by its name and content; raises :class:`DataError` if there is none."""
    if path.is_dir():
        return _format_of_folder(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    if path.suffix == ".npz":
        found = npz.recognize(path)
        if found is None:
            raise DataError(f"{path}: an .npz file of no known convention; known formats: {KNOWN}")
        return found
    if path.suffix == ".lmdb":
        return "oc20-lmdb"
    if path.suffix in DATABASE_SUFFIXES:
        return "ase-db"
    if pacemaker.recognizes(path):
        return "pacemaker"
    found = _format_of_hdf5(path) if is_hdf5(path) else _format_of_text(path, head_of(path))
    if found:
        return found
    name = guess_format(path)
    if name is None:
        raise DataError(f"{path}: unknown format; {about_program(path)}known formats: {KNOWN}")
    return "ase-db" if name in DATABASES else "ase"


def _format_of_hdf5(path: Path) -> str | None:
    """The format of an HDF5 file by its first groups, if it is none of ASE's; raises for a damaged file."""
    for group in islice(sound(groups_of(path), path), GROUPS_LOOKED_AT):
        if deepmd.is_system(group):
            return "deepmd"
        if hdf5.is_set(group):
            return "hdf5"
    return "hdf5" if path.suffix in HDF5_SUFFIXES else None


def _format_of_text(path: Path, head: str) -> str | None:
    """The format of a text file that begins with ``head``, if it is none of ASE's."""
    if mtp.recognizes(head):
        return "mtp"
    if fitsnap.recognizes(head):
        return "fitsnap"
    if mlearn.recognizes(head):
        return "mlearn"
    if cp2k.recognizes(path, head):
        return "cp2k"
    return "qm9" if qm9.recognizes(head) else None


def _format_of_folder(path: Path) -> str:
    if (path / cache_files.MANIFEST).is_file():
        return "cache"
    if lmdb_files(path):
        return "oc20-lmdb"
    if deepmd.systems(path):
        return "deepmd"
    if BundleTrajectory.is_bundle(os.fspath(path)):
        return "ase"
    if qm9.files(path):
        return "qm9"
    if fitsnap.files(path):
        return "fitsnap"
    raise DataError(f"{path}: a folder of no known format; known formats: {KNOWN}")
