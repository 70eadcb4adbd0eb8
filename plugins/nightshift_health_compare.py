"""Two nights side by side: figures, causes and the settings in which they differ; pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nightshift_health_nights import CAUSES

from training.nights import Night

_LOSSES = {
    "fit": "Fit loss",
    "inference_before": "Evaluate, before recalibration",
    "inference": "Evaluate, after recalibration",
    "served": "Served",
}


@dataclass(frozen=True)
class Row:
    """One figure of both nights; None where a night has none."""

    label: str
    one: float | None
    other: float | None
    digits: int = 4
    chart: str = ""

    @property
    def difference(self) -> float | None:
        return None if self.one is None or self.other is None else self.other - self.one


def figures(one: Night, other: Night) -> list[Row]:
    """What was measured, in nats unless its label says otherwise."""
    rows = [Row(label, one.losses.get(key), other.losses.get(key), chart="loss") for key, label in _LOSSES.items()]
    rows += [Row("Limit", one.limit, other.limit, chart="loss")]
    rows += [Row(_words(name), one.causes.get(name), other.causes.get(name), chart="cause") for name in CAUSES]
    rows += [Row("Test ROC AUC", _auc(one), _auc(other))]
    return [*rows, Row("Images", one.images, other.images, 0), Row("Seconds", one.seconds, other.seconds, 1)]


def differing_settings(one: bytes | None, other: bytes | None) -> list[tuple[str, str, str]] | None:
    """Dotted key and both values of each setting that is not the same; None if a night's settings are not there."""
    trees = [_tree(one), _tree(other)]
    if None in trees:
        return None
    left, right = (dict(_leaves(tree)) for tree in trees)
    keys = sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))
    return [(key, left.get(key, "–"), right.get(key, "–")) for key in keys]


def _tree(content: bytes | None) -> Any:
    """As it was written, since a night of another version may hold settings that there are no more."""
    try:
        return None if content is None else dict(json.loads(content))
    except (TypeError, ValueError):
        return None


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, json.dumps(tree, ensure_ascii=False)


def _auc(night: Night) -> float | None:
    return night.roc_auc and night.roc_auc[0]


def _words(cause: str) -> str:
    return "Cause: " + cause.replace("_", " ")
