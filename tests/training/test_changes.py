import pytest

from tests.conftest import SOLAR_CELLS, read_labels, small_settings, write_labels
from training import provenance
from training.changes import changes, changes_since
from training.config import load_config
from training.steps import run_step

HERE = {
    "code_commit": "abc",
    "python": "3.11.7",
    "platform": "Linux",
    "processor": "Xeon",
    "threads": 2,
    "memory_bytes": 2**34,
    "versions": {"keras": "3.15.1", "numpy": "2.4.6"},
}


def made(data="d1", **facts):
    return {"data_sha256": data, "environments": {"e": HERE | facts}}


def test_nothing_is_told_where_nothing_changed():
    assert changes(made(platform="another", memory_bytes=1), HERE, "d1") == []
    assert changes(made(), HERE | {"versions": HERE["versions"] | {"another": "1"}}, "d1") == []


@pytest.mark.parametrize(
    ("then", "line"),
    [
        (made(code_commit="def"), "code: commit def then, abc now"),
        (made(code_commit=None), "code: commit unknown then, abc now"),
        (made(versions={"keras": "3.15.0", "numpy": "2.4.6"}), "versions: keras 3.15.0 then, 3.15.1 now"),
        (
            made(versions={"gone": "1"}, python="3.12"),
            "versions: python 3.12 then, 3.11.7 now, gone 1 then, nothing now",
        ),
        (made(threads=8), "machine: threads 8 then, 2 now; the last bits of numbers may differ"),
        (made("d0"), "data: d0 then, d1 now (SHA-256 of the images' paths, contents and labels)"),
    ],
)
def test_one_line_says_what_differs(then, line):
    assert changes(then, HERE, "d1") == [line]


def test_what_cannot_be_compared_is_told():
    assert changes(made(code_commit=None), HERE | {"code_commit": None}, "d1") == [
        "code: commit unknown then and now, so it cannot be compared"
    ]
    (line,) = changes(made(code_commit="abc+changes"), HERE | {"code_commit": "abc+changes"}, "d1")
    assert "abc+changes then and now, so the changes cannot be compared" in line
    first, second = changes({}, HERE, "d1")
    assert "unknown then" in first and "data: unknown then, d1 now" in second


def test_every_environment_of_the_earlier_run_counts():
    then = {"data_sha256": "d1", "environments": {"a": HERE, "b": HERE | {"threads": 4}, "c": HERE | {"threads": 4}}}
    assert changes(then, HERE, "d1") == ["machine: threads 4 then, 2 now; the last bits of numbers may differ"]


def test_other_labels_are_other_data(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "environment", lambda: HERE)
    config = load_config(SOLAR_CELLS, small_settings(cells, tmp_path))
    runs = [str(tmp_path / name) for name in ("one", "same", "other")]
    for uri in runs[:2]:
        run_step("ingest", config, uri)
    (first, label), *others = read_labels(cells)
    write_labels(cells, [[first, "defective" if label == "intact" else "intact"], *others])
    run_step("ingest", config, runs[2])
    assert changes_since(runs[0], runs[1]) == []
    (line,) = changes_since(runs[0], runs[2])
    assert line.startswith("data: ")
