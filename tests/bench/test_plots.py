"""The page of results: exponents that are right, pictures that are written, no case left out."""

import json

import pytest

plots = pytest.importorskip("plots", reason="the tests stand alone, without bench/, or there is no matplotlib")

HEADER = {
    "machine": "a machine, 2 cores",
    "simd": "avx2",
    "threads": 1,
    "load_average_at_end": 0.5,
    "versions": {"torch": "2.13.0"},
    "commit": "0123456789abcdef",
    "date": "2026-01-01",
}


def test_exponent():
    sizes = [10, 20, 40, 80, 160]
    assert plots.exponent(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    flat_then_square = [1e3, *(n**2 for n in sizes[1:])]
    assert plots.exponent(sizes, flat_then_square) == pytest.approx(2), "small sizes do not count"


def attention_cases():
    size = {"side": 8, "neighbors": 40, "channels": 64, "heads": 32, "lmax": 2, "atoms": 512, "edges": 17907}
    for task in ("forward", "forces", "training"):
        times = {"ours_ms": 1.0, "reference_ms": 20.0, "e3nn_ms": 11.0}
        ratios = {"reference_over_ours": [19.0, 20.0, 21.0], "e3nn_over_ours": [10.0, 11.0, 12.0]}
        yield {"what": "layer", "task": task, **size, **times, **ratios}
        for side in (4, 8, 16):
            grown = {
                "side": side,
                "atoms": side**3,
                "edges": 35 * side**3,
                "ours_ms": side**3,
                "ours_peak_mib": side**3,
            }
            yield {"what": "growth with side", "task": task, **size, **grown}
    rates = {"gflop_per_s": 12.5, "gbyte_per_s": 3.25, "share_of_matrix_product": 0.1, "share_of_copy": 0.3}
    yield {"what": "operator", "task": "second", **size, "ours_ms": 5.0, "e3nn_over_ours": [7.0, 8.0, 9.0], **rates}


def model_cases():
    found = {"ms": 10.0, "cpu_ms": 9.0, "atoms_per_second": 2100.0, "peak_mib": 5.0}
    over = {"over_ours": [1.5, 2.0, 2.5], "cpu_over_ours": [1.0, 2.25, 3.0]}
    models = {"ours": found, "nequip eager": found | over, "mace eager": {"skipped": "absent"}}
    for step in ("forces", "training"):
        yield {"step": step, "channels": 32, "system": "aspirin", "atoms": 21, "edges": 310, "models": models}


def dynamics_cases():
    ours = {"ms": 9.0, "cpu_ms": 1.25, "ns_per_day": 34.5, "steps": 100}
    models = {"ours, ase": ours, "mace eager": ours | {"cpu_over_ours": [17.0, 18.0, 19.0]}}
    models["nequip eager"] = {"skipped": "absent"}
    yield {"step": "dynamics", "channels": 32, "system": "aspirin", "atoms": 21, "replicas": 1, "models": models}


def product_cases():
    for what in ("forward", "double"):
        times = {"ours_ms": 1.5, "e3nn_ms": 18.0, "share_of_copy": [0.4, 0.5, 0.625], "least_bytes": 77}
        row = {"case": "convolution, 8 channels", "edges": 4000, "what": what, "dtype": "float32"}
        yield row | times | {"e3nn_over_ours": [11.0, 12.0, 13.0]}
        row["dtype"] = "float64"
        yield row | times | {"cuequivariance_over_ours": [21.0, 22.0, 23.0]}


def harmonic_cases():
    for lmax in (1, 2, 3):
        for count in (10_000, 100_000):
            row = {"what": "values", "count": count, "lmax": lmax, "dtype": "float32", "ours_ms": 1.0}
            yield row | {"sphericart_over_ours": [1.0, lmax * count / 1e5, 99.0]}


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "RESULTS", tmp_path)
    for name, cases in {
        "models": model_cases(),
        "md": dynamics_cases(),
        "neighbor_attention": attention_cases(),
        "tensor_product": product_cases(),
        "spherical_harmonics": harmonic_cases(),
    }.items():
        record = HEADER | {"benchmark": name, "cases": list(cases)}
        (tmp_path / f"{name}-a-machine.json").write_text(json.dumps(record))
    plots.main()
    return (tmp_path / "README.md").read_text()


def test_page_shows_every_picture(page, tmp_path):
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert len(pictures) == 5
    assert all(f"]({name})" in page for name in pictures)


def test_page_says_every_number(page):
    assert "11 [10, 12]" in page
    assert "| 12.5 | 10% | 3.25 | 30% |" in page
    assert "2.25 [1, 3]" in page
    assert "mace eager | skipped: absent" in page
    assert "| aspirin | 1 | mace eager | 1.25 | 34.5 | 18 [17, 19] |" in page
    assert "| aspirin | 1 | nequip eager | skipped: absent | | |" in page
    assert "| time | edges (atoms added) | 1.00, 1.00, 1.00 |" in page
    assert "0123456789" in page
    assert "| case | edges | what | dtype | ours ms | e3nn ms | share of copy | e3nn / ours | cuequi" in page
    assert "8 channels | 4000 | double | float32 | 1.5 | 18 | 0.5 [0.4, 0.625] | 12 [11, 13] |  |" in page
    assert "| 0.5 [0.4, 0.625] |  | 22 [21, 23] |" in page
    assert "| values | sphericart | 6 | 0.1 | 0.65 | 3 |" in page


def test_figures_draw_every_ratio():
    """The height of each bar and the place of each point."""
    bars = plots.ratios_figure({"cases": list(product_cases())})
    heights = [[bar.get_height() for bar in panel.patches] for panel in bars.axes]
    for panel in heights:
        assert [height for height in panel if height == height] == [12.0, 22.0]
    points = plots.harmonics_figure({"cases": list(harmonic_cases())})
    lines = [line for line in points.axes[0].lines if len(line.get_xdata()) == 3]
    assert [list(line.get_ydata()) for line in lines] == [[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]]
