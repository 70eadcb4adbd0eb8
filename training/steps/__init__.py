"""The steps of a night, in order; each reads and writes one run's folder, and a finished one is not done again."""

import gc
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from training.shards import Part
from training.step_names import SHARDED, STEPS

log = logging.getLogger(__name__)


def steps_of(config: RunConfig) -> tuple[str, ...]:
    """The steps that a night with this config goes through."""
    return STEPS if config.promote.enabled else STEPS[:-1]


def sharded(config: RunConfig) -> tuple[str, ...]:
    """The steps whose shards can be done by processes of their own; none where there is one shard."""
    whole = {
        "train": config.model.policy != "features",  # weights depend on all earlier steps
        "recalibrate_batch_norm": config.recalibrate.mode != "one_pass",  # each pass depends on the one before
    }
    return tuple(step for step in SHARDED if config.scale.shards > 1 and not whole.get(step))


def run_step(step: str, config: RunConfig, run_uri: str) -> str:
    """Do one step of the run at `run_uri`, unless it is done; returns the run's URI.

    Raises:
        NightshiftError: told in one line and left in the run's `failure.json`, as any other exception is.
    """
    with _told(step, config, run_uri):
        _do(step, config, run_uri)
    return run_uri


def run_shard(step: str, number: int, config: RunConfig, run_uri: str) -> str:
    """Do one shard of a step, counted from 0, which the step then has no need to do; returns the run's URI.

    Raises:
        NightshiftError: as `run_step` does.
    """
    with _told(step, config, run_uri):
        _do_shard(step, number, config, run_uri)
    return run_uri


@contextmanager
def _told(step: str, config: RunConfig, run_uri: str) -> Iterator[None]:
    """Leave what went wrong where it is looked for, and how the night stands."""
    try:
        yield
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


def run_all(config: RunConfig, run_uri: str) -> str:
    """Do every step of a night."""
    for step in steps_of(config):
        run_step(step, config, run_uri)
    return run_uri


def _do(step: str, config: RunConfig, run_uri: str) -> None:
    module = _loaded(step)
    run = open_run(config, run_uri, first=step == STEPS[0])
    _require_earlier(run, step)
    run.store.delete(FAILURE)  # now, since one that is killed must not pass for failing as its try before did
    extra = _outside(run, module)
    if is_done(run, step, module.INPUTS, extra):
        log.info("%s: already done", step)
    else:
        _work(run, step, module, extra)
    if step in sharded(config):
        _clear_shards(run, step)
    if hasattr(module, "tidy"):
        module.tidy(run)


def _do_shard(step: str, number: int, config: RunConfig, run_uri: str) -> None:
    from training.steps.sharding import found_by

    module = _loaded(step)
    run = open_run(config, run_uri, first=step == STEPS[0])
    _require_earlier(run, step)
    if step not in sharded(config) or number >= config.scale.shards:
        log.info("%s: the settings leave nothing to do for shard %d", step, number + 1)
    elif is_done(run, step, module.INPUTS, _outside(run, module)):
        log.info("%s: already done", step)
    else:
        found_by(run, step, module.INPUTS, module.shard, Part(number, config.scale.shards))


def _loaded(step: str) -> ModuleType:
    name = f"training.steps.{step}"
    return sys.modules.get(name) or _load(name)


def _load(name: str) -> ModuleType:
    """The module; what it loads is there to stay, and to look through it for garbage once takes some 0.4 s."""
    collecting = gc.isenabled()
    gc.collect()  # or what is garbage now would stay as well
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def _clear_shards(run: Run, step: str) -> None:
    from training.steps.sharding import clear

    clear(run, step)


def _outside(run: Run, module: ModuleType) -> str:
    """What the step depends on outside the run's folder."""
    return str(module.outside(run)) if hasattr(module, "outside") else ""


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
