"""Holds a manifest against its rules with Great Expectations, and writes Data Docs."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import JsonValue

from training.config import ExpectationConfig, RunConfig
from training.data_set_rules import set_rules, summarise, with_set_helpers
from training.data_summary import DataSummary, Drift, drifts
from training.documents import Document
from training.errors import ConfigError, received
from training.manifest_rules import Rule, broken, complete, failed_rows, place, problem, rules, with_helpers
from training.split import SPLITS

__all__ = ["Checked", "ExpectationResult", "SplitShare", "ValidationReport", "check"]
_EXAMPLES = 5


class ExpectationResult(Document):
    """One expectation's result.

    Attributes:
        expectation: its type in Great Expectations.
        column: empty when it is about the whole table.
        observed: the value it looked at; for a rule about rows, up to five of the values that break it.
        limit: the arguments it was called with.
        unexpected_count: rows that break it; 0 for a rule about the whole table.
        examples: paths of up to five of these.
    """

    rule: str
    group: str
    expectation: str
    column: str
    meaning: str
    success: bool
    observed: JsonValue
    limit: dict[str, JsonValue]
    unexpected_count: int
    examples: tuple[str, ...]


class SplitShare(Document):
    """A split's share of all images, as configured and as it came out (hashes meet it only in expectation)."""

    expected: float
    observed: float
    deviation: float


class ValidationReport(Document):
    """What the check found.

    Attributes:
        images: rows of the manifest; `accepted` of them go on, the others are in quarantine.
        quarantined: how many of these there are by the first rule that each breaks.
        counts, shares, summary: of the accepted.
        drift: since the last accepted data; empty where there are none.
        problems: one line for each reason why the night cannot go on.
        cause: the rule behind that; null when it can.
    """

    success: bool
    suite: str
    images: int
    accepted: int
    bad_fraction: float
    quarantined: dict[str, int]
    results: tuple[ExpectationResult, ...]
    counts: dict[str, dict[str, int]]
    shares: dict[str, SplitShare]
    summary: DataSummary | None
    drift: dict[str, Drift]
    problems: tuple[str, ...]
    cause: str | None


@dataclass(frozen=True)
class Checked:
    """The report, and the rows that failed: those of the manifest with `rule` and `reason`, by its row numbers."""

    report: ValidationReport
    failed: pd.DataFrame


def check(manifest: pd.DataFrame, config: RunConfig, docs_dir: Path, last: DataSummary | None = None) -> Checked:
    """Hold each row against the contract, then the rows that pass against what is expected of the whole.

    Writes Data Docs, a static site with an index.html, into `docs_dir`.

    Args:
        manifest: columns as in `training.manifest.COLUMNS`, one row an image; left as it is.
        last: of the data accepted last, to measure drift from.

    Raises:
        ConfigError: an expectation of the config does not exist or takes other arguments.
    """
    about_rows, about_all = _custom_expectations(config)
    run = _Suites(docs_dir, config.name)
    rows, asked = with_helpers(manifest), [_tolerant(rule, config) for rule in (*rules(config), *about_rows)]
    found = run(f"{config.name}_images", rows, asked)
    contract = [_judged(rule, found[rule.name]) for rule in asked]
    failed = failed_rows(rows, contract[1:])
    whole = _Whole(complete(manifest).drop(index=failed.index), config, len(failed) / max(len(rows), 1), last)
    demands = (*set_rules(config, whole.bad, whole.limited), *about_all)
    found |= run(f"{config.name}_data_set", whole.rows, demands)
    run.write_docs()
    results = tuple(_result(rule, found[rule.name], rows) for rule in (*contract, *demands))
    problems = _problems(contract, demands, found, rows, whole)
    cause = next((rule.name for rule in (contract[0], *demands) if not found[rule.name].success), None)
    return Checked(_report(config, rows, failed, results, problems, cause, whole), failed)


def _custom_expectations(config: RunConfig) -> tuple[list[Rule], list[Rule]]:
    """Those of the config: about rows, whose failures go into quarantine, and about the whole.

    Raises:
        ConfigError: one does not exist or takes other arguments.
    """
    if not config.expectations:
        return [], []
    _great_expectations()
    from training.image_expectations import is_about_rows

    about_rows, about_all = list[Rule](), list[Rule]()
    for number, custom in enumerate(config.expectations):
        _refuse_wrong(number, custom)
        # Who says how many must pass wants them counted, not taken out.
        each = is_about_rows(custom.type) and "mostly" not in custom.kwargs
        rule = Rule(f"expectations.{number}", "custom", custom.type, dict(custom.kwargs))
        (about_rows if each else about_all).append(rule)
    return about_rows, about_all


def _refuse_wrong(number: int, custom: ExpectationConfig) -> None:
    from training.image_expectations import expectation_of

    try:
        expectation_of(custom.type, custom.kwargs)
    except ConfigError as error:
        raise ConfigError(f"expectations.{number}.{error.message}") from None


class _Whole:
    """The accepted rows with what is counted over all of them."""

    def __init__(self, accepted: pd.DataFrame, config: RunConfig, bad: float, last: DataSummary | None) -> None:
        self.bad, self.accepted = bad, accepted
        self.summary = summarise(accepted, config.data.classes)
        self.drift = drifts(self.summary, last, config.drift) if self.summary and last else {}
        self.limited = {name: drift for name, drift in self.drift.items() if drift.limit is not None}
        self.rows = with_set_helpers(accepted, config, bad, self.limited)


class _Suites:
    """Runs suites over tables, each with a page of its own in one site."""

    def __init__(self, docs_dir: Path, site: str) -> None:
        self.gx, self.site = _great_expectations(), site
        self.context = _context(self.gx, docs_dir, site)

    def __call__(self, name: str, rows: pd.DataFrame, contract: Sequence[Rule]) -> dict[str, Any]:
        """Great Expectations' result of each rule, by the rule's name."""
        table = self.context.data_sources.add_pandas(name).add_dataframe_asset("rows")
        definition = self.gx.ValidationDefinition(
            name=name, data=table.add_batch_definition_whole_dataframe("all"), suite=self._suite(name, contract)
        )
        run = self.context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": rows},
            # Row numbers alone: to name the rows' paths takes Great Expectations minutes where many fail.
            result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
            run_id=self.gx.RunIdentifier(run_name=name),
        )
        return {result.expectation_config.meta["rule"]: result for result in run.results}

    def write_docs(self) -> None:
        """Of all runs at once: every time, all the templates are compiled anew."""
        self.context.build_data_docs([self.site])

    def _suite(self, name: str, contract: Sequence[Rule]) -> Any:
        expectations = [_expectation(rule) for rule in contract]
        return self.context.suites.add(self.gx.ExpectationSuite(name, expectations=expectations))


def _great_expectations() -> Any:
    """The library, silent, and with its usage statistics off so that nothing goes over the network."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations

    # This one sets itself to INFO when imported.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.NOTSET)
    return great_expectations


def _context(gx: Any, docs_dir: Path, name: str) -> Any:
    from great_expectations.data_context.types.base import ProgressBarsConfig

    from training.data_docs import site

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    context.add_data_docs_site(name, site(docs_dir))
    return context


def _expectation(rule: Rule) -> Any:
    from training.image_expectations import expectation_of

    # Data Docs show the description in place of a sentence of Great Expectations' own; so it tells the limits too.
    limits = "; ".join(f"{name}: {_shown(value)}" for name, value in _limits(rule).items())
    told = {"description": f"{rule.meaning} ({limits})" if limits else rule.meaning} if rule.meaning else {}
    return expectation_of(rule.expectation, rule.kwargs | told, {"rule": rule.name, "group": rule.group})


def _limits(rule: Rule) -> dict[str, Any]:
    return {name: value for name, value in rule.kwargs.items() if name != "column"}


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _tolerant(rule: Rule, config: RunConfig) -> Rule:
    """As few as are tolerated do not fail a rule about rows."""
    if rule.problems is not None or not config.data.max_bad_fraction:
        return rule
    return replace(rule, kwargs=rule.kwargs | {"mostly": 1 - config.data.max_bad_fraction})


def _judged(rule: Rule, found: Any) -> Rule:
    """A rule of the config with the rows that Great Expectations found to break it."""
    if rule.group != "custom":
        return rule
    places = (found.result or {}).get("unexpected_index_list") or []
    column = found.expectation_config.kwargs.get("column", "row")

    def sentence(_: pd.DataFrame, row: Any) -> str:
        return received(f"{place(row)}: {column}", _plain(getattr(row, column, None)), _demanded(rule))

    return replace(rule, breaks=lambda rows: pd.Series(rows.index.isin(places), rows.index), sentence=sentence)


def _demanded(rule: Rule) -> str:
    limits = ", ".join(f"{name}: {_shown(value)}" for name, value in _limits(rule).items())
    return f"{rule.expectation} ({limits})" if limits else rule.expectation


def _result(rule: Rule, found: Any, rows: pd.DataFrame) -> ExpectationResult:
    detail = found.result or {}
    places = (detail.get("unexpected_index_list") or [])[:_EXAMPLES]
    return ExpectationResult(
        rule=rule.name,
        group=rule.group,
        expectation=found.expectation_config.type,
        column=found.expectation_config.kwargs.get("column") or "",
        meaning=rule.meaning or found.expectation_config.description or "",
        success=bool(found.success),
        observed=_plain(detail.get("observed_value", detail.get("partial_unexpected_list", [])[:_EXAMPLES])),
        limit=_limits(rule),
        unexpected_count=int(detail.get("unexpected_count", 0)),
        examples=tuple(str(_plain(rows["path"][place])) for place in places),
    )


def _plain(value: Any) -> JsonValue:
    """JSON's own types for NumPy's and pandas'."""
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if value is None or pd.isna(value):
        return None
    plain: JsonValue = value.item() if hasattr(value, "item") else value
    return plain


def _problems(
    contract: Sequence[Rule], demands: Sequence[Rule], found: Mapping[str, Any], rows: pd.DataFrame, whole: _Whole
) -> list[str]:
    """One line for each reason to stop."""
    columns, *about_rows = contract
    if not found[columns.name].success:
        return [problem(columns, rows)]  # without its columns, whatever else a manifest breaks only follows
    lines = [_demand(rule, found[rule.name], rows) for rule in about_rows if not found[rule.name].result]
    too_many = whole.bad > demands[0].kwargs["max_value"]
    lines += [problem(rule, rows) for rule in about_rows if too_many and len(broken(rule, rows))]
    lines += [_demand(rule, found[rule.name], whole.rows) for rule in demands if not found[rule.name].success]
    return list(dict.fromkeys(filter(None, lines)))


def _demand(rule: Rule, found: Any, rows: pd.DataFrame) -> str:
    if rule.problems is not None:
        return problem(rule, rows)
    if not found.result:
        return received(f"{rule.name}.kwargs", rule.kwargs, f"a column of the manifest: {', '.join(map(str, rows))}")
    return received(rule.name, _plain(found.result.get("observed_value")), _demanded(rule))


def _report(
    config: RunConfig,
    rows: pd.DataFrame,
    failed: pd.DataFrame,
    results: tuple[ExpectationResult, ...],
    problems: list[str],
    cause: str | None,
    whole: _Whole,
) -> ValidationReport:
    return ValidationReport(
        success=not problems,
        suite=f"{config.name}_images",
        images=len(rows),
        accepted=len(whole.accepted),
        bad_fraction=whole.bad,
        quarantined={str(rule): int(count) for rule, count in failed["rule"].value_counts().sort_index().items()},
        results=results,
        counts=_counts(whole.accepted, config),
        shares=_shares(whole.accepted, config),
        summary=whole.summary,
        drift=whole.drift,
        problems=tuple(problems),
        cause=cause if problems else None,
    )


def _counts(manifest: pd.DataFrame, config: RunConfig) -> dict[str, dict[str, int]]:
    counts = manifest.groupby(["split", "label"]).size().to_dict()
    return {split: {label: int(counts.get((split, label), 0)) for label in config.data.classes} for split in SPLITS}


def _shares(manifest: pd.DataFrame, config: RunConfig) -> dict[str, SplitShare]:
    validation, test = config.split.validation, config.split.test
    counts, total = manifest["split"].value_counts().to_dict(), max(len(manifest), 1)
    expected = {"train": 1 - validation - test, "validation": validation, "test": test}
    observed = {split: counts.get(split, 0) / total for split in SPLITS}
    return {
        split: SplitShare(expected=share, observed=observed[split], deviation=observed[split] - share)
        for split, share in expected.items()
    }
