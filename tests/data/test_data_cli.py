"""``sdas data``: each command does its work, and each mistake is one line and exit status 1 or 2."""

import json

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from typer.testing import CliRunner

from sdas.data import FrameCache, Split, sample
from sdas.data.cli import app

KEYS = ("nuclear_charges", "coords", "energies", "forces")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(result, complaint, status=1):
    assert result.exit_code == status, result.output
    assert complaint in result.stderr
    assert "Traceback" not in result.output
    if status == 1:
        assert isinstance(result.exception, SystemExit)
        assert len(result.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "ethanol"
    result = run("convert", *sample("ethanol"), "--to", path)
    assert result.exit_code == 0, result.output
    assert "2000 frames, 18000 atoms" in result.output
    return path


def test_convert_joins_its_sources_in_order(cache):
    frames = FrameCache.open(cache)
    assert len(frames) == 2000
    assert frames[0].source.endswith("train_01.npz: frame 0")
    assert frames[1999].source.endswith("test_01.npz: frame 999")


def test_info_of_a_cache_and_of_a_source(cache):
    for path, frames in ((cache, 2000), (sample("ethanol")[0], 1000)):
        result = run("info", path, *["--verify"] * (path == cache))
        assert result.exit_code == 0, result.output
        assert f"frames: {frames} (0 periodic)" in result.output
        assert "eV per atom" in result.output
        assert "eV/Å" in result.output


def test_info_notices_a_flipped_bit(cache, tmp_path):
    import shutil

    copy = shutil.copytree(cache, tmp_path / "copy")
    data = bytearray((copy / "energies.npy").read_bytes())
    data[-1] ^= 1
    (copy / "energies.npy").write_bytes(data)
    fails(run("info", copy), "energies.npy: damaged frame cache")
    fails(run("info", copy, "--verify"), "the content of energies.npy changed")


def test_split_random(cache, tmp_path):
    target = tmp_path / "s.json"
    result = run("split", cache, "--to", target, "--sizes", "950,50,1000", "--seed", 7)
    assert result.exit_code == 0, result.output
    assert "950 train, 50 validation, 1000 test" in result.output
    assert Split.load(target, FrameCache.open(cache)).sizes() == (950, 50, 1000)
    assert run("split", cache, "--to", target, "--fractions", "0.5,0.25,0.25").exit_code == 0
    assert Split.load(target, FrameCache.open(cache)).sizes() == (1000, 500, 500)


def test_split_lies_beside_the_cache_unless_said(cache):
    assert run("split", cache, "--sizes", "10,10,10").exit_code == 0
    assert (cache.parent / "ethanol.split.json").is_file()


def test_split_by_indices(cache, tmp_path):
    (tmp_path / "i.json").write_text(json.dumps({"train": [1, 2], "test": [1999]}))
    result = run("split", cache, "--to", tmp_path / "s.json", "--by", "indices", "--indices", tmp_path / "i.json")
    assert result.exit_code == 0, result.output
    assert Split.load(tmp_path / "s.json", FrameCache.open(cache)).sizes() == (2, 0, 1)
    (tmp_path / "i.json").write_text(json.dumps({"train": [1, 2], "test": [2000]}))
    result = run("split", cache, "--by", "indices", "--indices", tmp_path / "i.json")
    fails(result, "test index 2000 is outside 0..1999")


def test_split_by_composition_refuses_a_single_composition(cache):
    fails(run("split", cache, "--by", "composition", "--fractions", "0.8,0.1,0.1"), "1 composition(s)")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--sizes", "900"), "takes three numbers"),
        (("--sizes", "a,b,c"), "takes three numbers"),
        ((), "--sizes or --fractions"),
        (("--sizes", "1,1,1", "--fractions", "1,0,0"), "--sizes or --fractions"),
        (("--by", "indices"), "go together"),
    ],
)
def test_split_says_what_it_needs(cache, arguments, complaint):
    result = run("split", cache, *arguments)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.replace("│", " ").split())


def test_mistakes_are_one_line(cache, tmp_path):
    broken = tmp_path / "broken.npz"
    with np.load(sample("ethanol")[0]) as data:
        arrays = {key: data[key][:5] if key != "nuclear_charges" else data[key] for key in KEYS}
    np.savez(broken, **{**arrays, "forces": np.full((5, 9, 3), np.nan)})
    (tmp_path / "empty.xyz").touch()
    fails(run("convert", tmp_path / "nothing.xyz", "--to", tmp_path / "c"), "nothing.xyz does not exist")
    fails(run("convert", tmp_path / "empty.xyz", "--to", tmp_path / "c"), "empty.xyz is empty")
    fails(run("convert", broken, "--to", tmp_path / "c"), "frame 0: forces hold NaN")
    fails(run("convert", broken, "--to", cache), "exists already")
    fails(run("convert", broken, "--to", tmp_path / "c", "--units", "stone"), "unknown unit of energy 'stone'")
    fails(run("convert", broken, "--to", tmp_path / "c", "--format", "xml"), "unknown format 'xml'")
    fails(run("info", tmp_path / "nothing"), "does not exist")
    fails(run("split", tmp_path, "--sizes", "1,1,1"), "is not a frame cache")
    assert run("convert", broken, "--to", tmp_path / "c", "--require", "dipole").exit_code == 2
    assert not (tmp_path / "c").exists()


def test_convert_can_do_without_labels_and_replace(tmp_path):
    unlabelled = tmp_path / "a.npz"
    with np.load(sample("ethanol")[0]) as data:
        np.savez(unlabelled, nuclear_charges=data["nuclear_charges"], coords=data["coords"][:5])
    fails(run("convert", unlabelled, "--to", tmp_path / "c"), "frame 0: no energy")
    assert run("convert", unlabelled, "--to", tmp_path / "c", "--require", "none").exit_code == 0
    assert not FrameCache.open(tmp_path / "c").has("energy")
    assert run("convert", *sample("ethanol"), "--to", tmp_path / "c", "--overwrite").exit_code == 0
    assert len(FrameCache.open(tmp_path / "c")) == 2000


def test_fetch_offline_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("sdas.data.download.time.sleep", lambda seconds: None)
    result = run("fetch", "rmd17", "--molecule", "uracil", "--to", tmp_path, "--url", "http://127.0.0.1:9/here")
    fails(result, "could not download http://127.0.0.1:9/here/rmd17_uracil_train_01.npz")
    assert f"put it at {tmp_path / 'rmd17_uracil_train_01.npz'}" in result.stderr
    fails(run("fetch", "rmd17", "--molecule", "water", "--to", tmp_path), "no molecule 'water'")


def test_fetch_keeps_files_that_are_there(tmp_path, real_data):
    import shutil

    for part in ("train", "test"):
        shutil.copy(real_data(f"rmd17/rmd17_ethanol_{part}_01.npz"), tmp_path)
    result = run("fetch", "rmd17", "--to", tmp_path, "--url", "http://127.0.0.1:9/here")
    assert result.exit_code == 0, result.output
    assert [line.rpartition("/")[2] for line in result.stdout.splitlines()] == [
        "rmd17_ethanol_train_01.npz",
        "rmd17_ethanol_test_01.npz",
    ]


def test_a_key_that_no_frame_has_is_told(tmp_path):
    atoms = molecule("H2O")
    atoms.info["energy"] = -2.0
    ase.io.write(tmp_path / "a.xyz", atoms)
    result = CliRunner().invoke(app, ["info", str(tmp_path / "a.xyz"), "--energy-key", "energi"])
    assert f"note: no frame of {tmp_path / 'a.xyz'} has energi, which --energy-key asks for" in result.stdout
    found = CliRunner().invoke(app, ["info", str(tmp_path / "a.xyz"), "--energy-key", "energy"])
    assert "note:" not in found.stdout


def test_flags_of_raw_files_are_refused_for_a_cache(tmp_path):
    atoms = molecule("H2O")
    atoms.info["energy"] = -2.0
    ase.io.write(tmp_path / "a.xyz", atoms)
    cache = tmp_path / "a.cache"
    made = CliRunner().invoke(app, ["convert", str(tmp_path / "a.xyz"), "--to", str(cache), "--require", "energy"])
    assert made.exit_code == 0
    assert CliRunner().invoke(app, ["info", str(cache)]).exit_code == 0
    result = CliRunner().invoke(app, ["info", str(cache), "--units", "Ha"])
    assert result.exit_code == 1
    assert f"error: --units is for raw files; {cache} is a cache" in result.stderr
