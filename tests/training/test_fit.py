import csv
import io

import numpy as np
import pytest

from tests.training.models import images, in_batches, small_network
from training.batchnorm import batch_norm_layers, learning_layers, recalibrate
from training.config import TrainConfig
from training.determinism import make_deterministic
from training.errors import Diverged
from training.fit import AS_THEY_ARE, FINE_TUNE, HEAD, _epochs, _labelled, fit, history_csv, stages
from training.logits import cross_entropies
from training.network import from_bytes, to_bytes
from training.rows import Rows
from training.sampling import make_plan

SETTINGS = {"batch_size": 16, "monitor_samples": 64, "learning_rate": 0.01}


@pytest.fixture
def data():
    """uint8 pixels in the plan's order, the plan, and validation images whose labels are noise."""
    x, labels = images(160)
    pixels = np.clip(x * 20 + 60, 0, 255).astype(np.uint8)
    plan = make_plan(
        {f"{place:03d}": "ab"[label] for place, label in enumerate(labels)},
        ("a", "b"),
        strategy="oversample",
        batch_size=16,
        seed=0,
    )
    noise = np.random.default_rng(1).integers(0, 2, 60)
    return plan, pixels[:160], (pixels[:60], noise)


def in_two_files(rows):
    half = len(rows) // 2
    place = np.arange(len(rows))
    return Rows([rows[:half], rows[half:]], place // half, place % half)


def run(data, model=None, **settings):
    plan, pixels, validation = data
    make_deterministic(0)
    model = model or small_network(momentum=0.999)
    return model, fit(model, plan, pixels, validation, TrainConfig(**SETTINGS | settings))


@pytest.mark.parametrize("done", [0, 3])
@pytest.mark.parametrize("place", [lambda pixels: pixels, in_two_files], ids=["in memory", "in files"])
def test_batches_are_the_plans_epochs_in_order(data, place, done):
    plan, pixels, _ = data
    dataset = _epochs(plan, place(pixels), 1, AS_THEY_ARE, range(1, 3), done)
    shown = [(x.numpy(), y.numpy()) for x, y in dataset]
    rows = np.concatenate([plan.epoch(1), plan.epoch(2)])[done * plan.batch_size :]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in shown]), pixels[rows])
    np.testing.assert_array_equal(np.concatenate([y for _, y in shown])[:, 0], np.asarray(plan.labels)[rows])
    assert {x.shape for x, _ in shown} == {(plan.batch_size, *pixels.shape[1:])}


def test_nothing_that_fit_reads_has_a_thread_that_tunes_it(data):
    """Each pass would end when that thread wakes up, up to as long again as the pass took."""
    plan, pixels, validation = data
    for dataset in (_epochs(plan, pixels, 1, AS_THEY_ARE, range(1)), _labelled(validation, 1, 16)):
        assert dataset.options().autotune.enabled is False


def test_step_losses_are_each_steps_own(data):
    plan, pixels, _ = data
    reference = small_network(momentum=0.999)
    _, fitted = run(data, epochs=1)
    batch = plan.epoch(0)[:16]
    probability = reference(pixels[batch].astype(np.float32), training=True).numpy()
    logits = np.log(probability) - np.log1p(-probability)
    truth = cross_entropies(logits, np.asarray(plan.labels)[batch]).mean()
    assert fitted.step_losses[0][0] == pytest.approx(truth, rel=1e-4)
    assert len(fitted.step_losses[0]) == plan.steps_per_epoch
    assert fitted.history[0]["cross_entropy"] == pytest.approx(fitted.history[0]["loss"], rel=1e-5)


def test_keras_traces_the_step_once(data):
    """It does so twice when variables are made by the first step; of a large network that takes seconds."""
    model = small_network(momentum=0.999)
    traced = []
    original = model.train_step
    model.train_step = lambda batch: traced.append(batch) or original(batch)
    run(data, model, epochs=2, head_epochs=1)
    assert len(traced) == 2  # once a stage


def test_patience_of_five_fires_and_the_best_epoch_is_kept(data):
    """Labels of validation are noise, so its loss soon only rises."""
    _, fitted = run(data, epochs=60, early_stopping_patience=5)
    losses = [row["recalibrated_val_loss"] for row in fitted.history]
    assert fitted.kept_epoch == 1 + int(np.argmin(losses))
    assert len(losses) == fitted.kept_epoch + 5 < 60


def test_the_monitor_is_the_loss_after_recalibration(data):
    plan, pixels, (x, y) = data
    model, fitted = run(data, epochs=2, keep_epoch="last")
    stale = [layer.moving_mean.numpy() for layer in batch_norm_layers(model)]
    copy = from_bytes(to_bytes(model))
    for layer, mean in zip(batch_norm_layers(copy), stale, strict=True):
        np.testing.assert_array_equal(layer.moving_mean.numpy(), mean)
    recalibrate(copy, in_batches(pixels[plan.take(64, "monitor")].astype(np.float32), 16))
    copy.compile(loss="binary_crossentropy")
    truth = copy.evaluate(x.astype(np.float32), y[:, None].astype(np.float32), verbose=0)
    assert fitted.history[-1]["recalibrated_val_loss"] == pytest.approx(truth, rel=1e-5)
    assert fitted.kept_epoch == 2


def test_lagging_statistics_do_not_choose_the_epoch(data):
    """The raw validation loss is far off, and would have stopped training that only got better."""
    plan, pixels, _ = data
    healthy = (plan, pixels, (pixels, np.asarray(plan.labels)))
    _, fitted = run(healthy, epochs=4)
    last = fitted.history[-1]
    assert last["recalibrated_val_loss"] < 0.7 < last["val_loss"]


def test_a_loss_that_is_not_finite_stops_at_once(data):
    model = small_network()
    model.layers[-1].bias.assign([np.nan])
    with pytest.raises(Diverged, match="in epoch 1, step 1") as caught:
        run(data, model, epochs=3)
    assert caught.value.cause == "non_finite" and caught.value.exit_code == 4


@pytest.mark.parametrize("epochs", [{"epochs": 2}, {"head_epochs": 1, "epochs": 1}])
def test_same_seed_same_model_to_the_bit(epochs, data):
    weights = []
    for _ in range(2):
        model, _ = run(data, small_network(dropout=0.3), **epochs)
        weights.append(np.concatenate([variable.numpy().ravel() for variable in model.trainable_variables]))
    assert weights[0].tobytes() == weights[1].tobytes()


def test_stages_follow_each_other_through_the_plan():
    assert [(stage.number, list(stage.epochs)) for stage in stages(TrainConfig(epochs=2))] == [(FINE_TUNE, [0, 1])]
    both = stages(TrainConfig(head_epochs=2, epochs=1, learning_rate=1e-5))
    assert [(stage.number, list(stage.epochs), stage.learning_rate) for stage in both] == [
        (HEAD, [0, 1], 1e-3),
        (FINE_TUNE, [2], 1e-5),
    ]


def test_no_epoch_of_the_head_alone_is_kept_or_stops_training(data):
    """Labels of validation are noise, so the first epochs look best."""
    _, fitted = run(data, head_epochs=4, epochs=60, early_stopping_patience=1, head_learning_rate=0.02)
    rows = fitted.history
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["stage"] for row in rows] == [HEAD] * 4 + [FINE_TUNE] * (len(rows) - 4)
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.02] * 4 + [0.01] * (len(rows) - 4))
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    assert len(fitted.step_losses) == len(rows) < 64
    tuned = [row["recalibrated_val_loss"] for row in rows[4:]]
    assert fitted.kept_epoch == 5 + int(np.argmin(tuned)) and fitted.kept_epoch == len(rows) - 1
    assert rows[fitted.kept_epoch - 1]["cross_entropy"] == pytest.approx(np.mean(fitted.step_losses[-2]))


def test_only_the_head_moves_in_its_stage(data):
    """Fine-tuning's steps are too small for float32 here; statistics move all the same."""
    before, model = small_network(momentum=0.9), small_network(momentum=0.9)
    run(data, model, head_epochs=1, epochs=1, learning_rate=1e-30)
    moved = {
        new.path
        for new, old in zip(model.trainable_variables, before.trainable_variables, strict=True)
        if "kernel" in new.path and not np.array_equal(new.numpy(), old.numpy())
    }
    assert {path.rpartition("/")[0].rpartition("/")[2] for path in moved} == {"second", model.layers[-1].name}
    loaded = from_bytes(to_bytes(model))
    assert len(learning_layers(loaded)) == 2 and len(loaded.trainable_variables) == 10


def test_the_learning_rate_of_an_epoch_is_the_one_it_had(data):
    _, fitted = run(data, epochs=5, reduce_lr_patience=1)
    rates = [row["learning_rate"] for row in fitted.history]
    assert rates[0] == rates[1] == pytest.approx(0.01) and rates[-1] < 0.0011


def test_loading_keeps_what_is_frozen(data):
    model = small_network()
    batch_norm_layers(model)[0].trainable = False
    run(data, model, epochs=1)
    loaded = from_bytes(to_bytes(model))
    assert [layer.name for layer in learning_layers(loaded)] == ["bn2"]


def test_history_is_exact(data):
    _, fitted = run(data, epochs=2)
    rows = list(csv.DictReader(io.StringIO(history_csv(fitted.history).decode())))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == fitted.history


def test_class_weights_weigh_the_loss_alone():
    """At a learning rate that moves nothing in float32, the first step's losses can be had by hand."""
    x, labels = images(160, classes=3)
    labels = np.where(np.arange(160) < 100, 0, labels)
    plan = make_plan(
        {f"{place:03d}": "abc"[label] for place, label in enumerate(labels)},
        "abc",
        strategy="class_weight",
        batch_size=16,
        seed=0,
    )
    model = small_network(classes=3)
    truth = cross_entropies(np.log(model(x[plan.epoch(0)[:16]], training=True).numpy()), labels[plan.epoch(0)[:16]])
    make_deterministic(0)
    fitted = fit(model, plan, x, (x[:60], labels[:60]), TrainConfig(**SETTINGS | {"learning_rate": 1e-30, "epochs": 1}))
    assert fitted.step_losses[0][0] == pytest.approx(truth.mean(), rel=1e-4)
    row, order = fitted.history[0], plan.epoch(0).reshape(-1, 16)
    scores = [small_network(classes=3)(x[rows], training=True).numpy() for rows in order]
    losses = cross_entropies(np.log(np.concatenate(scores)), labels[order.ravel()])
    weights = 160 / (3 * np.bincount(labels))
    assert row["loss"] == pytest.approx((losses * weights[labels[order.ravel()]]).mean(), rel=1e-4)
    assert row["cross_entropy"] == pytest.approx(losses.mean(), rel=1e-4)
