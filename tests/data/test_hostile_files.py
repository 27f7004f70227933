"""A file takes no more memory than a bounded multiple of its size, whatever sizes it declares, in every format."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import json
import lzma
import sqlite3
import zipfile
from pathlib import Path

import ase.db
import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from sdas.config import load_config
from sdas.data import DataError, FrameCache, read_frames, write_cache
from sdas.data.readers.bounds import FREE_BYTES, MOST_RATIO
from sdas.data.readers.packed import open_bytes
from sdas.data.splits import given_split
from sdas.errors import ConfigError

_spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("hostile.py"))
hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)

MANY = 10**12
BOMB = 1 << 27
"""Bytes of zeros in a bomb; packed, a thousandth of it. The bound for files as small is 64 MiB."""


def npy(shape: tuple[int, ...], data: bytes = b"", descr: str = "<f8", fortran: bool = False) -> bytes:
    head = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + (len(head) + 1).to_bytes(2, "little") + head + b"\n" + data


EV = npy((), b"eV", "|S2")


def npz(path: Path, method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in {"e_unit": EV, **members}.items():
            archive.writestr(f"{name}.npy", content)


def numbers() -> bytes:
    return npy((3,), np.array([8, 1, 1], "<i8").tobytes(), "<i8")


def zip_of_zeros(path: Path, name: str, shape: tuple[int, ...]) -> None:
    """An .npz whose array ``name`` is really there: zeros, packed a thousand times."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("e_unit.npy", EV)
        for other in {"z", "R"} - {name}:
            archive.writestr(f"{other}.npy", numbers() if other == "z" else npy((1, 3, 3), bytes(72)))
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            member.write(npy(shape))
            for _ in range(8 * int(np.prod(shape)) // (1 << 20)):
                member.write(bytes(1 << 20))


def packed_zeros(folder: Path) -> None:
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lambda data: lzma.compress(data, preset=0)}
    content = b"1\n\n" + b"0" * BOMB
    for suffix, compress in pack.items():
        packed = compress(content)
        (folder / f"bomb.xyz.{suffix}").write_bytes(packed)
        (folder / f"bomb.vasp.{suffix}").write_bytes(packed)


def made(folder: Path) -> list[Path]:
    """Files that declare, or unfold to, far more than they hold."""
    packed_zeros(folder)
    zip_of_zeros(folder / "bomb of one frame.npz", "R", (1, BOMB // 24, 3))
    zip_of_zeros(folder / "bomb of numbers.npz", "z", (BOMB // 8,))
    shapes = {"rows": (MANY, 3, 3), "one row": (1, MANY, 3), "overflow": (2**62, 4, 3), "negative": (-1, 3, 3)}
    for name, shape in shapes.items():
        npz(folder / f"positions of {name}.npz", z=numbers(), R=npy(shape, bytes(72)))
    npz(folder / "numbers.npz", z=npy((MANY,), b"", "<i8"), R=npy((1, 3, 3), bytes(72)))
    npz(folder / "objects.npz", z=npy((1,), b"\x41" * 8, "|O"), R=npy((1, 3, 3), bytes(72)))
    npz(folder / "void.npz", z=npy((1,), b"\x41" * 8, "|V2000000000"), R=npy((1, 3, 3), bytes(72)))
    npz(folder / "text.npz", z=numbers(), R=npy((1, 3, 3), bytes(72)), E=npy((1,), b"", "|S4000000000"))
    npz(folder / "bzip2.npz", zipfile.ZIP_BZIP2, z=numbers(), R=npy((1, 3, 3), bytes(72)))
    deep = b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"(" * 9000
    npz(folder / "deep header.npz", z=deep, R=npy((1, 3, 3), bytes(72)))
    for name, array in (
        ("rows", npy((MANY, 6))),
        ("overflow", npy((2**62, 4))),
        ("objects", npy((1, 6), b"\x41" * 48, "|O")),
        ("fortran", npy((MANY, 6), b"", "<f8", True)),
    ):
        system = folder / f"deepmd {name}" / "set.000"
        system.mkdir(parents=True)
        (system.parent / "type.raw").write_text("0 0\n")
        (system.parent / "type_map.raw").write_text("H\n")
        (system.parent / "nopbc").touch()
        (system / "coord.npy").write_bytes(array)
    for name, shape, dtype in (
        ("rows", (MANY, 3, 3), "f8"),
        ("one row", (1, MANY, 3), "f8"),
        ("objects", (1, 3, 3), h5py.vlen_dtype(np.float64)),
        ("chunk", (1, 3, 3), "f8"),
    ):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["atomic_numbers"] = [8, 1, 1]
            chunks = (1, min(shape[1], 10**6), 3)
            file.create_dataset("positions", shape, dtype, maxshape=(None,) * 3, chunks=chunks)
    with h5py.File(folder / "chunk.h5", "a") as file:
        del file["positions"]
        file.create_dataset("positions", (1, 3, 3), "f8", maxshape=(None,) * 3, chunks=(10**4, 10**3, 3))
        file.attrs["units"] = "eV"
    (folder / "size.cfg").write_text(f"BEGIN_CFG\nSize\n{MANY}\nAtomData: id type\n1 0\n")
    (folder / "size-pos-1.xyz").write_text(f"{MANY}\ni = 0, time = 0, E = -1\nH 0 0 0\n")
    (folder / "qm9.xyz").write_text(f"{MANY}\ngdb 1 {'0 ' * 15}\nH 0 0 0 0\n")
    (folder / "deep.json").write_text('[{"outputs": ' + "[" * 500_000)
    (folder / "fitsnap.json").write_text('{"Dataset": {"Data": ' + "[" * 500_000)
    (folder / "atoms.xyz").write_text(f"{MANY}\n\nH 0 0 0\n")
    (folder / "more atoms.xyz").write_text(f"{'9' * 5000}\n\nH 0 0 0\n")
    (folder / "columns.xyz").write_text(f"1\nProperties=species:S:1:pos:R:3:x:R:{10**9}\nH 0 0 0\n")
    (folder / "deep.xyz").write_text('1\nx="_JSON ' + "[" * 200_000 + '"\nH 0 0 0\n')
    (folder / "POSCAR").write_text(f"many\n1.0\n9 0 0\n0 9 0\n0 0 9\nH\n{4 * 10**8}\nDirect\n0 0 0\n")
    (folder / "atoms.cube").write_text(f"a\nb\n{10**9} 0 0 0\n1 1 0 0\n1 0 1 0\n1 0 0 1\n")
    whole = folder / "whole.traj"
    ase.io.write(whole, molecule("H2O"))
    content = whole.read_bytes()
    (folder / "array.traj").write_bytes(content.replace(b'"ndarray": [[3]', b'"ndarray": [[999999999999]'))
    whole.unlink()
    with ase.db.connect(folder / "blob.db") as database:
        database.write(molecule("H2O"))
    with sqlite3.connect(folder / "blob.db") as connection:
        connection.execute("ALTER TABLE systems RENAME TO hidden")
        names = [row[1] for row in connection.execute("PRAGMA table_info(hidden)")]
        huge = {name: f"zeroblob(900000000) AS {name}" for name in ("numbers", "positions", "forces")}
        shown = ", ".join(huge.get(name, name) for name in names)
        connection.execute(f"CREATE VIEW systems AS SELECT {shown} FROM hidden")
    connection.close()
    return sorted(path for path in folder.iterdir())


def test_what_a_file_declares_is_held_against_its_size(tmp_path):
    outcomes = hostile.read_in_a_process(made(tmp_path), mib=3000)
    refused = {name for name, outcome in outcomes.items() if outcome.startswith("refused: ")}
    assert set(outcomes) == refused, {name: outcomes[name] for name in set(outcomes) - refused}


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_the_bound_of_what_unfolds_is_stated_and_exact(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("sdas.data.readers.bounds.FREE_BYTES", 1000)
    path = tmp_path / f"a{suffix}"
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix]
    path.write_bytes(pack(bytes(100_000)))
    most = MOST_RATIO * path.stat().st_size
    message = "200 times the size of the file; if that is meant, unpack it first"
    if most < 100_000:
        with open_bytes(path) as file, pytest.raises(DataError, match=message):
            file.read()
    else:
        with open_bytes(path) as file:
            assert file.read() == bytes(100_000)
    assert FREE_BYTES == 64 * 2**20


def test_what_packs_well_is_read_up_to_the_bound(tmp_path):
    """Labels of zeros pack a thousand times; a small file of them is no bomb."""
    shape = (20_000, 3, 3)
    positions = np.tile(molecule("H2O").positions, (len(np.empty(shape)), 1, 1))
    np.savez_compressed(tmp_path / "a.npz", z=[8, 1, 1], R=positions, E=np.zeros(shape[0]), F=np.zeros(shape))
    assert positions.nbytes > 2 * MOST_RATIO * 1000
    assert sum(1 for _ in read_frames(tmp_path / "a.npz", units="eV", check_units=False)) == shape[0]


def test_a_parser_in_bounds_leaves_no_limit_behind(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    ase.io.write(tmp_path / "a.traj", [molecule("H2O")] * 3)
    frames = read_frames(tmp_path / "a.traj", require=())
    next(frames)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    frames.close()
    (tmp_path / "POSCAR").write_text(f"many\n1.0\n9 0 0\n0 9 0\n0 0 9\nH\n{4 * 10**8}\nDirect\n0 0 0\n")
    with pytest.raises(DataError):
        list(read_frames(tmp_path / "POSCAR", require=()))
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_splits_are_bounded_too(tmp_path, water):
    cache = write_cache([water(k) for k in range(3)], tmp_path / "c")
    npz(tmp_path / "a.npz", train=npy((MANY,), b"", "<i8"))
    (tmp_path / "a.json").write_text("[" * 200_000)
    for name in ("a.npz", "a.json"):
        with pytest.raises(DataError, match=name):
            given_split(cache, tmp_path / name)


def test_a_manifest_that_nests_deeply_is_refused(tmp_path, water):
    write_cache([water()], tmp_path / "c")
    (tmp_path / "c" / "meta.json").write_text("[" * 200_000)
    with pytest.raises(DataError, match=r"meta\.json: cannot be read: damaged JSON"):
        FrameCache.open(tmp_path / "c")


def test_a_configuration_does_not_unfold(tmp_path):
    lines = ["a0: &a0 [1, 1]"] + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines) + "\ndata: {path: *a11}\n")
    with pytest.raises(ConfigError, match=r"laughs\.yaml: holds an alias"):
        load_config(tmp_path / "laughs.yaml")
    (tmp_path / "deep.yaml").write_text("data: " + "[" * 100_000)
    with pytest.raises(ConfigError, match=r"deep\.yaml: nests lists or sections deeper than 20"):
        load_config(tmp_path / "deep.yaml")


def test_json_and_atoms_as_they_are_still_read(tmp_path):
    atoms = Atoms("H", [[0.0, 0.0, 0.0]], info={"x": json.dumps([[1, 2]])})
    buffer = io.StringIO()
    ase.io.write(buffer, atoms, format="extxyz")
    (tmp_path / "a.xyz").write_text(buffer.getvalue() + "\n\n" + buffer.getvalue())
    assert sum(1 for _ in read_frames(tmp_path / "a.xyz", require=())) == 2
