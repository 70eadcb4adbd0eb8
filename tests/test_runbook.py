"""The runbook has an entry for each cause that an alert can name."""

import re

from tests.conftest import ROOT, SOLAR_CELLS
from training.config import load_config
from training.data_set_rules import set_rules
from training.data_summary import DataSummary, Spread, drifts
from training.evaluation import MEANINGS
from training.manifest_rules import rules

HEADINGS = set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE))


def named_in_the_code() -> set[str]:
    """Every cause that is written down somewhere, be it as an error's own name."""
    sources = [*(ROOT / "training").rglob("*.py"), *(ROOT / "plugins").glob("*.py")]
    pattern = re.compile(r"""(?:cause=|"cause": |^    code = |^CAUSE = )"(\w+)\"""", re.MULTILINE)
    return {name for path in sources for name in pattern.findall(path.read_text())}


def of_data() -> set[str]:
    """The rules whose breach ends a night."""
    config, one = load_config(SOLAR_CELLS), Spread(mean=1, sd=1)
    summary = DataSummary(images=1, shares={}, brightness=one, log_pixels=one)
    of_all = set_rules(config, 0.0, drifts(summary, summary, config.drift))
    return {rule.name for rule in (rules(config)[0], *of_all)}


def test_each_cause_has_its_entry():
    assert (named_in_the_code() | of_data() | set(MEANINGS)) - HEADINGS == set()
