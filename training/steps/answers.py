"""What an evaluation's networks answer to its images, in parts that add up to the whole."""

from collections.abc import Iterator
from contextlib import suppress

import keras
import numpy as np

from training import champion, network
from training.augment import augmented
from training.batchnorm import put_back, unchanged
from training.comparison import served_logits
from training.errors import StoreError
from training.gap import Telescope, digests, statistics_of
from training.logits import in_batches
from training.mini_batches import mini_batch_answers, mini_batches
from training.rows import Array, Rows
from training.run_folder import Run
from training.sampling import SamplingPlan
from training.shards import Part
from training.standing import values
from training.steps.inputs import raw_images, read_plan, split_labels, split_pixels, training_pixels
from training.steps.recalibrate_batch_norm import load, pooled_statistics
from training.store import open_store

# Besides the list, what the telescope looks at.
_OTHERS = ("natural", "validation")


def listed(run: Run, plan: SamplingPlan) -> np.ndarray:
    """Training images as trained on, which most losses are compared on: indices into ``plan.images``."""
    return plan.take(_count(run), "evaluate")


def natural(run: Run, plan: SamplingPlan) -> np.ndarray:
    """Training images as they come, each once: indices into ``plan.images``."""
    return plan.natural(_count(run), "natural")


def answers(run: Run, part: Part) -> dict[str, np.ndarray]:
    """Logits, by ``way/data set``; digests of the images that were shown; the penalties. Of no rows, nothing.

    The ways are the telescope's; ``served``: the recalibrated model; ``mini_batches``: the same on each batch's own
    statistics.
    """
    plan = read_plan(run)
    telescope = Telescope(load(run, run.store.read("recalibrated/model.keras")))
    shown: dict[str, Array] = {"validation": split_pixels(run, "validation", _rows(run, "validation", part))}
    shown |= _training(run, plan, part)
    found = _ways(run, plan, telescope, shown, part)
    held_out, mixed = _test_images(run, part)
    found |= dict(_served(run, telescope, {name: shown[name] for name in _OTHERS} | {"test": held_out}, found))
    found |= {f"digests/{name}": digests(rows) for name, rows in shown.items()}
    if (answered := mini_batch_answers(telescope, mixed)) is not None:
        found["mini_batches/test"] = answered
    return found | {"penalties": np.array([float(sum(telescope.model.losses))])}


def champion_answers(run: Run, part: Part) -> dict[str, np.ndarray]:
    """Logits of the model in service to test images of their own size, as ``champion/<its number>``.

    Nothing where it cannot be asked: the comparison will say why.
    """
    store = open_store(run.config.store.champion)
    entry, rows = champion.current(store), _rows(run, "test", part)
    if entry is None or entry.classes != run.config.data.classes or not len(rows):
        return {}
    with suppress(StoreError):
        model = network.from_bytes(champion.read_model(store, entry))
        images = raw_images(run, "test", slice(rows[0], rows[-1] + 1))
        return {f"champion/{entry.number}": served_logits(model, images)}
    return {}


def _training(run: Run, plan: SamplingPlan, part: Part) -> dict[str, np.ndarray]:
    """This part's training images, as trained on and as they come."""
    drawn = {"list": listed(run, plan), "natural": natural(run, plan)}
    own = {name: rows[part.rows(len(rows), run.config.train.batch_size)] for name, rows in drawn.items()}
    return {name: np.asarray(training_pixels(run, plan, rows)) for name, rows in own.items()}


def _rows(run: Run, split: str, part: Part) -> np.ndarray:
    """This part's images of a split, as indices."""
    rows = np.arange(len(split_labels(run, split)))
    return rows[part.rows(len(rows), run.config.train.batch_size)]


def _served(
    run: Run, telescope: Telescope, shown: dict[str, Array], found: dict[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """What the model that is served answers; not asked again where that is what the telescope ended with."""
    known = found if _applied(run) else {}
    for name, pixels in shown.items():
        if f"inference/{name}" in known:
            yield f"served/{name}", known[f"inference/{name}"]
        elif len(pixels):
            yield f"served/{name}", in_batches(telescope.infer, pixels, run.config.train.batch_size)


def _ways(
    run: Run, plan: SamplingPlan, telescope: Telescope, pixels: dict[str, Array], part: Part
) -> dict[str, np.ndarray]:
    """The telescope's answers.

    Its model, the served one, has meanwhile the values that training left: a second network would be traced once more.
    """
    x, settings, size = np.asarray(pixels["list"]), run.config.augment, run.config.train.batch_size
    before = part.batches(_count(run), size)
    first = before[0].start if before else 0
    changed = augmented(plan, settings, x, "evaluate", size, first) if settings.enabled else None
    recalibrated = _statistics(run, telescope.model)
    with unchanged(telescope.model.variables):
        put_back(telescope.model.variables, values(load(run, run.store.read("checkpoint/model.keras")).variables))
        found = telescope.answers(
            x,
            size,
            seed=run.config.seed,
            first=first // size,
            recalibrated=recalibrated,
            augmented=changed,
            others={name: pixels[name] for name in _OTHERS},
        )
    return {(f"inference/{name}" if name in _OTHERS else f"{name}/list"): rows for name, rows in found.items()}


def _statistics(run: Run, served: keras.Model) -> dict[str, np.ndarray]:
    """Those that recalibration has written, or would have where it was off or had nothing to write."""
    if _applied(run):
        return statistics_of(served)
    with unchanged(served.variables):
        return pooled_statistics(run, served)


def _applied(run: Run) -> bool:
    """Whether recalibration has changed the model; if not, the served one is the checkpoint to the byte."""
    return bool(run.read_json("batch_norm.json")["applied"])


def _test_images(run: Run, part: Part) -> tuple[Rows, list[Rows]]:
    """This part's test images in order, and those of its mini-batches, each read once."""
    size, rows = run.config.train.batch_size, _rows(run, "test", part)
    mixed = part.cut(mini_batches(len(split_labels(run, "test")), size, run.config.seed))
    wanted = np.union1d(rows, mixed)
    pixels = split_pixels(run, "test", wanted)
    return pixels.take(np.searchsorted(wanted, rows)), [pixels.take(np.searchsorted(wanted, batch)) for batch in mixed]


def _count(run: Run) -> int:
    return run.config.evaluate.batches * run.config.train.batch_size
