"""Ways to train, side by side: the same data and split, every variant over several seeds, each an ordinary run."""

import gc
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from training.config import RunConfig, load_config
from training.errors import ConfigError, Diverged, received
from training.evaluation import Evaluation
from training.progress import clock
from training.provenance import PROVENANCE, record
from training.run_folder import FAILURE, Run, as_json, is_done, mark_done
from training.step_names import STEPS
from training.steps import run_step
from training.store import Store, open_store
from training.study_table import Row, Study, Variant, as_csv, as_markdown
from training.verdict import Verdict, judge

log = logging.getLogger(__name__)
FILES = ("study.json", "study.csv", "study.md", "study.svg", "study.png")
# Where no batch normalises what the convolutions make, the default's rate of 1e-3 destroys the pretrained weights.
WITHOUT_NORMALISATION = 1e-4
VARIANTS = {
    "frozen": Variant(
        method="1",
        about="the whole base is frozen, only the head trains",
        settings={"model.policy": "frozen"},
    ),
    "frozen_batch_norm": Variant(
        method="1, fine-tuning",
        about="BatchNorm is frozen, everything else trains",
        settings={"model.policy": "frozen_batch_norm", "train.learning_rate": WITHOUT_NORMALISATION},
    ),
    "trainable": Variant(
        method="2",
        about="everything trains, BatchNorm too",
        settings={"model.policy": "trainable"},
    ),
    "head_and_batch_norm": Variant(
        method="2, as proposed",
        about="BatchNorm and the head train, the convolutions are frozen",
        settings={"model.policy": "trainable", "model.trainable_layers": "head_and_batch_norm"},
    ),
    "features": Variant(
        method="3",
        about="features are extracted once, the head trains on them",
        settings={"model.policy": "features"},
    ),
    "batch_norm_free": Variant(
        method="4",
        about="a network without BatchNorm: it is folded into the convolutions, and everything trains",
        settings={"model.policy": "batch_norm_free", "train.learning_rate": WITHOUT_NORMALISATION},
    ),
    "trainable_momentum_0.999": Variant(
        method="the failure",
        about="everything trains, statistics move with momentum 0.999, the last epoch is kept",
        settings={"model.policy": "trainable", "model.batch_norm_momentum": 0.999, "train.keep_epoch": "last"},
    ),
}
# What the study itself decides; a setting of these would silently lose or make variants alike.
_DECIDED = ("seed", "model.policy", "model.trainable_layers", "store.champion")
# A study ships nothing.
_RUN_STEPS = STEPS[: STEPS.index("promote")]
_MEASURED = _RUN_STEPS[-1]


@dataclass(frozen=True)
class Planned:
    """One run of the study."""

    variant: str
    seed: int
    config: RunConfig
    uri: str

    @property
    def run(self) -> Run:
        return Run(open_store(self.uri), self.config)


def run_study(
    config: str,
    out: str,
    *,
    seeds: Sequence[int],
    only: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Study:
    """Do every run below `out` that has not ended yet, then write tables and picture; returns what they show.

    Raises:
        ConfigError: a wrong name or setting, before anything is run.
        NightshiftError: a run failed otherwise than by being refused, which is a result.
    """
    plan = _plan(config, out.rstrip("/"), list(dict.fromkeys(seeds)), _chosen(only), overrides or {})
    _do_all(plan)
    chosen = {planned.variant: VARIANTS[planned.variant] for planned in plan}
    rows = tuple(_row(planned) for planned in plan)
    study = Study(name=plan[0].config.name, settings=dict(overrides or {}), variants=chosen, runs=rows)
    _write(open_store(out), study)
    return study


def ending(run: Run) -> str | None:
    """The step a run ended with, from the data and settings as they are: the last, or the one that refused it.

    None: it has not ended.
    """
    for step in _RUN_STEPS:
        module = _module(step)
        if not is_done(run, step, module.INPUTS, module.outside(run) if hasattr(module, "outside") else ""):
            # A step that refuses leaves no marker of its own.
            return step if is_done(run, _refused(step), module.INPUTS, _gate(run)) else None
    return _MEASURED


def without_recalibration(evaluation: Evaluation) -> Evaluation:
    """The evaluation as the gate would see it, were the statistics served as training left them."""
    gaps, intervals = dict(evaluation.gaps), dict(evaluation.intervals)
    for start in ("fit", "batch_statistics"):
        served, before = f"served_minus_{start}", f"inference_before_minus_{start}"
        gaps[served], intervals[served] = gaps[before], intervals[before]
    losses = evaluation.losses | {"served": evaluation.losses["inference_before"]}
    return evaluation.model_copy(update={"losses": losses, "gaps": gaps, "intervals": intervals})


def _chosen(only: Iterable[str]) -> list[str]:
    for name in only:
        if name not in VARIANTS:
            raise ConfigError(received("--only", name, f"one of {', '.join(VARIANTS)}"))
    return [name for name in VARIANTS if not only or name in only]


def _plan(
    config: str, out: str, seeds: Iterable[int], variants: Iterable[str], overrides: Mapping[str, Any]
) -> list[Planned]:
    for key in overrides:
        if key in _DECIDED:
            raise ConfigError(received("--set", key, "a setting that the study does not decide; see --seeds, --only"))
    pairs = [(name, seed) for name in variants for seed in seeds]
    return [_planned(name, seed, config, out, overrides) for name, seed in pairs]


def _planned(name: str, seed: int, config: str, out: str, overrides: Mapping[str, Any]) -> Planned:
    # A champion's store that stays empty: variants are compared with each other, not with what is in service.
    own = {"model.trainable_layers": None, "seed": seed, "store.champion": f"{out}/champion"}
    settings = {**overrides, **own, **VARIANTS[name].settings}
    return Planned(name, seed, load_config(config, settings), f"{out}/runs/{name}-{seed}")


def _do_all(plan: Sequence[Planned]) -> None:
    ended = [planned for planned in plan if ending(planned.run) is not None]
    for planned in plan:
        if planned not in ended:
            left = _left([_seconds(other.run)[1] for other in ended], len(plan) - len(ended))
            log.info("study %d/%d · %s seed %d%s", len(ended) + 1, len(plan), planned.variant, planned.seed, left)
            _do(planned)
            _release()
            ended.append(planned)


def _left(seconds: Sequence[float], runs: int) -> str:
    return f" · {clock(runs * sum(seconds) / len(seconds))} left" if seconds else ""


def _do(planned: Planned) -> None:
    """The ordinary steps up to the gate; a refusal ends the run and is marked, so that it is not done again."""
    for step in _RUN_STEPS:
        begun = time.time()
        try:
            run_step(step, planned.config, planned.uri)
        except Diverged as error:
            log.info("%s: refused: %s", step, error.message)
            record(planned.run, step, begun)
            _mark_refused(planned.run, step)
            return


def _mark_refused(run: Run, step: str) -> None:
    module = _module(step)
    outputs = module.OUTPUTS if step == _MEASURED else ()
    mark_done(run, _refused(step), module.INPUTS, outputs, _gate(run))


def _release() -> None:
    """Let go of a run's graphs and layer names: a long study must not grow, nor its runs depend on those before."""
    import keras
    from tensorflow.python.framework import ops

    # Keras's optimizer sums gradients through a function with a gradient of its own, which TensorFlow registers for
    # ever: the whole training graph, 400 MB a run, hangs on it. Nothing public takes it back.
    registered = ops.gradient_registry._registry
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]
    keras.backend.clear_session()
    gc.collect()


def _row(planned: Planned) -> Row:
    run = planned.run
    train, total = _seconds(run)
    return Row(
        variant=planned.variant,
        seed=planned.seed,
        run=f"runs/{planned.variant}-{planned.seed}",
        train_seconds=train,
        total_seconds=total,
        **(_measured(run) if ending(run) == _MEASURED else _nothing_measured(run)),
    )


def _measured(run: Run) -> dict[str, Any]:
    tree = run.read_json("evaluation.json")
    evaluation = Evaluation.model_validate(tree)
    return _verdicts(run, evaluation) | _losses(evaluation) | _test_figures(tree)


def _nothing_measured(run: Run) -> dict[str, Any]:
    """Of a run refused before its losses were measured, since they are not finite, recalibrated or not."""
    cause = run.read_json(FAILURE)["cause"]
    return {"cause": cause, "cause_without_recalibration": cause}


def _verdicts(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    served = Verdict.model_validate(run.read_json("verdict.json"))
    lagging = judge(without_recalibration(evaluation), run.config.gate)
    return {
        "accepted": served.accepted,
        "cause": _cause(served),
        "accepted_without_recalibration": lagging.accepted,
        "cause_without_recalibration": _cause(lagging),
        "recalibrated": run.read_json("batch_norm.json")["applied"],
    }


def _losses(evaluation: Evaluation) -> dict[str, Any]:
    losses, intervals = evaluation.losses, evaluation.intervals
    # The interval of what is served speaks for the recalibrated statistics only where these are served.
    after = intervals.get("served_minus_fit") if losses["served"] == losses["inference"] else None
    return {
        "kept_epoch": evaluation.kept_epoch,
        "fit_loss": losses["fit"],
        "batch_statistics_loss": losses["batch_statistics"],
        "loss_before": losses["inference_before"],
        "loss_after": losses["inference"],
        "validation_loss": losses["validation"],
        "gap_before": evaluation.gaps["inference_before_minus_fit"],
        "gap_before_interval": intervals.get("inference_before_minus_fit"),
        "gap_after": _minus(losses["inference"], losses["fit"]),
        "gap_after_interval": after,
    }


def _test_figures(tree: Mapping[str, Any]) -> dict[str, Any]:
    test = tree["metrics"].get("test") or {}
    mini_batch = tree.get("mini_batch_statistics") or {}
    by_batch = mini_batch.get("test") or {}
    return {
        "test_loss": test.get("loss"),
        "test_loss_interval": test.get("loss_interval"),
        "test_roc_auc": test.get("roc_auc"),
        "test_roc_auc_interval": test.get("roc_auc_interval"),
        "mini_batch_size": mini_batch.get("batch_size"),
        "mini_batch_test_loss": by_batch.get("loss"),
        "mini_batch_test_roc_auc": by_batch.get("roc_auc"),
    }


def _seconds(run: Run) -> tuple[float, float]:
    """Of the step `train`, and of all steps."""
    steps: Any = run.read_json(PROVENANCE)["steps"]
    return steps["train"]["seconds"], round(sum(step["seconds"] for step in steps.values()), 1)


def _write(store: Store, study: Study) -> None:
    from training.study_charts import draw

    store.write("study.json", as_json(study.tree()))
    store.write("study.csv", as_csv(study))
    store.write("study.md", as_markdown(study))
    for kind in ("svg", "png"):
        store.write(f"study.{kind}", draw(study, kind))


def _cause(verdict: Verdict) -> str | None:
    return verdict.reasons[0].cause if verdict.reasons else None


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _module(step: str) -> ModuleType:
    return import_module(f"training.steps.{step}")


def _refused(step: str) -> str:
    return f"refused_{step}"


def _gate(run: Run) -> str:
    """Another gate may accept what this one refused."""
    return run.config.gate.model_dump_json()
