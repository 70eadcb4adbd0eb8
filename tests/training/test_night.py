"""Whole nights without Airflow, on real images."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import tensorflow as tf

from tests.conftest import OPEN, SOLAR_CELLS, small_settings
from tests.faults import flipped
from tests.nights import rewrite
from training import champion
from training.__main__ import main
from training.config import load_config
from training.errors import ConfigError, Diverged, NightshiftError, StoreError
from training.exports import LIMITS
from training.images import decode
from training.network import from_bytes
from training.step_names import STEPS
from training.steps import run_all, run_step
from training.store import open_store

FILES = (
    *("config.json", "manifest.parquet", "validation.json", "data_docs/index.html", "quarantine.parquet"),
    *("sampling.json", "checkpoint/model.keras", "history.csv", "recalibrated/model.keras", "batch_norm.json"),
    *("evaluation.json", "verdict.json", "report.html", "losses.png", "provenance.json"),
)


def test_every_file_is_there_and_parses(night):
    run = night[0] / "run"
    for name in FILES:
        content = (run / name).read_bytes()
        if name.endswith(".json"):
            json.loads(content)
        elif name.endswith(".parquet"):
            pd.read_parquet(io.BytesIO(content))
        elif name.endswith(".keras"):
            assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None
        else:
            assert content
    assert not list(run.rglob(".unfinished-*")) and not (run / "failure.json").exists()
    assert list((run / "tensorboard").rglob("events.*"))


def test_losses_and_causes_are_the_contracts(night):
    evaluation = json.loads((night[0] / "run" / "evaluation.json").read_text())
    names = [
        "fit",
        "train_mode",
        "batch_statistics",
        "inference_before",
        "inference",
        "natural",
        "validation",
        "served",
    ]
    assert set(evaluation["losses"]) == set(names)
    chain = ["moving_weights", "stochastic_layers", "small_batches", "sampling", "generalization"]
    assert set(evaluation["causes"]) == {*chain, "batch_norm"}
    total = evaluation["losses"]["validation"] - evaluation["losses"]["fit"]
    assert sum(evaluation["causes"][name] for name in chain) == pytest.approx(total)
    assert set(evaluation["metrics"]) == {"train", "validation", "test"}


def test_the_champion_answers_for_raw_images(night, few_cells):
    folder, config = night
    store = open_store(config.store.champion)
    entry = champion.current(store)
    assert entry.number == 1 and entry.run == str(folder / "run")
    model = from_bytes(champion.read_model(store, entry))
    image = decode(next((few_cells / "images").iterdir()).read_bytes())
    answer = model(image[None]).numpy()
    assert answer.shape == (1, 1) and 0 < answer[0, 0] < 1
    beside = (folder / "champion" / entry.model).parent
    saved = tf.saved_model.load(beside / "saved_model")
    (other,) = onnxruntime.InferenceSession(beside / "model.onnx").run(["probability"], {"images": image[None]})
    others = [saved.serve(image[None])["probability"], other]
    np.testing.assert_allclose(others, [answer, answer], atol=LIMITS["model.onnx"])


def test_promotion_and_card_say_how_alike_the_formats_are(night):
    folder, config = night
    promotion = json.loads((folder / "run" / "promotion.json").read_text())
    worst = promotion["exports"]["largest_difference"]
    assert worst.keys() == LIMITS.keys() and all(worst[form] <= LIMITS[form] for form in worst)
    card = (folder / "champion" / promotion["model"].replace("model.keras", "model_card.md")).read_text()
    made = json.loads((folder / "run" / "provenance.json").read_text())
    assert "champion 1" in card and f"| `model.onnx` | {worst['model.onnx']:.1e} |" in card
    assert made["data_sha256"] in card and f"**Seed**: {config.seed}" in card
    (environment,) = made["environments"].values()
    assert str(environment["code_commit"] or "unknown") in card and environment["processor"] in card


def test_a_format_that_answers_otherwise_is_not_promoted(night, tmp_path, monkeypatch):
    folder, config = night
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    (run / "done" / "promote.json").unlink()
    before = sorted(path for path in (folder / "champion").rglob("*"))
    monkeypatch.setitem(LIMITS, "model.onnx", 1e-12)
    with pytest.raises(NightshiftError, match=r"model\.onnx: received 'a difference"):
        run_step("promote", config, str(run))
    assert sorted(path for path in (folder / "champion").rglob("*")) == before
    assert json.loads((run / "failure.json").read_text())["cause"] == "export"


def test_doing_it_again_does_nothing(night, caplog):
    folder, config = night
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*") if path.is_file()}
    with caplog.at_level("INFO", logger="training"):
        run_all(config, str(folder / "run"))
    assert [f"{step}: already done" for step in STEPS] == [record.message for record in caplog.records]
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*") if path.is_file()}


def test_another_config_is_refused_and_the_keys_named(night, tmp_path):
    folder, config = night
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    other = config.model_copy(update={"seed": 5})
    with pytest.raises(ConfigError, match="seed"):
        run_step("train", other, str(run))


def test_a_new_gate_evaluates_anew_and_the_old_model_stays(night, tmp_path):
    folder, config = night
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.keras")}
    measured, marker = ((run / name).read_bytes() for name in ("evaluation.json", "done/evaluate.json"))
    other = config.model_copy(update={"gate": config.gate.model_copy(update={"max_loss_gap": 60.0})})
    run_step("train", other, str(run))
    run_step("evaluate", other, str(run))
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*.keras")}
    assert (run / "evaluation.json").read_bytes() == measured
    assert (run / "done" / "evaluate.json").read_bytes() != marker
    assert not (run / "done" / "promote.json").exists()


def test_a_refused_model_is_never_promoted(night, tmp_path):
    folder, config = night
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    reason = {"code": "loss_gap", "message": "too far", "observed": 2.0, "limit": 0.2, "cause": "batch_norm"}
    verdict = {"accepted": False, "reasons": [{**reason, "remedy": "recalibrate"}], "champion": None}
    rewrite(run, "verdict.json", json.dumps(verdict).encode())
    with pytest.raises(Diverged, match="too far"):
        run_step("promote", config, str(run))
    assert len(champion.history(open_store(config.store.champion))) == 1


@pytest.mark.parametrize(
    ("damaged", "step"),
    [
        ("manifest.parquet", "train"),
        ("sampling.json", "train"),
        ("checkpoint/model.keras", "recalibrate_batch_norm"),
        ("recalibrated/model.keras", "evaluate"),
        ("recalibrated/model.keras", "promote"),
        ("verdict.json", "promote"),
        ("done/ingest.json", "train"),
    ],
)
def test_a_flipped_bit_is_named_and_never_loaded(night, tmp_path, damaged, step):
    folder, config = night
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    (run / "done" / f"{step}.json").unlink()
    content = (run / damaged).read_bytes()
    (run / damaged).write_bytes(flipped(content, 0.0 if damaged.startswith("done/") else 0.5))
    with pytest.raises(StoreError, match=damaged) as caught:
        run_step(step, config, str(run))
    assert caught.value.cause == "damaged" and caught.value.exit_code == 1
    assert json.loads((run / "failure.json").read_text())["cause"] == "damaged"
    assert len(champion.history(open_store(config.store.champion))) == 1


def test_a_step_whose_own_files_are_damaged_does_its_work_anew(night, tmp_path):
    folder, config = night
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    (run / "sampling.json").write_bytes(flipped((run / "sampling.json").read_bytes()))
    (run / "done" / "oversample.json").write_bytes(b"{")
    run_step("oversample", config, str(run))
    assert (run / "sampling.json").read_bytes() == (folder / "run" / "sampling.json").read_bytes()


def test_a_step_before_its_turn_is_refused(small, tmp_path):
    with pytest.raises(ConfigError, match="begun by `ingest`"):
        run_step("validate", small, str(tmp_path / "run"))
    run_step("ingest", small, str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="`validate` is done before `train`"):
        run_step("train", small, str(tmp_path / "run"))


def test_repeated_on_s3_the_night_is_the_same(night, few_cells, s3, caplog):
    """Data, run and champion in a bucket: equal to the local run in every array, number and verdict."""
    folder, _ = night
    data = open_store(f"{s3}/images")
    for path in few_cells.rglob("*"):
        if path.is_file():
            data.write(path.relative_to(few_cells).as_posix(), path.read_bytes())
    settings = [f"data.uri={s3}/images", f"store.champion={s3}/champion", f"store.runs={s3}/runs"]
    with caplog.at_level("WARNING", logger="training"):
        again = ["run", "--like", str(folder / "run"), "--run", f"{s3}/runs/night"]
        assert main([*again, *(word for setting in settings for word in ("--set", setting))]) == 0
    # A checkout with changes says that they cannot be compared; nothing else differs.
    assert not [message for message in caplog.messages if "unlike" in message and "the changes" not in message]
    here, there = open_store(str(folder / "run")), open_store(f"{s3}/runs/night")
    for name in (
        "history.csv",
        "sampling.json",
        "evaluation.json",
        "verdict.json",
        "validation.json",
        "batch_norm.json",
    ):
        assert here.read(name) == there.read(name), name
    for name in ("checkpoint/model.keras", "recalibrated/model.keras"):
        one, other = (from_bytes(store.read(name)).get_weights() for store in (here, there))
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert champion.current(open_store(f"{s3}/champion")).number == 1


def test_recalibration_closes_the_gap_that_ends_the_night_without_it(few_cells, tmp_path):
    """Under the gate as shipped; the night without it runs through the real scheduler, in another test."""
    lagging = {"model.batch_norm_momentum": 0.999, "train.keep_epoch": "last", "train.epochs": 2}
    # So few steps leave the statistics behind by a little or by a lot, as rounding has it; larger ones, by enough.
    config = load_config(SOLAR_CELLS, small_settings(few_cells, tmp_path) | lagging | {"train.learning_rate": 0.003})
    run_all(config, str(tmp_path / "run"))
    losses = json.loads((tmp_path / "run" / "evaluation.json").read_text())["losses"]
    assert losses["inference_before"] > 3 * losses["batch_statistics"]
    assert losses["served"] == losses["inference"]
    assert json.loads((tmp_path / "run" / "verdict.json").read_text())["accepted"]
    report = json.loads((tmp_path / "run" / "batch_norm.json").read_text())
    assert report["applied"] and max(layer["mean_drift"] for layer in report["layers"]) > 0.1


def test_policies_freeze_what_they_say(few_cells, tmp_path):
    config = load_config(
        SOLAR_CELLS, small_settings(few_cells, tmp_path) | OPEN | {"model.policy": "frozen_batch_norm"}
    )
    for step in STEPS[:6]:
        run_step(step, config, str(tmp_path / "run"))
    report = json.loads((tmp_path / "run" / "batch_norm.json").read_text())
    assert report["applied"] is False and report["layers"]
    losses = json.loads((tmp_path / "run" / "evaluation.json").read_text())["losses"]
    assert losses["batch_statistics"] == losses["inference_before"] == losses["inference"]
    one, other = ((tmp_path / "run" / name / "model.keras").read_bytes() for name in ("checkpoint", "recalibrated"))
    assert one == other


def test_keras_loads_the_checkpoint_as_it_is(night):
    model = keras.saving.load_model(night[0] / "run" / "checkpoint" / "model.keras", safe_mode=True, compile=False)
    assert model.output_shape == (None, 1)
