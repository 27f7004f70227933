import dataclasses
import json
import re
import shlex
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from sdas.errors import SdasError
from sdas.evaluate import load_evaluation, save_evaluation
from sdas.report import UNITS, write_report
from sdas.report.numbers import accuracy_per_resource
from sdas.report.page import duration, short
from sdas.train.rows import COLUMNS


class Page(HTMLParser):
    """Ids, references and text of a page; checks that tags are closed in order."""

    VOID = ("meta", "link", "br", "img", "use", "path", "rect", "image")

    def __init__(self, html):
        super().__init__()
        self.open, self.ids, self.links, self.text, self.pictures = [], [], [], "", 0
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.pictures += tag == "svg"
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.links += [value for key, value in attrs if key in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def numbers(run_dir):
    write_report(run_dir)
    return json.loads((run_dir / "report.json").read_text())


@pytest.fixture
def html(run_dir):
    return write_report(run_dir).read_text()


def test_numbers_are_those_of_the_run(numbers):
    assert numbers["force_mae_mev_per_ang"] == pytest.approx(25)
    assert numbers["force_rmse_mev_per_ang"] == pytest.approx(25)
    assert numbers["energy_mae_mev"] == pytest.approx(3)
    assert numbers["energy_rmse_mev"] == pytest.approx(3)
    assert (numbers["n_train"], numbers["n_val"], numbers["n_test"], numbers["seed"]) == (950, 50, 40, 7)
    assert numbers["train_flops"] == 4e12
    assert numbers["wall_s"] == 299.6
    assert numbers["md_drift_mev_per_atom_per_ps"] == 1.0
    assert numbers["versions"]["torch"] == "9.9"
    assert numbers["machine"]["cores"] == 2


def test_apr_takes_the_force_error_in_ev(numbers):
    assert numbers["apr"] == pytest.approx(1 / 0.025 / 4e12)
    assert "eV/Å" in numbers["units"]["apr"]
    assert set(UNITS) <= set(numbers)


@pytest.mark.parametrize("missing", [(None, 1e9), (20.0, None), (0.0, 1e9), (20.0, 0)])
def test_there_is_no_apr_of_nothing(missing):
    assert accuracy_per_resource(*missing) is None


def test_the_page_says_what_it_must(html):
    text = Page(html).text
    for words in ("Force MAE", "25", "water <1>", "Abacus 3000", "torch", "9.9", "steps: 300 # <few>", "sdas report"):
        assert words in text
    for words in ("Forces by element", "Validation error against compute", "Total energy", "How to reproduce"):
        assert words in text
    for op in ("spherical_harmonics", "neighbor_attention"):
        assert op in text


def test_a_run_is_reproduced_in_a_folder_of_its_own(html, run_dir):
    again = f"{run_dir}-again"
    commands = [
        ["train", f"{run_dir}/config.yaml", "--set", f"run_dir={again}"],
        ["evaluate", again],
        ["report", again],
    ]
    for command in commands:
        assert shlex.join(["sdas", *command]) in Page(html).text


def test_the_page_needs_no_other_file(html):
    page = Page(html)
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not re.search(r"url\((?!#)", html)
    assert "<script" not in html
    assert "@import" not in html


def test_every_picture_is_there_and_ids_do_not_clash(html):
    page = Page(html)
    assert page.pictures == 8
    assert len(page.ids) == len(set(page.ids))
    referred = set(re.findall(r"url\(#([^)]+)\)", html)) | {link[1:] for link in page.links if link.startswith("#")}
    assert referred
    assert referred <= set(page.ids)


def test_pictures_take_their_colors_from_the_page(html):
    pictures = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "var(--accent)" in pictures
    assert "var(--ink)" in pictures
    assert not re.search(r"(fill|stroke): ?(#000000|black)", pictures), "black lines vanish on a dark page"
    assert "prefers-color-scheme: dark" in html


def test_a_run_without_dynamics_has_a_report(run_dir):
    shutil.rmtree(run_dir / "md")
    page = Page(write_report(run_dir).read_text())
    assert page.pictures == 6
    assert "Energy drift" not in page.text
    assert json.loads((run_dir / "report.json").read_text())["md_drift_mev_per_atom_per_ps"] is None


def test_a_run_of_one_validation_has_a_report(run_dir):
    lines = (run_dir / "metrics.csv").read_text().splitlines()
    (run_dir / "metrics.csv").write_text("\n".join(lines[:2]) + "\n")
    assert Page(write_report(run_dir).read_text()).pictures == 5


@pytest.mark.parametrize("name", ["summary.json", "evaluation.json", "predictions.npz"])
def test_a_missing_or_damaged_file_is_named(run_dir, name):
    (run_dir / name).write_text("{")
    with pytest.raises(SdasError, match="damaged"):
        write_report(run_dir)
    (run_dir / name).unlink()
    with pytest.raises(SdasError, match=name):
        write_report(run_dir)
    assert not (run_dir / "report.html").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (-0.5, "−0.5"),
        (1.9e12, "1.90·10¹²"),
        (2.5e-11, "2.50·10⁻¹¹"),
        (1000, "1\u202f000"),
        (3339615686, "3.34·10⁹"),
    ],
)
def test_short_numbers(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (12.34, "12.3 s"), (299.6, "5 min 0 s"), (8100, "2 h 15 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_files_and_kinds_have_rows_and_missing_labels_dashes(run_dir):
    """Of the forty frames the first ten have no forces, and lie in a file of their own."""
    before, facts = load_evaluation(run_dir)
    reference = before.reference_forces.copy()
    reference[: before.offsets[10]] = np.nan
    made = dataclasses.replace(before, reference_forces=reference)
    files = made.by(["<few>.xyz"] * 10 + ["most.xyz"] * 30)
    save_evaluation(dataclasses.replace(made, by_file=files), run_dir, data=facts["data"])
    text = write_report(run_dir).read_text()
    Page(text)
    assert "<td>&lt;few&gt;.xyz</td><td>10</td><td>1</td><td>1</td><td>–</td><td>–</td>" in text
    assert "<td>most.xyz</td><td>30</td><td>1</td><td>1</td><td>25</td><td>25</td>" in text
    assert json.loads((run_dir / "report.json").read_text())["by_file"]["most.xyz"]["n_frames"] == 30


def test_a_run_on_energies_alone_has_a_report(run_dir):
    before, facts = load_evaluation(run_dir)
    bare = dataclasses.replace(before, reference_forces=np.full_like(before.reference_forces, np.nan))
    metrics = {**before.metrics, **dict.fromkeys(key for key in before.metrics if key.startswith("force_"))}
    save_evaluation(dataclasses.replace(bare, metrics=metrics, by_element={}), run_dir, data=facts["data"])
    steps = range(10, 101, 10)
    rows = [f"{s},1,{s},0.01,{1 / s},{900 / s},{100 / s},,,{s * 1e10},800" for s in steps]
    (run_dir / "metrics.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    text = write_report(run_dir).read_text()
    assert "validation energy MAE (meV/atom)" in text
    assert "Predicted energies over reference energies" in text
    assert "Predicted forces over reference forces" not in text
    assert json.loads((run_dir / "report.json").read_text())["apr"] is None
