"""Does the gate let a healthy candidate past the champion, and refuse one whose training labels were damaged?

    python benchmarks/champion.py [--seeds 0 1 2 3 4] [--nights 0 1 2 3 4]

Each of --seeds trains heads on features of the sample images that are computed once: a champion, a candidate like it
but for its training seed, and candidates with damaged labels in the training split alone. Each of --nights does the
same with the recipe as shipped, in whole nights one after another (a few minutes each on two cores). Validation and
test images keep their labels.
"""

import argparse
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pandas as pd

from training import manifest
from training.calibration import serving_prior
from training.comparison import compare
from training.config import GateConfig, RunConfig, load_config
from training.determinism import make_deterministic
from training.engine import to_onnx
from training.errors import WorseThanChampion
from training.features import divided, features
from training.fit import fit
from training.logits import in_batches, inference_logits
from training.network import build_model
from training.run_folder import Run, open_run
from training.sample import write_sample
from training.sampling import make_plan
from training.step_names import STEPS
from training.steps import run_all, run_step
from training.steps.inputs import Labelled, labelled_split
from training.store import open_store
from training.verdict import Comparison, Verdict, worse_than

CONFIG = Path(__file__).parents[1] / "dags" / "models" / "solar_cells.yaml"
# A damaged candidate may have other class shares than its champion; that is for the comparison to find, not for drift.
NO_DRIFT = {"drift.max_label_share": None}
EPOCHS = 10
Damage = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def a_third_of_the_defects(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A mask of the training labels (n,) to flip."""
    return (labels == "defective") & (random.random(len(labels)) < 1 / 3)


def a_third_of_the_intact(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A mask of the training labels (n,) to flip."""
    return (labels == "intact") & (random.random(len(labels)) < 1 / 3)


def a_quarter_of_all(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A mask of the training labels (n,) to flip."""
    return random.random(len(labels)) < 1 / 4


CANDIDATES: dict[str, Damage | None] = {
    "healthy": None,
    "1/3 of defects called intact": a_third_of_the_defects,
    "1/3 of intact called defective": a_third_of_the_intact,
    "1/4 of all labels flipped": a_quarter_of_all,
}
HEADER = (
    f"{'how':9} {'seed':>4}  {'candidate':30} loss difference (90 % interval)   ROC AUC difference (90 %)     verdict"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--nights", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sample(folder / "cells")
        if options.seeds:
            heads = Heads(_prepared(folder))
            for seed in options.seeds:
                _print("features", seed, heads.compared(seed))
        for seed in options.nights:
            _print("nights", seed, _nights(folder, seed))


def _print(how: str, seed: int, compared: Iterator[tuple[str, Comparison]]) -> None:
    for name, found in compared:
        loss = f"{found.difference:+.3f} ({found.interval[0]:+.3f} to {found.interval[1]:+.3f})"
        area = f"{found.roc_auc_difference:+.3f} ({found.roc_auc_interval[0]:+.3f} to {found.roc_auc_interval[1]:+.3f})"
        word = "passes" if worse_than(found, GateConfig()) is None else "refused"
        print(f"{how:9} {seed:4}  {name:30} {loss:33} {area:29} {word}", flush=True)


def _prepared(folder: Path) -> Run:
    """A run whose images are read, checked and split."""
    config = _config(folder, folder / "cells", {"model.policy": "features", "train.epochs": EPOCHS})
    for step in STEPS[:2]:
        run_step(step, config, str(folder / "prepared"))
    return open_run(config, str(folder / "prepared"))


def _config(folder: Path, data: Path, changes: dict[str, object]) -> RunConfig:
    return load_config(
        CONFIG, {"data.uri": str(data), "store.champion": str(folder / "champion"), **NO_DRIFT, **changes}
    )


class Heads:
    """Heads trained on one run's features."""

    def __init__(self, run: Run) -> None:
        self.config = run.config
        base, _ = divided(build_model(run.config.model))
        self.splits = {name: _features(base, *labelled_split(run, name)) for name in ("train", "validation", "test")}

    def compared(self, seed: int) -> Iterator[tuple[str, Comparison]]:
        labels = self.splits["test"][1]
        champion = self._logits(seed, None)
        for number, (name, damage) in enumerate(CANDIDATES.items(), start=1):
            candidate = self._logits(seed + 100 * number, damage)
            yield name, compare(1, champion, candidate, labels, resamples=2000, seed=0)

    def _logits(self, seed: int, damage: Damage | None) -> np.ndarray:
        """Of the test images, from a head trained with this seed."""
        make_deterministic(seed)
        classes, (x, y) = self.config.data.classes, self.splits["train"]
        labels = _damaged(np.array(classes)[y], damage, seed)
        named = {f"{place:08d}": label for place, label in enumerate(labels)}
        plan = make_plan(named, classes, strategy="oversample", batch_size=self.config.train.batch_size, seed=seed)
        _, head = divided(build_model(self.config.model))
        fit(head, plan, x, self.splits["validation"], self.config.train)
        forward = inference_logits(head)
        held_out, truth = self.splits["validation"]
        prior = serving_prior(plan, natural_statistics=False, logits=in_batches(forward, held_out, 64), labels=truth)
        return prior.corrected(in_batches(forward, self.splits["test"][0], 64))


def _features(base: object, pixels: np.ndarray, labels: np.ndarray) -> Labelled:
    return np.stack(list(features(base, lambda: to_onnx(base), pixels))), labels


def _damaged(labels: np.ndarray, damage: Damage | None, seed: int) -> np.ndarray:
    if damage is None:
        return labels
    other = np.where(labels == "defective", "intact", "defective")
    return np.where(damage(labels, np.random.default_rng(seed)), other, labels)


def _nights(folder: Path, seed: int) -> Iterator[tuple[str, Comparison]]:
    """A champion's night, then each candidate's: all but `promote`, so that each meets the same champion."""
    own = folder / f"nights-{seed}"
    run_all(_config(own, folder / "cells", {"seed": seed}), str(own / "champion-run"))
    split = manifest.from_parquet((own / "champion-run" / "manifest.parquet").read_bytes())
    for number, (name, damage) in enumerate(CANDIDATES.items(), start=1):
        data = _copy(folder / "cells", own / f"cells-{number}", split, damage, seed)
        run = own / f"run-{number}"
        yield name, _night(_config(own, data, {"seed": seed + 100 * number}), run)


def _night(config: RunConfig, run: Path) -> Comparison:
    for step in STEPS[:5]:
        run_step(step, config, str(run))
    try:
        run_step("evaluate", config, str(run))
    except WorseThanChampion as refused:
        assert refused.exit_code == 5
    found = Verdict.model_validate_json(open_store(str(run)).read("verdict.json")).champion
    assert found is not None
    return found


def _copy(cells: Path, to: Path, split: pd.DataFrame, damage: Damage | None, seed: int) -> Path:
    """The same images, with damaged labels for those of the training split."""
    shutil.copytree(cells, to, copy_function=os.link)
    table = pd.read_csv(cells / "labels.csv")
    training = table["path"].isin(split.loc[split["split"] == "train", "path"])
    table.loc[training, "label"] = _damaged(table.loc[training, "label"].to_numpy(str), damage, seed)
    (to / "labels.csv").unlink()  # the sample's own stays as it is
    table.to_csv(to / "labels.csv", index=False)
    return to


if __name__ == "__main__":
    main()
