"""Every way in which data is refused: one line, exit code 3, the champion untouched."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import SOLAR_CELLS, read_labels, small_settings, write_labels
from training.config import load_config
from training.errors import DataRejected
from training.steps import run_step


def no_folder(cells):
    shutil.rmtree(cells)


def empty_folder(cells):
    no_folder(cells)
    cells.mkdir()


def no_labels(cells):
    (cells / "labels.csv").unlink()
    for path in (cells / "images").iterdir():
        path.rename(cells / path.name)
    (cells / "images").rmdir()


def no_rows(cells):
    write_labels(cells, [])


def other_columns(cells):
    (cells / "labels.csv").write_text("file,class\na.png,intact\n")


def not_text(cells):
    (cells / "labels.csv").write_bytes(b"\xff\xfe\x00path")


def unknown_label(cells):
    rows = read_labels(cells)
    rows[0][1] = "crackd"
    write_labels(cells, rows)


def no_label(cells):
    rows = read_labels(cells)
    rows[0][1] = ""
    write_labels(cells, rows)


def one_class(cells):
    write_labels(cells, [row for row in read_labels(cells) if row[1] == "intact"])


def too_few(cells):
    rows = read_labels(cells)
    write_labels(cells, [row for row in rows if row[1] == "intact"] + [row for row in rows if row[1] != "intact"][:4])


def truncated(cells):
    path = cells / read_labels(cells)[0][0]
    path.write_bytes(path.read_bytes()[:2000])


def text_as_png(cells):
    (cells / read_labels(cells)[0][0]).write_text("this is no image")


def missing_image(cells):
    (cells / read_labels(cells)[0][0]).unlink()


def outside(cells):
    write_labels(cells, [["../../etc/passwd", "intact"], *read_labels(cells)])


def two_labels(cells):
    (name, label), *_ = read_labels(cells)
    shutil.copyfile(cells / name, cells / "copy.png")
    write_labels(cells, [["copy.png", "defective" if label == "intact" else "intact"], *read_labels(cells)])


def same_image_twice(cells):
    (name, label), *_ = read_labels(cells)
    shutil.copyfile(cells / name, cells / "copy.png")
    write_labels(cells, [["copy.png", label], *read_labels(cells)])


def too_small(cells):
    Image.new("L", (8, 8)).save(cells / read_labels(cells)[0][0])


def other_mode(cells):
    path = cells / read_labels(cells)[0][0]
    with Image.open(path) as image:
        image.convert("LA").save(path)


@pytest.mark.parametrize(
    ("damage", "step", "told"),
    [
        (no_folder, "ingest", "data.uri: received"),
        (empty_folder, "ingest", "data.uri: received"),
        (no_labels, "ingest", "no labels"),
        (no_rows, "ingest", "no labels"),
        (other_columns, "ingest", "expected the columns path,label"),
        (not_text, "ingest", "not UTF-8"),
        (unknown_label, "validate", "crackd"),
        (no_label, "validate", "label"),
        (one_class, "validate", "defective"),
        (too_few, "validate", "split.min_per_class"),
        (truncated, "validate", "truncated"),
        (text_as_png, "validate", "cannot identify"),
        (missing_image, "validate", "no such file"),
        (outside, "validate", "../../etc/passwd"),
        (two_labels, "validate", "2 labels"),
        (same_image_twice, "validate", "copy.png"),
        (too_small, "validate", "width"),
        (other_mode, "validate", "LA"),
    ],
)
def test_bad_data_is_one_line_and_exit_3(cells: Path, tmp_path: Path, damage, step, told):
    damage(cells)
    run_uri = str(tmp_path / "run")
    config = load_config(SOLAR_CELLS, small_settings(cells, tmp_path))
    if step == "validate":
        run_step("ingest", config, run_uri)
    with pytest.raises(DataRejected) as caught:
        run_step(step, config, run_uri)
    assert told in caught.value.message and "\n" not in caught.value.message
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert (failure["step"], failure["exit_code"], failure["message"]) == (step, 3, caught.value.message)
    assert not (tmp_path / "run" / "done" / f"{step}.json").exists()
    assert not (tmp_path / "champion").exists()
