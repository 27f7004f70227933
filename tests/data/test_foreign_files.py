"""Files of other programs: found by their content, right to the unit, and refused with their name where damaged."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sdas.data import DataError, Frame, FrameCache, read_frames
from sdas.data.cli import app
from sdas.data.readers import detect_format
from sdas.data.reading_notes import ReadingNotes

_spec = importlib.util.spec_from_file_location("foreign_files", Path(__file__).with_name("foreign_files.py"))
foreign = importlib.util.module_from_spec(_spec)
sys.modules["foreign_files"] = foreign
_spec.loader.exec_module(foreign)

every_file = pytest.mark.parametrize("file", foreign.FOREIGN, ids=lambda file: file.name)


def read(file, path: Path, **options) -> list[Frame]:
    return list(read_frames(path, require=file.has, **{**file.options, **options}))


def hold(frames: list[Frame], file) -> None:
    """The frames are those of the file, in eV and Å."""
    assert len(frames) == 2
    close = {"rtol": file.tolerance, "atol": file.tolerance}
    for k, frame in enumerate(frames):
        assert frame.numbers.tolist() == foreign.NUMBERS
        np.testing.assert_allclose(frame.positions, foreign.POSITIONS[k], **close)
        np.testing.assert_allclose(frame.energy, foreign.ENERGIES[k], **close)
        assert frame.pbc.tolist() == [file.periodic] * 3
        if file.periodic:
            np.testing.assert_allclose(frame.cell, foreign.CELL, **close)
        assert (frame.forces is not None) == ("forces" in file.has)
        if frame.forces is not None:
            np.testing.assert_allclose(frame.forces, foreign.FORCES[k], **close)
        assert (frame.stress is not None) == ("stress" in file.has)
        if frame.stress is not None:
            np.testing.assert_allclose(frame.stress, foreign.STRESS, rtol=1e-8, atol=1e-10)


@every_file
def test_it_is_found_out_and_read_right(tmp_path, file):
    path = file.write(tmp_path / file.name)
    assert detect_format(path) == file.format
    hold(read(file, path), file)
    hold(read(file, path, format=file.format), file)


@every_file
def test_info_and_convert_take_it(tmp_path, file):
    path = file.write(tmp_path / file.name)
    flags = [word for name, value in file.options.items() for word in (f"--{name.replace('_', '-')}", value)]
    told = CliRunner().invoke(app, ["info", str(path), *flags])
    assert told.exit_code == 0, told.output
    assert f": {file.format}" in told.output
    made = ["convert", str(path), "--to", str(tmp_path / "cache"), "--require", ",".join(file.has), *flags]
    result = CliRunner().invoke(app, made)
    assert result.exit_code == 0, result.output
    hold(list(FrameCache.open(tmp_path / "cache")), file)


def frames_or_refusal(path: Path, file) -> list[Frame] | str:
    try:
        return list(read_frames(path, file.format, require=(), check_units=False, **file.options))
    except DataError as error:
        return str(error)


def spoilt(path: Path, content: bytes):
    """``path`` or a file below it, with its content cut, changed, or replaced; each a case and its name."""
    for part in (0.02, 0.3, 0.55, 0.8, 0.97):
        yield f"cut at {part}", content[: max(1, int(part * len(content)))]
    rng = np.random.default_rng(len(content))
    for k in range(6):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), 4):
            changed[place] = int(rng.integers(0, 256))
        yield f"four bytes changed, {k}", bytes(changed)
    yield "bytes", b"\x93\x00\xff" + content[3:]
    yield "one line twice", content.replace(b"\n", b"\n\n", 3)


@every_file
def test_damage_is_refused_with_the_name_of_the_file_or_leaves_sound_frames(tmp_path, file):
    path = file.write(tmp_path / file.name)
    parts = sorted(part for part in tmp_path.rglob("*") if part.is_file())
    refused = 0
    for part in parts:
        content = part.read_bytes()
        for case, data in spoilt(part, content):
            part.write_bytes(data)
            outcome = frames_or_refusal(path, file)
            assert (len(outcome) <= 2) if isinstance(outcome, list) else (str(tmp_path) in outcome), (part, case)
            refused += isinstance(outcome, str)
        part.write_bytes(content)
    assert refused >= 5
    hold(read(file, path), file)


@pytest.mark.parametrize("name", sorted({file.format for file in foreign.FOREIGN}))
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, name):
    options = {"type_map": "O,H"} if name == "mtp" else {"cell": "none"} if name == "cp2k" else {}
    path = tmp_path / ("a-pos-1.xyz" if name == "cp2k" else "a.txt")
    for content in (
        b"hello\nworld\n",
        b"\x00" * 500,
        b"[" * 100_000,
        b"3\n3\n3\n",
        b"{}",
        b'[{"outputs": 1}]',
        b"\n\n",
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=path.name):
            list(read_frames(path, name, require=(), **options))


def test_types_of_mlip_need_elements(tmp_path):
    path = foreign.mtp(tmp_path / "a.cfg")
    with pytest.raises(DataError, match=r"a\.cfg.*not their elements; give type_map='O,H' \(--type-map O,H"):
        list(read_frames(path))
    with pytest.raises(DataError, match="types 0 to 1, where the type map gives the elements of types 0 to 0"):
        list(read_frames(path, type_map="O"))
    with pytest.raises(DataError, match="'Xx', which is no chemical element"):
        list(read_frames(path, type_map="O,Xx"))


def test_direct_coordinates_of_mlip_and_a_stress_of_unsure_sign(tmp_path):
    text = foreign.mtp(tmp_path / "a.cfg").read_text()
    (tmp_path / "b.cfg").write_text(text.replace("cartes", "direct"))
    frame = next(read_frames(tmp_path / "b.cfg", type_map="O,H", check_units=False))
    np.testing.assert_allclose(frame.positions, foreign.POSITIONS[0] @ foreign.CELL)
    (tmp_path / "c.cfg").write_text(text.replace("PlusStress:", "Stress:"))
    notes = ReadingNotes()
    frames = list(read_frames(tmp_path / "c.cfg", type_map="O,H", notes=notes))
    assert [frame.stress for frame in frames] == [None, None]
    assert "Stress, which early versions of MLIP wrote, has no one sign and is not read" in notes.remarks


def test_a_pressure_of_vasp_keeps_its_order_under_other_units(tmp_path):
    path = foreign.mlearn(tmp_path / "training.json")
    frame = next(read_frames(path, units="eV,Å,eV/Å,kbar"))
    np.testing.assert_allclose(frame.stress, -foreign.STRESS, rtol=1e-8)
    path.write_text(path.read_text().replace('"occu": 1', '"occu": 0.5'))
    with pytest.raises(DataError, match=r"training\.json: frame 0: a site is occupied in part"):
        next(read_frames(path))


def test_units_of_fitsnap_are_those_it_names(tmp_path):
    path = foreign.fitsnap(tmp_path / "a.json")
    text = path.read_text()
    path.write_text(text.replace('"StressStyle": "bar"', '"StressStyle": "kB"'))
    np.testing.assert_allclose(next(read_frames(path, check_units=False)).stress, 1000 * foreign.STRESS, rtol=1e-8)
    path.write_text(text.replace('"StressStyle": "bar",', ""))
    with pytest.raises(DataError, match=r"a\.json: no StressStyle, which names the unit; give units="):
        next(read_frames(path))
    np.testing.assert_allclose(next(read_frames(path, units="eV,Å,eV/Å,-bar")).stress, foreign.STRESS, rtol=1e-8)
    path.write_text(text.replace("electronvoltper", "furlongper"))
    with pytest.raises(DataError, match="ForcesStyle: unknown unit of force 'furlong/angstrom'"):
        next(read_frames(path))


def test_steps_of_cp2k_are_matched_by_their_number(tmp_path):
    path = foreign.cp2k(tmp_path / "a-pos-1.xyz")
    forces = tmp_path / "a-frc-1.xyz"
    lines = forces.read_text().splitlines(keepends=True)
    forces.write_text("".join(lines[5:]))
    frames = list(read_frames(path, require=("energy",)))
    assert [frame.forces is None for frame in frames] == [True, False]
    np.testing.assert_allclose(frames[1].forces, foreign.FORCES[1], rtol=1e-9)
    notes = ReadingNotes()
    forces.unlink()
    assert all(frame.forces is None for frame in read_frames(path, require=("energy",), notes=notes))
    assert f"there are no forces: no a-frc-1.xyz beside {path}" in notes.remarks
    (tmp_path / "a-1.cell").unlink()
    with pytest.raises(DataError, match=r"no a-1\.cell beside it.*--cell"):
        list(read_frames(path, require=("energy",)))
    assert not next(read_frames(path, require=("energy",), cell="none")).pbc.any()
    np.testing.assert_allclose(next(read_frames(path, require=(), cell="9,10,11")).cell, np.diag([9.0, 10, 11]))


def test_forces_of_another_run_of_cp2k_are_refused(tmp_path):
    path = foreign.cp2k(tmp_path / "a-pos-1.xyz")
    forces = tmp_path / "a-frc-1.xyz"
    forces.write_text(forces.read_text().replace("E = -0.5", "E = -0.6"))
    with pytest.raises(DataError, match="do the two files belong to one run"):
        list(read_frames(path))
    with pytest.raises(DataError, match="give CP2K's file of positions"):
        list(read_frames(forces))


def test_a_cell_is_asked_for_where_it_is_used_only(tmp_path):
    path = foreign.qm9(tmp_path / "a.xyz")
    with pytest.raises(DataError, match="--cell is for files of CP2K; the format qm9 says its cells itself"):
        list(read_frames(path, cell="9,9,9"))


def test_another_energy_of_qm9_is_read_by_its_name(tmp_path):
    folder = tmp_path / "qm9"
    folder.mkdir()
    foreign.qm9(folder / "dsgdb9nsd_000001.xyz")
    assert detect_format(folder) == "qm9"
    notes = ReadingNotes()
    frames = list(read_frames(folder, require=("energy",), energy_key="G", notes=notes))
    assert [frame.energy for frame in frames] == pytest.approx([-0.6 * foreign.Hartree] * 2)
    assert dict(notes.labels["energy"]) == {"G": 2}


def test_groups_are_kinds_of_frames(tmp_path):
    assert {frame.config_type for frame in read_frames(foreign.mlearn(tmp_path / "a.json"))} == {"AIMD"}
    folder = foreign.fitsnap_folder(tmp_path / "JSON")
    assert [frame.config_type for frame in read_frames(folder)] == ["group_0", "group_1"]


def test_a_long_list_of_structures_is_read_piece_by_piece(tmp_path, monkeypatch):
    path = foreign.mlearn(tmp_path / "a.json")
    monkeypatch.setattr("sdas.data.readers.json_items.PIECE", 7)
    assert len(list(read_frames(path))) == 2
