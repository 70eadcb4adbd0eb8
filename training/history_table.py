"""The champion's history as plain text."""

from collections.abc import Sequence

from training.champion import Champion

_COLUMNS = ("", "number", "promoted (UTC)", "test loss", "ROC AUC", "code", "data", "by", "run")


def as_text(entries: Sequence[Champion]) -> str:
    """One line an entry, the oldest first; an arrow marks the one in service."""
    rows = [_COLUMNS, *(_row(entry, in_service=entry is entries[-1]) for entry in entries)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _row(entry: Champion, *, in_service: bool) -> tuple[str, ...]:
    back = f" (again {entry.rolled_back_to})" if entry.rolled_back_to else ""
    return (
        "→" if in_service else "",
        f"{entry.number}{back}",
        entry.promoted_at[:19].replace("T", " "),
        f"{entry.test_loss:.3f}",
        f"{entry.test_roc_auc:.3f}",
        _short(entry.code),
        _short(entry.data_sha256),
        entry.promoted_by or "–",
        entry.run,
    )


def _short(digest: str | None) -> str:
    """The first eight digits, and whether the code had changes."""
    return "–" if digest is None else digest[:8] + ("+" if "+" in digest else "")
