"""The steps of a night, in order; each reads and writes one run's folder, and a finished one is not done again."""

import logging
import time
from importlib import import_module
from types import ModuleType

from training import nights
from training.config import RunConfig
from training.disk_full import disk_full, is_disk_full
from training.errors import ConfigError, NightshiftError, StoreError, received
from training.provenance import record
from training.run_folder import (
    FAILURE,
    Run,
    forget,
    is_done,
    mark_done,
    open_run,
    require_unharmed,
    was_done,
    write_failure,
)

log = logging.getLogger(__name__)
STEPS = ("ingest", "validate", "oversample", "train", "recalibrate_batch_norm", "evaluate", "promote")


def steps_of(config: RunConfig) -> tuple[str, ...]:
    """The steps that a night with this config goes through."""
    return STEPS if config.promote.enabled else STEPS[:-1]


def run_step(step: str, config: RunConfig, run_uri: str) -> str:
    """Do one step of the run at `run_uri`, unless it is done; returns the run's URI.

    Raises:
        NightshiftError: told in one line and left in the run's `failure.json`, as any other exception is.
    """
    try:
        _do(step, config, run_uri)
    except NightshiftError as error:
        _leave(run_uri, step, error)
        raise
    except Exception as error:
        if is_disk_full(error):
            full = disk_full(error, step)
            _leave(run_uri, step, full)
            raise full from error
        _leave(run_uri, step, NightshiftError(f"{type(error).__name__}: {error}", remedy="See the task's log."))
        raise
    finally:
        nights.record(config, run_uri)
    return run_uri


def run_all(config: RunConfig, run_uri: str) -> str:
    """Do every step of a night."""
    for step in steps_of(config):
        run_step(step, config, run_uri)
    return run_uri


def _do(step: str, config: RunConfig, run_uri: str) -> None:
    module = import_module(f"training.steps.{step}")
    run = open_run(config, run_uri, first=step == STEPS[0])
    _require_earlier(run, step)
    run.store.delete(FAILURE)  # now, since one that is killed must not pass for failing as its try before did
    extra = module.outside(run) if hasattr(module, "outside") else ""
    if is_done(run, step, module.INPUTS, extra):
        log.info("%s: already done", step)
    else:
        _work(run, step, module, extra)
    if hasattr(module, "tidy"):
        module.tidy(run)


def _work(run: Run, step: str, module: ModuleType, extra: str) -> None:
    begun = time.time()
    log.info("%s: begins", step)
    run.store.sweep()
    for earlier in STEPS[: STEPS.index(step)]:
        require_unharmed(run, earlier)
    forget(run, STEPS[STEPS.index(step) :])
    module.work(run)
    mark_done(run, step, module.INPUTS, module.OUTPUTS, extra)
    record(run, step, begun, module.computed_on(run) if hasattr(module, "computed_on") else ())
    log.info("%s: done in %.1f s", step, time.time() - begun)


def _require_earlier(run: Run, step: str) -> None:
    for earlier in STEPS[: STEPS.index(step)]:
        if not was_done(run, earlier):
            raise ConfigError(received("--run", run.store.uri(), f"a run in which `{earlier}` is done before `{step}`"))


def _leave(run_uri: str, step: str, error: NightshiftError) -> None:
    try:
        write_failure(run_uri, step, error)
    except (StoreError, ConfigError) as problem:
        log.error("%s could not be written: %s", FAILURE, problem)
