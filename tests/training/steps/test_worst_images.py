import hashlib
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import SOLAR_CELLS, small_settings
from training import manifest
from training.config import load_config
from training.run_folder import Run
from training.steps.worst_images import worst_images
from training.store import open_store

NAMES = ("<img src=x onerror=alert(1)>.png", "b.png", "c.png", "d.png")
# All of them intact; the last one is decided rightly.
LOGITS, LABELS = np.array([[5.0], [4.0], [3.0], [-3.0]]), np.zeros(4, int)


def picture(brightness):
    buffer = io.BytesIO()
    Image.fromarray(np.full((300, 200), brightness, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def run(tmp_path):
    """A run whose test split is four images."""
    data = tmp_path / "data"
    data.mkdir()
    contents = [picture(60 * place) for place in range(4)]
    for name, content in zip(NAMES, contents, strict=True):
        (data / name).write_bytes(content)
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    table = pd.DataFrame(dict.fromkeys(manifest.COLUMNS), index=range(4)).assign(
        path=NAMES, sha256=digests, label="intact", split="test"
    )
    run = Run(open_store(str(tmp_path / "run")), load_config(SOLAR_CELLS, small_settings(data, tmp_path)))
    run.store.write("manifest.parquet", manifest.to_parquet(manifest.typed(table)))
    run.store.write("quarantine.parquet", manifest.to_parquet(pd.DataFrame({"row": pd.Series([], dtype="int64")})))
    return run


def test_each_mistake_is_told_and_shown(run):
    first, *others = worst_images(run, LOGITS, LABELS, 0.5)
    assert (first.path, first.label, first.decided) == (NAMES[0], "intact", "defective")
    assert first.probability == pytest.approx(1 / (1 + np.exp(-5)))
    assert first.loss == pytest.approx(np.log(1 + np.exp(5)))
    assert [found.path for found in others] == ["b.png", "c.png"]
    with Image.open(io.BytesIO(first.thumbnail)) as small:
        assert (small.format, max(small.size)) == ("JPEG", 128)


def test_an_image_that_is_gone_or_another_has_no_picture(run, tmp_path):
    (tmp_path / "data" / NAMES[0]).unlink()
    (tmp_path / "data" / "b.png").write_bytes(picture(255))
    found = worst_images(run, LOGITS, LABELS, 0.5)
    assert [mistake.thumbnail is None for mistake in found] == [True, True, False]


def test_logits_that_are_not_finite_show_nothing(run):
    assert worst_images(run, np.full((4, 1), np.nan), LABELS, None) == ()
