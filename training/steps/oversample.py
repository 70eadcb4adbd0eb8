"""Plan the epochs of the training split, and of no other."""

import logging

from training import manifest, sampling
from training.run_folder import Run

log = logging.getLogger(__name__)
INPUTS = ("manifest.parquet", "quarantine.parquet", "validation.json")
OUTPUTS = ("sampling.json",)


def work(run: Run) -> None:
    table = manifest.of_split(manifest.accepted(run.store), "train")
    plan = sampling.make_plan(
        dict(zip(table["sha256"], table["label"], strict=True)),
        run.config.data.classes,
        strategy=run.config.sampling.strategy,
        batch_size=run.config.train.batch_size,
        seed=run.config.seed,
    )
    run.write_json("sampling.json", plan.tree())
    shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(plan.classes, plan.natural_share, strict=True))
    log.info("%d training images (%s); %d steps an epoch", len(plan.images), shares, plan.steps_per_epoch)
