"""Augmentation against NumPy and SciPy, and that nothing but seed, epoch and place decides it."""

import numpy as np
import pytest
from scipy.ndimage import affine_transform

from tests.training.models import images, small_network
from training.augment import _transforms, apply, augmented, changes
from training.config import AugmentConfig, TrainConfig
from training.determinism import make_deterministic
from training.fit import AS_THEY_ARE, _epochs, fit
from training.gap import explain
from training.network import from_bytes, to_bytes
from training.sampling import make_plan

SIDE = 12
EVERYTHING = AugmentConfig(flips="both", rotation=30, shift=0.1, brightness=0.2, apply_to="all")


@pytest.fixture
def plan():
    """Thirty common and ten rare images, each of which is shown three times an epoch."""
    labels = {f"{number:03d}": "rare" if number < 10 else "common" for number in range(40)}
    return make_plan(labels, ("common", "rare"), strategy="oversample", batch_size=10, seed=0)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), dtype=np.uint8)


def done(pixels, draws, **settings):
    """What these draws from −1 to 1 (two flips, angle, two shifts, brightness) make of the pixels."""
    rows = np.tile(np.asarray(draws, float), (len(pixels), 1))
    transforms = _transforms(rows, AugmentConfig(**settings), SIDE)
    lit = rows[:, 5:] * AugmentConfig(**settings).brightness * 255
    return np.asarray(apply(pixels, np.hstack([transforms, lit]).astype(np.float32)))


@pytest.mark.parametrize(
    ("flips", "truth"),
    [
        ("horizontal", np.s_[:, :, ::-1]),
        ("vertical", np.s_[:, ::-1]),
        ("both", np.s_[:, ::-1, ::-1]),
        ("none", np.s_[:]),
    ],
)
def test_flips_are_numpys(pixels, flips, truth):
    np.testing.assert_array_equal(done(pixels, [1, 1, 0, 0, 0, 0], flips=flips), pixels[truth])
    np.testing.assert_array_equal(done(pixels, [-1, -1, 0, 0, 0, 0], flips=flips), pixels)


def test_a_quarter_turn_is_numpys(pixels):
    turned = done(pixels, [0, 0, 1, 0, 0, 0], rotation=90).astype(int)
    assert np.abs(turned - np.rot90(pixels, 1, axes=(1, 2)).astype(int)).max() <= 1


def test_a_shift_mirrors_the_border(pixels):
    shifted = done(pixels, [0, 0, 0, 1, 0, 0], shift=0.25)
    np.testing.assert_array_equal(shifted, np.concatenate([pixels[:, :, 3:], pixels[:, :, :-4:-1]], axis=2))


def test_brightness_is_added_and_stays_in_range(pixels):
    np.testing.assert_array_equal(
        done(pixels, [0, 0, 0, 0, 0, -1], brightness=0.4), np.clip(pixels.astype(int) - 102, 0, 255)
    )


def test_all_at_once_is_scipys(pixels):
    draws = [1, -1, 0.7, 0.3, -0.8, 0]
    a = _transforms(np.array([draws]), EVERYTHING, SIDE)[0]
    matrix, offset = np.array([[a[4], a[3]], [a[1], a[0]]]), np.array([a[5], a[2]])  # SciPy counts rows first
    truth = np.stack(
        [
            affine_transform(image[..., channel].astype(float), matrix, offset, order=1, mode="reflect")
            for image in pixels
            for channel in range(3)
        ]
    )
    found = done(pixels, draws, **EVERYTHING.model_dump())
    inside = np.s_[:, 2:-2, 2:-2]  # at the border the two blend the mirror image differently
    assert np.abs(found.transpose(0, 3, 1, 2).reshape(truth.shape)[inside] - truth[inside]).max() <= 0.51


def test_the_same_seed_epoch_and_place_are_changed_alike(plan):
    found = changes(plan, EVERYTHING, SIDE, 3)
    assert found.shape == (plan.rows, 9)
    np.testing.assert_array_equal(found, changes(plan, EVERYTHING, SIDE, 3))
    for other in (changes(plan, EVERYTHING, SIDE, 4), changes(plan, EVERYTHING, SIDE, 3, "evaluate")):
        assert not np.array_equal(found, other)


def test_only_repeated_showings_are_changed(plan):
    found = changes(plan, EVERYTHING.model_copy(update={"apply_to": "repeated"}), SIDE, 0)
    order, plain = plan.epoch(0), np.array([1, 0, 0, 0, 1, 0, 0, 0, 0])
    first = [list(order).index(image) for image in np.unique(order)]
    later = np.setdiff1d(np.arange(len(order)), first)
    assert (found[first] == plain).all() and (found[later] != plain).any(axis=1).all()


def test_a_resumed_fit_shows_the_same_images(plan, pixels):
    whole = [x.numpy() for x, _ in _epochs(plan, pixels, 1, EVERYTHING, range(3))]
    resumed = [x.numpy() for x, _ in _epochs(plan, pixels, 1, EVERYTHING, range(2, 3))]
    np.testing.assert_array_equal(whole[-len(resumed) :], resumed)
    off = np.concatenate([x.numpy() for x, _ in _epochs(plan, pixels, 1, AS_THEY_ARE, range(1))])
    np.testing.assert_array_equal(off, pixels[plan.epoch(0)])
    assert not np.array_equal(np.concatenate(whole[: len(resumed)]), off) and whole[0].dtype == np.uint8


def test_the_list_evaluated_on_is_changed_as_in_training(plan, pixels):
    rows = plan.take(plan.rows + 7, "evaluate")
    found = augmented(plan, EVERYTHING, pixels[rows], "evaluate", batch_size=10)
    every = np.concatenate([changes(plan, EVERYTHING, SIDE, number, "evaluate") for number in (0, 1)])
    np.testing.assert_array_equal(found, np.asarray(apply(pixels[rows], every[: len(rows)])))


def test_augmentation_is_booked_under_stochastic_layers():
    """Without dropout the training mode's loss is the batch statistics' until augmentation comes in."""
    model, (x, y) = small_network(), images(40)
    changed = x[:, ::-1] * np.linspace(0.5, 2, 40, dtype=np.float32)[:, None, None, None]
    plain, other = explain(model, x, y), explain(model, x, y, augmented=changed)
    assert plain.causes["stochastic_layers"] == pytest.approx(0, abs=1e-6)
    assert other.losses["train_mode"] == explain(model, changed, y).losses["train_mode"] != plain.losses["train_mode"]
    assert other.causes["stochastic_layers"] == plain.losses["batch_statistics"] - other.losses["train_mode"]
    for name in ("batch_statistics", "inference_before", "inference"):
        assert other.losses[name] == plain.losses[name]


def test_fit_learns_from_changed_images_and_the_model_holds_no_augmentation(plan, pixels):
    weights = {}
    validation = pixels[:20], np.arange(20) % 2
    for name, augment in (("plain", AS_THEY_ARE), ("one", EVERYTHING), ("two", EVERYTHING)):
        make_deterministic(0)
        model = small_network()
        config = TrainConfig(batch_size=10, monitor_samples=10, epochs=1)
        fit(model, plan, pixels, validation, config, augment)
        weights[name] = np.concatenate([variable.numpy().ravel() for variable in model.trainable_variables])
        saved = from_bytes(to_bytes(model))
        assert [type(layer) for layer in saved.layers] == [type(layer) for layer in small_network().layers]
    assert weights["one"].tobytes() == weights["two"].tobytes() != weights["plain"].tobytes()
