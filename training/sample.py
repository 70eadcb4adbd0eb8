"""The sample images: 2,624 real solar cells from the `elpv-dataset` wheel, laid out with a labels.csv.

Data licence CC BY-NC-SA 4.0 (Buerhop-Lutz et al. 2018; Deitsch et al. 2019, 2021), so they are installed, never kept
in the repository.
"""

import csv
import importlib.util
import io
import logging
import shutil
from pathlib import Path

from training.errors import ConfigError, received
from training.store import LocalStore

log = logging.getLogger(__name__)
# Cells with a defect probability of at least one half count as defective.
DEFECTIVE_FROM = 0.5


def write_sample(folder: Path) -> int:
    """Copy the images and write `labels.csv` (path,label) last; returns how many there are.

    Raises:
        ConfigError: the wheel is not installed.
    """
    source = _wheel_data()
    rows = [line.split()[:2] for line in (source / "labels.csv").read_text().splitlines()]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name, _ in rows:
        shutil.copyfile(source / name, folder / name)
    LocalStore(folder).write("labels.csv", _labels(rows))
    log.info("%d images in %s", len(rows), folder)
    return len(rows)


def _labels(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label"])
    for name, probability in rows:
        writer.writerow([name, "defective" if float(probability) >= DEFECTIVE_FROM else "intact"])
    return text.getvalue().encode()


def _wheel_data() -> Path:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise ConfigError(received("sample", "no elpv-dataset", "it installed (pip install -r requirements-demo.txt)"))
    return Path(spec.origin).parent / "data"
