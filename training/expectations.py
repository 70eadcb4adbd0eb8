"""Holds a manifest against its rules with Great Expectations; the only module that imports it."""

import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import JsonValue

from training.config import RunConfig
from training.documents import Document
from training.manifest_rules import Rule, complete, failed_rows, problem, rules, with_helpers
from training.split import SPLITS

__all__ = ["ExpectationResult", "SplitShare", "ValidationReport", "check", "failed_rows"]
_SITE = "data_docs"
_EXAMPLES = 5


class ExpectationResult(Document):
    """One expectation's result.

    Attributes:
        expectation: its name in Great Expectations.
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
    """What the check found; `problems` has one line for each expectation that was not met."""

    success: bool
    suite: str
    images: int
    results: tuple[ExpectationResult, ...]
    counts: dict[str, dict[str, int]]
    shares: dict[str, SplitShare]
    problems: tuple[str, ...]


def check(manifest: pd.DataFrame, config: RunConfig, docs_dir: Path) -> ValidationReport:
    """Run the suite over a manifest and write Data Docs, a static site with an index.html, into `docs_dir`.

    Args:
        manifest: columns as in `training.manifest.COLUMNS`, one row an image; left as it is.
    """
    suite = f"{config.name}_manifest"
    rows, contract = with_helpers(manifest, config), rules(config)
    found = _run(rows, contract, suite, docs_dir)
    results = tuple(_result(rule, found[rule.name]) for rule in contract)
    return ValidationReport(
        success=all(result.success for result in results),
        suite=suite,
        images=len(manifest),
        results=results,
        counts=_counts(complete(manifest), config),
        shares=_shares(complete(manifest), config),
        problems=_problems(contract, results, rows),
    )


def _run(rows: pd.DataFrame, contract: tuple[Rule, ...], suite: str, docs_dir: Path) -> dict[str, Any]:
    """Great Expectations' result of each rule, by the rule's name; Data Docs are written on the way."""
    gx = _great_expectations()
    context = _context(gx, docs_dir)
    images = context.data_sources.add_pandas("manifest").add_dataframe_asset("images")
    definition = gx.ValidationDefinition(
        name=suite,
        data=images.add_batch_definition_whole_dataframe("all"),
        suite=context.suites.add(
            gx.ExpectationSuite(suite, expectations=[_expectation(gx, rule) for rule in contract])
        ),
    )
    checkpoint = gx.Checkpoint(
        name=suite,
        validation_definitions=[context.validation_definitions.add(definition)],
        actions=[gx.checkpoint.UpdateDataDocsAction(name=_SITE, site_names=[_SITE])],
        result_format={"result_format": "SUMMARY", "unexpected_index_column_names": ["path"]},
    )
    outcome = context.checkpoints.add(checkpoint).run(
        batch_parameters={"dataframe": rows}, run_id=gx.RunIdentifier(run_name=suite)
    )
    (run,) = outcome.run_results.values()
    return {result.expectation_config.meta["rule"]: result for result in run.results}


def _great_expectations() -> Any:
    """The library, silent, and with its usage statistics off so that nothing goes over the network."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations

    # This one sets itself to INFO when imported.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.NOTSET)
    return great_expectations


def _context(gx: Any, docs_dir: Path) -> Any:
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs_dir.absolute())}
    site = {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": store}
    context.add_data_docs_site(_SITE, site | {"site_index_builder": {"class_name": "DefaultSiteIndexBuilder"}})
    return context


def _expectation(gx: Any, rule: Rule) -> Any:
    column = {"column": rule.column} if rule.column else {}
    # Data Docs show the description in place of a sentence of Great Expectations' own; so it tells the limits too.
    limits = "; ".join(f"{name}: {_shown(value)}" for name, value in rule.limits.items())
    return getattr(gx.expectations, rule.expectation)(
        **column,
        **rule.limits,
        description=f"{rule.meaning} ({limits})" if limits else rule.meaning,
        meta={"rule": rule.name, "group": rule.group},
    )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _result(rule: Rule, found: Any) -> ExpectationResult:
    detail = found.result or {}
    places = detail.get("partial_unexpected_index_list") or []
    return ExpectationResult(
        rule=rule.name,
        group=rule.group,
        expectation=found.expectation_config.type,
        column=rule.column,
        meaning=rule.meaning,
        success=bool(found.success),
        observed=_plain(detail.get("observed_value", detail.get("partial_unexpected_list", [])[:_EXAMPLES])),
        limit=rule.limits,
        unexpected_count=int(detail.get("unexpected_count", 0)),
        examples=tuple(str(_plain(place["path"])) for place in places[:_EXAMPLES]),
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
    contract: tuple[Rule, ...], results: tuple[ExpectationResult, ...], rows: pd.DataFrame
) -> tuple[str, ...]:
    broken = [rule for rule, result in zip(contract, results, strict=True) if not result.success]
    if broken and broken[0].group == "schema" and not broken[0].column:
        broken = broken[:1]  # without its columns, whatever else a manifest breaks only follows
    return tuple(dict.fromkeys(problem(rule, rows) for rule in broken))


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
