import csv
import io
import json

from tests.conftest import SOLAR_CELLS, small_settings
from training.backbones import build_backbone
from training.config import load_config
from training.devices import names, used
from training.network import backbone_of, from_bytes
from training.step_names import STEPS
from training.steps import run_step
from training.store import open_store


def test_features_are_trained_on_and_an_ordinary_model_comes_out(few_cells, tmp_path):
    """Its base is the pretrained one to the byte."""
    config = load_config(SOLAR_CELLS, small_settings(few_cells, tmp_path) | {"model.policy": "features"})
    for step in STEPS[: STEPS.index("train") + 1]:
        run_step(step, config, str(tmp_path / "run"))
    store = open_store(str(tmp_path / "run"))
    model = from_bytes(store.read("checkpoint/model.keras"))
    assert model.input_shape == (None, 48, 48, 3) and model.output_shape == (None, 1)
    pretrained = build_backbone("efficientnet_lite0", 48, "imagenet").get_weights()
    found = backbone_of(model).get_weights()
    assert all(one.tobytes() == other.tobytes() for one, other in zip(found, pretrained, strict=True))
    row = next(csv.DictReader(io.StringIO(store.read("history.csv").decode())))
    assert float(row["stage"]) == 2 and float(row["cross_entropy"]) > 0
    assert json.loads(store.read("provenance.json"))["steps"]["train"]["devices"] == names(used(8))
