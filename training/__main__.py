"""The command line: a night, one step, the sample images, a study of methods, the champion's history, housekeeping."""

import argparse
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import EXIT_MEANINGS, ConfigError, NightshiftError, received
from training.log_lines import set_up_logging
from training.step_names import SHARDED, STEPS

if TYPE_CHECKING:
    from training.config import RunConfig

log = logging.getLogger("training")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    options = _parser().parse_args(arguments)
    try:
        set_up_logging(run=getattr(options, "run", None), step=getattr(options, "step", None))
        return int(options.command(options) or 0)
    except NightshiftError as error:
        print(f"{error.code}: {error.message}", *([error.remedy] if error.remedy else []), sep="\n", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    except Exception as error:
        log.exception("unexpected: %s", type(error).__name__)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__, epilog=_exit_codes())
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_night(commands.add_parser("run", help="every step of a night"))
    for step in STEPS:
        _add_step(commands.add_parser(step, help=f"only the step {step}"), step)
    sample = commands.add_parser("sample", help="put the sample images in place")
    sample.add_argument("--to", type=Path, required=True, help="folder to make")
    sample.set_defaults(command=_sample)
    _add_study(commands.add_parser("study", help="ways to train, side by side, over several seeds"))
    history = commands.add_parser("champion", help="list the champion's history, or roll back")
    history.add_argument("--store", required=True, help="folder or s3:// prefix (store.champion)")
    history.add_argument("--rollback", action="store_true", help="bring back the entry before the one in service")
    history.set_defaults(command=_champion)
    _add_housekeeping(commands)
    return parser


def _add_housekeeping(commands: Any) -> None:
    retain = commands.add_parser("retain", help="delete the folders of old runs (store.keep_runs, store.keep_run_days)")
    retain.add_argument("--dry-run", action="store_true", help="only say which they are")
    backup = commands.add_parser("backup", help="the champion's history and models in one file")
    backup.add_argument("--to", type=Path, required=True, metavar="FILE", help="the .tar file to write")
    restore = commands.add_parser("restore", help="put such a file's content where there is no history yet")
    restore.add_argument("--from", type=Path, required=True, metavar="FILE", dest="source", help="the .tar file")
    for parser, command in ((retain, _retain), (backup, _backup), (restore, _restore)):
        _add_config(parser)
        parser.set_defaults(command=command)


def _add_night(parser: argparse.ArgumentParser) -> None:
    _add_config(parser, like=True)
    parser.add_argument("--run", required=True, help="the run's folder or s3:// prefix")
    parser.set_defaults(command=_run)


def _add_step(parser: argparse.ArgumentParser, step: str) -> None:
    _add_config(parser)
    parser.add_argument("--run", required=True, help="the run's folder or s3:// prefix")
    if step in SHARDED:
        parser.add_argument("--shard", type=int, metavar="N", help="only this one of scale.shards, from 1 on")
    parser.set_defaults(command=_step, step=step, shard=None)


def _add_config(parser: argparse.ArgumentParser, *, like: bool = False) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", help="the model's YAML file")
    if like:
        source.add_argument("--like", metavar="RUN", help="an earlier run, to be repeated with its settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. train.epochs=2")


def _add_study(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("--out", required=True, help="the study's folder or s3:// prefix; called again, it goes on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these variants, e.g. trainable")
    parser.set_defaults(command=_study)


def _config(options: argparse.Namespace) -> "RunConfig":
    from training.config import load_config, parse_settings

    return load_config(options.config, parse_settings(options.set))


def _run(options: argparse.Namespace) -> None:
    from training.steps import run_all

    if options.like:
        _repeat(options)
    else:
        run_all(_config(options), options.run)
    print(f"{options.run}: accepted")


def _repeat(options: argparse.Namespace) -> None:
    from training.changes import changes_since
    from training.config import parse_settings
    from training.run_folder import config_of
    from training.steps import run_step, steps_of

    config = config_of(options.like, parse_settings(options.set))
    first, *others = steps_of(config)
    # What the data are now is known once they are read.
    run_step(first, config, options.run)
    for line in changes_since(options.like, options.run):
        log.warning("unlike %s: %s", options.like, line)
    for step in others:
        run_step(step, config, options.run)


def _step(options: argparse.Namespace) -> None:
    from training.steps import run_step

    config = _config(options)
    if options.shard is None:
        run_step(options.step, config, options.run)
    else:
        _shard(options, config)
    print(f"{options.run}: {options.step}")


def _shard(options: argparse.Namespace, config: "RunConfig") -> None:
    from training.steps import run_shard, sharded

    if options.step not in sharded(config) or not 1 <= options.shard <= config.scale.shards:
        expected = f"one of the {config.scale.shards} shards of " + (" ".join(sharded(config)) or "no step")
        raise ConfigError(received("--shard", options.shard, expected))
    run_shard(options.step, options.shard - 1, config, options.run)


def _sample(options: argparse.Namespace) -> None:
    from training.sample import write_sample

    write_sample(options.to)


def _study(options: argparse.Namespace) -> None:
    from training.config import parse_settings
    from training.store import open_store
    from training.study import FILES, run_study
    from training.study_table import as_text

    # Many runs in one process trace many graphs; TensorFlow takes that for a mistake and warns each time.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    overrides = parse_settings(options.set)
    study = run_study(options.config, options.out, seeds=options.seeds, only=options.only, overrides=overrides)
    print(as_text(study), "", *(open_store(options.out).uri(name) for name in FILES), sep="\n")


def _champion(options: argparse.Namespace) -> None:
    from training import champion
    from training.history_table import as_text
    from training.store import open_store
    from training.who import who

    store = open_store(options.store)
    if options.rollback:
        champion.roll_back(store, datetime.now(UTC).isoformat(timespec="seconds"), who())
    if entries := champion.history(store):
        print(as_text(entries))


def _retain(options: argparse.Namespace) -> None:
    from training.run_retention import delete_run, outdated_runs

    config = _config(options)
    for name in outdated_runs(config, datetime.now(UTC)):
        if options.dry_run:
            print(f"{name}: would be deleted")
        else:
            print(f"{name}: deleted, {delete_run(config, name) / 2**20:.1f} MiB")


def _backup(options: argparse.Namespace) -> None:
    from training.backup import back_up

    files = back_up(_config(options), options.to)
    print(f"{options.to}: {files} files")


def _restore(options: argparse.Namespace) -> None:
    from training.backup import restore

    config = _config(options)
    print(f"{config.store.champion}: {restore(config, options.source)} files")


def _exit_codes() -> str:
    return "exit codes: " + ", ".join(f"{code} {meaning}" for code, meaning in EXIT_MEANINGS.items())


if __name__ == "__main__":
    sys.exit(main())
