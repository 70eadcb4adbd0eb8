"""Ways to train, side by side: small real studies, and the figures they show."""

import csv
import gc
import io
import json
import xml.etree.ElementTree as ElementTree

import pytest

from tests.conftest import SOLAR_CELLS, small_settings
from tests.training.test_main import call
from training import study as studies
from training.config import GateConfig, from_json, load_config
from training.errors import ConfigError, DataRejected, Diverged
from training.evaluation import Evaluation
from training.run_folder import Run
from training.steps import train
from training.store import open_store
from training.study import FILES, VARIANTS, ending, run_study, without_recalibration
from training.study_charts import draw
from training.study_table import Row, Study, as_csv, as_markdown, as_text
from training.verdict import judge

COMPARED = ("frozen", "trainable")


def settings(data, out, **more):
    """Those of the smallest night; the champion's store is the study's own affair."""
    small = {key: value for key, value in small_settings(data, out).items() if key != "store.champion"}
    return small | more


@pytest.fixture(scope="module")
def done(few_cells, tmp_path_factory):
    """A study that was interrupted after the first training, and called again: its folder, result, and the call."""
    out = tmp_path_factory.mktemp("study")

    def again(**more):
        chosen = {"seeds": [0], "only": COMPARED, "overrides": settings(few_cells, out)} | more
        return run_study(str(SOLAR_CELLS), str(out), **chosen)

    def interrupted(step, config, uri):
        if step == "recalibrate_batch_norm":
            raise KeyboardInterrupt
        return run_step(step, config, uri)

    run_step = studies.run_step
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(studies, "run_step", interrupted)
        again()
    assert sorted(path.name for path in out.iterdir()) == ["champion_data", "runs"]
    trained, graphs = changed(out / "runs" / "frozen-0" / "checkpoint"), training_graphs()
    study = again()
    assert trained == changed(out / "runs" / "frozen-0" / "checkpoint")
    assert training_graphs() <= graphs  # a long study does not grow
    return out, study, again


def training_graphs():
    """How many graphs of Keras's training step are in memory."""
    gc.collect()
    return sum(type(thing).__name__ == "FuncGraph" and "one_step" in thing.name for thing in gc.get_objects())


def changed(folder):
    """When each file below a folder was last written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def of_run(out, row, name):
    return json.loads((out / "runs" / f"{row['variant']}-{row['seed']}" / name).read_text())


def test_every_file_is_there_and_parses(done):
    out, study, _ = done
    assert Study.model_validate_json((out / "study.json").read_text()) == study
    rows = list(csv.DictReader(io.StringIO((out / "study.csv").read_text())))
    assert [(row["variant"], row["seed"]) for row in rows] == [(name, "0") for name in COMPARED]
    assert ElementTree.parse(out / "study.svg").getroot().tag.endswith("svg")
    assert (out / "study.png").read_bytes().startswith(b"\x89PNG")
    assert all((out / name).stat().st_size for name in FILES)
    assert not list(out.glob("champion/**/*")) and not list(out.rglob("done/promote.json"))


def test_figures_are_those_of_the_runs(done):
    out, _, _ = done
    for row in json.loads((out / "study.json").read_text())["runs"]:
        evaluation = of_run(out, row, "evaluation.json")
        losses, test = evaluation["losses"], evaluation["metrics"]["test"]
        assert row["fit_loss"] == losses["fit"] and row["batch_statistics_loss"] == losses["batch_statistics"]
        assert (row["loss_before"], row["loss_after"]) == (losses["inference_before"], losses["inference"])
        assert row["gap_before"] == pytest.approx(losses["inference_before"] - losses["fit"], rel=1e-12)
        assert row["gap_after"] == pytest.approx(losses["inference"] - losses["fit"], rel=1e-12)
        assert row["gap_after_interval"] == evaluation["intervals"]["served_minus_fit"]
        assert row["validation_loss"] == losses["validation"]
        assert (row["test_loss"], row["test_roc_auc"]) == (test["loss"], test["roc_auc"])
        assert row["test_roc_auc_interval"] == test["roc_auc_interval"]
        assert row["test_loss_interval"] == test["loss_interval"]
        assert row["accepted"] == of_run(out, row, "verdict.json")["accepted"]
        seconds = {name: step["seconds"] for name, step in of_run(out, row, "provenance.json")["steps"].items()}
        assert row["train_seconds"] == seconds["train"] and "evaluate" in seconds
        assert row["total_seconds"] == pytest.approx(sum(seconds.values()), abs=0.06)


def test_runs_share_data_and_split_and_differ_in_what_the_variant_says(done):
    out, _, _ = done
    manifests = {path.read_bytes() for path in out.glob("runs/*/manifest.parquet")}
    assert len(manifests) == 1
    frozen, trainable = (of_run(out, {"variant": name, "seed": 0}, "config.json") for name in COMPARED)
    assert (frozen["model"].pop("policy"), trainable["model"].pop("policy")) == COMPARED
    assert frozen == trainable


def test_where_no_batch_norm_trains_recalibration_changes_nothing(done):
    _, study, _ = done
    for row in study.of("frozen"):
        assert row.batch_statistics_loss == row.loss_before == row.loss_after
        assert (row.recalibrated, row.accepted_without_recalibration) == (False, row.accepted)
    for row in study.of("trainable"):
        assert row.recalibrated and row.loss_before != row.loss_after


def test_calling_it_again_does_nothing_again(done):
    out, study, again = done
    before = changed(out / "runs")
    shown = {name: (out / name).read_bytes() for name in FILES}
    assert again() == study
    assert before == changed(out / "runs")
    assert shown == {name: (out / name).read_bytes() for name in FILES}


def test_other_settings_in_the_same_folder_are_refused(done, few_cells):
    out, _, again = done
    with pytest.raises(ConfigError, match=r"train\.epochs"):
        again(overrides=settings(few_cells, out, **{"train.epochs": 2}))


@pytest.mark.soak
def test_a_refused_run_is_a_result(few_cells, tmp_path):
    """The failure itself, served as training left it."""

    def failure():
        overrides = settings(few_cells, tmp_path, **{"recalibrate.enabled": False})
        only = ["trainable_momentum_0.999"]
        return run_study(str(SOLAR_CELLS), str(tmp_path), seeds=[0], only=only, overrides=overrides).runs[0]

    row = failure()
    assert (row.accepted, row.cause) == (False, "batch_norm")
    assert (row.accepted_without_recalibration, row.cause_without_recalibration) == (False, "batch_norm")
    assert row.gap_before > 1 and row.gap_after < row.gap_before / 3 and row.gap_after_interval is None
    assert "0 of 1 (batch_norm)" in (tmp_path / "study.md").read_text()
    assert "evaluate" in of_run(tmp_path, row, "provenance.json")["steps"]
    before = changed(tmp_path / "runs")
    assert failure() == row
    assert before == changed(tmp_path / "runs")
    run = Run(open_store(str(tmp_path / row.run)), from_json((tmp_path / row.run / "config.json").read_bytes()))
    assert ending(run) == "evaluate"
    wider = run.config.model_copy(update={"gate": GateConfig(max_loss_gap=100, max_batch_norm_gap=100)})
    assert ending(Run(run.store, wider)) is None  # another gate judges anew


def test_a_run_without_finite_losses_is_refused_and_has_no_figures(few_cells, tmp_path, monkeypatch):
    def burst(run):
        raise Diverged("training loss is nan", cause="non_finite")

    monkeypatch.setattr(train, "work", burst)
    overrides = settings(few_cells, tmp_path)
    study = run_study(str(SOLAR_CELLS), str(tmp_path), seeds=[0], only=["trainable"], overrides=overrides)
    row = study.runs[0]
    assert (row.accepted, row.cause, row.fit_loss, row.test_roc_auc) == (False, "non_finite", None, None)
    lines = (tmp_path / "study.md").read_text().splitlines()
    assert "| `trainable` | – | – | – | – | – | – | 0 of 1 (non_finite) | 0 of 1 (non_finite) |" in lines
    monkeypatch.setattr(train, "work", None)  # it is not trained again
    assert run_study(str(SOLAR_CELLS), str(tmp_path), seeds=[0], only=["trainable"], overrides=overrides) == study


def test_any_other_failure_ends_the_study(few_cells, tmp_path):
    overrides = settings(tmp_path / "nothing", tmp_path)
    with pytest.raises(DataRejected, match=r"data\.uri"):
        run_study(str(SOLAR_CELLS), str(tmp_path), seeds=[0, 1], only=["frozen"], overrides=overrides)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["frozen-0"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "frozen", "dance"], "--only: received 'dance', expected one of frozen, frozen_batch_norm"),
        (["--only", "frozen", "--set", "seed=3"], "--set: received 'seed', expected a setting that the study"),
        (["--only", "frozen", "--seeds", "-1"], "seed: received -1"),
        (["--only", "frozen", "--set", "train.epochs=0"], "train.epochs: received 0"),
    ],
)
def test_bad_usage_is_one_line_before_anything_runs(tmp_path, arguments, told):
    ended = call("study", "--config", str(SOLAR_CELLS), "--out", str(tmp_path / "out"), *arguments)
    assert ended.returncode == 2
    assert told in ended.stderr.splitlines()[0] and "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_configuration(name):
    config = load_config(SOLAR_CELLS, VARIANTS[name].settings)
    assert config.model.policy == VARIANTS[name].settings["model.policy"]


def test_without_recalibration_the_gate_sees_the_lagging_statistics():
    losses = dict.fromkeys(("fit", "train_mode", "batch_statistics", "inference", "natural", "validation"), 0.3)
    gaps = {"served_minus_fit": 0.0, "served_minus_batch_statistics": 0.0}
    lagging = {"inference_before_minus_fit": 1.5, "inference_before_minus_batch_statistics": 1.5}
    causes = ("moving_weights", "stochastic_layers", "small_batches", "sampling", "generalization")
    evaluation = Evaluation(
        losses=losses | {"inference_before": 1.8, "served": 0.3},
        causes=dict.fromkeys(causes, 0.0) | {"batch_norm": 1.5},
        gaps=gaps | lagging,
        intervals={name: (gap - 0.1, gap + 0.1) for name, gap in (gaps | lagging).items()},
        samples=320,
    )
    assert judge(evaluation, GateConfig()).accepted
    verdict = judge(without_recalibration(evaluation), GateConfig())
    assert [reason.code for reason in verdict.reasons] == ["loss_gap", "batch_norm_gap"]
    assert {reason.cause for reason in verdict.reasons} == {"batch_norm"}


def made_up(variant, seed, **figures):
    return Row(variant=variant, seed=seed, run=f"runs/{variant}-{seed}", train_seconds=60, total_seconds=80, **figures)


def test_the_tables_show_means_and_ranges_over_seeds():
    runs = [made_up("frozen", seed, fit_loss=loss) for seed, loss in enumerate((0.1, 0.2, 0.6))]
    study = Study(name="made_up", settings={}, variants={"frozen": VARIANTS["frozen"]}, runs=tuple(runs))
    assert "| `frozen` | 0.300 (0.100 to 0.600) | – |" in as_markdown(study).decode()
    heads, columns, line = as_text(study).splitlines()
    assert (heads.split()[0], columns.split()[:2], line.split()[:3]) == (
        "fit",
        ["variant", "A"],
        ["frozen", "0.300", "–"],
    )


def test_a_mean_says_over_how_many_runs_it_is():
    runs = [made_up("trainable", 0, accepted=True, fit_loss=0.25), made_up("trainable", 1, cause="non_finite")]
    study = Study(name="made_up", settings={}, variants={"trainable": VARIANTS["trainable"]}, runs=tuple(runs))
    page = as_markdown(study).decode()
    assert "| `trainable` | 0.250 [1 of 2] | – |" in page and "| 1 of 2 (non_finite) |" in page
    first, second = csv.DictReader(io.StringIO(as_csv(study).decode()))
    assert (first["fit_loss"], second["fit_loss"], second["gap_before_low"]) == ("0.25", "", "")


def test_the_picture_is_drawn_of_any_study_and_always_the_same():
    """Of one run as of many; where nothing is finite there is nothing to place, and it says so."""
    losses = {"fit_loss": 0.2, "loss_before": 13.8, "loss_after": 0.2}
    full = losses | {"test_roc_auc": 0.88, "test_roc_auc_interval": (0.85, 0.91)}
    for runs in ([made_up("frozen", 0)], [made_up(name, seed, **full) for name in VARIANTS for seed in range(5)]):
        variants = {row.variant: VARIANTS[row.variant] for row in runs}
        study = Study(name="made_up", settings={}, variants=variants, runs=tuple(runs))
        picture = draw(study, "svg")
        assert picture == draw(study, "svg") and all(name in picture.decode() for name in variants)
        assert ("not finite: 1 of 1" in picture.decode()) == (len(runs) == 1)
        assert draw(study, "png").startswith(b"\x89PNG")
