"""Every way in which data is bad: a row in quarantine with its reason, or one line and exit code 3."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, SOLAR_CELLS, read_labels, small_settings, write_labels
from tests.training.bad_images import PLANTED
from training import manifest
from training.config import load_config
from training.errors import DataRejected
from training.steps import run_step
from training.store import open_store


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


def labels_in_a_folder(cells):
    no_labels(cells)
    (cells / "labels.csv").mkdir()


def no_rows(cells):
    write_labels(cells, [])


def other_columns(cells):
    (cells / "labels.csv").write_text("file,class\na.png,intact\n")


def not_text(cells):
    (cells / "labels.csv").write_bytes(b"\xff\xfe\x00path")


def utf_16(cells):
    (cells / "labels.csv").write_text("path,label\na.png,intact\n", encoding="utf-16")


def one_endless_line(cells):
    (cells / "labels.csv").write_text('path,label\n"' + "a" * 200_000)


def one_class(cells):
    write_labels(cells, [row for row in read_labels(cells) if row[1] == "intact"])


def too_few(cells):
    rows = read_labels(cells)
    write_labels(cells, [row for row in rows if row[1] == "intact"] + [row for row in rows if row[1] != "intact"][:4])


def more_bad_than_tolerated(cells):
    for name, _ in read_labels(cells)[:3]:
        (cells / name).write_text("this is no image")


def all_unknown(cells):
    write_labels(cells, [[name, "broken"] for name, _ in read_labels(cells)])


def all_small(cells):
    for name, _ in read_labels(cells):
        with Image.open(cells / name) as image:
            image.resize((20, 20)).save(cells / name)


@pytest.mark.parametrize(
    ("damage", "step", "told"),
    [
        (no_folder, "ingest", "data.uri: received"),
        (empty_folder, "ingest", "data.uri: received"),
        (no_labels, "ingest", "no labels"),
        (labels_in_a_folder, "ingest", "no labels"),
        (no_rows, "ingest", "no labels"),
        (other_columns, "ingest", "expected the columns path,label"),
        (not_text, "ingest", "not UTF-8"),
        (utf_16, "ingest", "not UTF-8"),
        (one_endless_line, "ingest", "no CSV"),
        (one_class, "validate", "defective"),
        (too_few, "validate", "split.min_per_class"),
        (more_bad_than_tolerated, "validate", "(and 2 more)"),
        (all_unknown, "validate", "label: received 'broken'"),
        (all_small, "validate", "width: received 20"),
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


@pytest.fixture(scope="module")
def night(few_cells, tmp_path_factory):
    """A data set with everything that can be wrong with a row, taken in and validated from the command line."""
    folder = tmp_path_factory.mktemp("planted")
    shutil.copytree(few_cells, folder / "cells")
    with (folder / "cells" / "labels.csv").open("w", newline="") as labels:
        labels.write("path,label,group\n" + "".join(f"{name},{label},\n" for name, label in read_labels(few_cells)))
        planted = {}
        for number, (name, (plant, *_)) in enumerate(PLANTED.items()):
            planted[name] = [_apart(folder / "cells", line, number) for line in plant(folder / "cells")]
            labels.write("".join(f"{line}\n" for line in planted[name]))
    settings = small_settings(folder / "cells", folder) | {"data.max_bad_fraction": 0.5, "data.max_side": 8500}
    run(folder, "ingest", settings)
    run(folder, "validate", settings)
    return folder / "run", planted


# The peak of this process alone, in KiB; what the system counts of a child begins with its parent's.
MEASURED = """
import sys
from training.__main__ import main
code = main()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""


def _apart(cells, line, number):
    """The same line; links all have one name, so each is moved to a name of its own."""
    if not line.startswith("link.png"):
        return line
    name = f"link{number}.png"
    (cells / "link.png").rename(cells / name)
    if (cells / name).readlink() == Path("link.png"):
        (cells / name).unlink()
        (cells / name).symlink_to(name)
    return line.replace("link.png", name)


def run(folder, step, settings):
    """One step as a process of its own, which may neither hang, nor print a traceback, nor use a GiB."""
    options = [option for key, value in settings.items() for option in ("--set", f"{key}={value}")]
    command = [sys.executable, "-c", MEASURED, step, "--config", str(SOLAR_CELLS), "--run", str(folder / "run")]
    done = subprocess.run([*command, *options], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr, (done.stdout + done.stderr)[-2000:]
    assert int(done.stdout.split()[-1]) < 2**20


@pytest.mark.parametrize("name", PLANTED)
def test_a_bad_row_goes_into_quarantine_with_its_reason(night, name):
    folder, planted = night
    _, rule, words = PLANTED[name]
    store = open_store(str(folder))
    lines = planted[name]
    rows = manifest.from_parquet(store.read("quarantine.parquet"))
    found = rows[rows["path"].fillna("").isin([_path(line) for line in lines])]
    if rule is None:
        assert found.empty
        return
    assert set(found["rule"]) == {rule}
    assert found["reason"].str.contains(words, regex=False).all() and not found["reason"].str.contains("\n").any()
    # Of what is only there twice, once is right.
    assert len(found) == (1 if rule == "unique_content" else len(lines))


def _path(line):
    return line[1:].partition('"')[0] if line.startswith('"') else line.partition(",")[0]


def test_what_is_good_goes_on(night):
    """Nothing else is taken out; what is listed in another spelling is found."""
    folder, planted = night
    accepted = manifest.accepted(open_store(str(folder)))
    good = sum(len(lines) for name, lines in planted.items() if PLANTED[name][1] is None)
    assert len(accepted) == 130 + good + 2  # and one each of what is there twice
    assert {"deep/er/cell.png", "dot.png"} <= set(accepted["path"])
    report = json.loads((folder / "validation.json").read_text())
    assert report["accepted"] == len(accepted) and sum(report["quarantined"].values()) == report["images"] - len(
        accepted
    )


def test_every_spreadsheets_csv_is_read(few_cells, tmp_path):
    """With a byte order mark, semicolons or tabs, other line ends, capitals and spaces in the header."""
    rows = read_labels(few_cells)
    manifests = []
    for number, (delimiter, end, mark) in enumerate([(",", "\n", ""), (";", "\r\n", "\ufeff"), ("\t", "\r\n", "")]):
        cells = Path(shutil.copytree(few_cells, tmp_path / f"cells{number}"))
        lines = [delimiter.join(("Path", " label ") if delimiter != "," else ("path", "label"))]
        lines += [delimiter.join(row) for row in rows]
        (cells / "labels.csv").write_bytes((mark + end.join(lines)).encode())
        config = load_config(SOLAR_CELLS, small_settings(cells, tmp_path / str(number)))
        run_step("ingest", config, str(tmp_path / f"run{number}"))
        manifests.append((tmp_path / f"run{number}" / "manifest.parquet").read_bytes())
    assert manifests[0] == manifests[1] == manifests[2]


def test_a_file_name_that_is_not_utf_8(few_cells, tmp_path):
    cells = tmp_path / "cells"
    for name, label in read_labels(few_cells):
        (cells / label).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(few_cells / name, cells / label / Path(name).name)
    with open(bytes(cells / "intact") + b"/caf\xe9.png", "wb") as file:  # noqa: PTH123 a Path holds text
        file.write((few_cells / read_labels(few_cells)[0][0]).read_bytes())
    config = load_config(SOLAR_CELLS, small_settings(cells, tmp_path))
    for step in ("ingest", "validate"):
        run_step(step, config, str(tmp_path / "run"))
    (row,) = manifest.from_parquet((tmp_path / "run" / "quarantine.parquet").read_bytes()).to_dict("records")
    assert "UTF-8" in row["reason"] and row["path"] == r"intact/caf\udce9.png"


def test_a_thousandth_of_bad_images_does_not_end_the_night(cells, tmp_path):
    first = read_labels(cells)[0][0]
    (cells / first).write_bytes(np.random.default_rng(0).bytes(500))
    config = load_config(SOLAR_CELLS, small_settings(cells, tmp_path))
    for step in ("ingest", "validate", "oversample"):
        run_step(step, config, str(tmp_path / "run"))
    plan = json.loads((tmp_path / "run" / "sampling.json").read_text())
    quarantine = manifest.from_parquet((tmp_path / "run" / "quarantine.parquet").read_bytes())
    assert list(quarantine["path"]) == [first] and quarantine["sha256"][0] not in plan["images"]
