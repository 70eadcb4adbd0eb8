"""What a study found, a row a run, and its tables: a variant a line, means over seeds with their range."""

import csv
import io
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from training.documents import Document

ABSENT = "–"
_NOTES = """\
- Figures are means over seeds; in brackets the range over seeds, smallest to largest. `[2 of 3]`: only so many runs
  had a finite figure; – where none had, or it was not measured.
- Losses are bare cross-entropies in nats. A: the kept epoch's mean while `fit` ran. C, D, E: the same oversampled
  training images without dropout, normalised by their batch (where BatchNorm trains), by the statistics as training
  left them (what `model.evaluate` shows), and by recalibrated ones.
- Accepted: the gate's verdict, in brackets what stood behind refusals. Without recalibration, the same gate judges D
  and its intervals in place of what is served; the kept epoch is the same.
- ROC AUC of more than two classes is the mean of each against the rest.
- The intervals of ROC AUC and test loss are 95 % bootstraps over test images, their bounds averaged over seeds: they
  say how far other test images could move the figure; the range says how far another seed moved it.
- Mini-batch statistics: test images normalised by their own batch{batches} in place of what is served.
- Seconds are those of the machine the runs were made on."""


class Variant(Document):
    """One way to train: which of the methods proposed for the gap it is, and its settings."""

    method: str
    about: str
    settings: dict[str, Any]


class Row(Document):
    """One run's figures; null where there is none. Losses are in nats, on the training images of `evaluation.json`.

    Attributes:
        loss_before, loss_after: `evaluate` before and after recalibration, D and E.
        gap_before, gap_after: these minus the loss of `fit`, with 98 % intervals where one was measured.
        test_loss_interval, test_roc_auc_interval: 95 %, over test images.
        mini_batch_…: of the test images, normalised by their own batch's statistics.
    """

    variant: str
    seed: int
    run: str
    accepted: bool = False
    cause: str | None = None
    accepted_without_recalibration: bool = False
    cause_without_recalibration: str | None = None
    recalibrated: bool | None = None
    kept_epoch: int | None = None
    fit_loss: float | None = None
    batch_statistics_loss: float | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    gap_before: float | None = None
    gap_before_interval: tuple[float, float] | None = None
    gap_after: float | None = None
    gap_after_interval: tuple[float, float] | None = None
    validation_loss: float | None = None
    test_loss: float | None = None
    test_loss_interval: tuple[float, float] | None = None
    test_roc_auc: float | None = None
    test_roc_auc_interval: tuple[float, float] | None = None
    mini_batch_size: int | None = None
    mini_batch_test_loss: float | None = None
    mini_batch_test_roc_auc: float | None = None
    train_seconds: float
    total_seconds: float


class Study(Document):
    """A study's variants and runs, in order; `settings` are those laid over the config of every run."""

    name: str
    settings: dict[str, Any]
    variants: dict[str, Variant]
    runs: tuple[Row, ...]

    def of(self, variant: str) -> list[Row]:
        """One variant's runs."""
        return [row for row in self.runs if row.variant == variant]

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(row.seed for row in self.runs))


class Column(NamedTuple):
    """A table's column: heading and cell in study.md, and in the terminal (no heading: not shown there)."""

    head: str
    cell: Callable[[Sequence[Row]], str]
    brief_head: str
    brief: Callable[[Sequence[Row]], str]


def as_csv(study: Study) -> bytes:
    """One line a run, intervals as two columns."""
    text = io.StringIO(newline="")
    rows = [_flat(row.tree()) for row in study.runs]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_markdown(study: Study) -> bytes:
    """Both tables, the picture, and what the figures are."""
    parts = [
        f"# {study.name}: ways to train, side by side",
        f"Seeds: {', '.join(map(str, study.seeds))}; the same data and split.{_settings(study)}",
        "![Losses on the same training images and test ROC AUC, by variant](study.svg)",
        _variants(study),
        "## Training against evaluation, on the same training images",
        _markdown_table(study, _GAP),
        "## On images never trained on, and the cost",
        _markdown_table(study, _QUALITY),
        _notes(study),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def as_text(study: Study) -> str:
    """The table for a terminal: means over seeds alone."""
    columns = [column for column in (*_GAP, *_QUALITY) if column.brief_head]
    heads = [column.brief_head.split("\n") for column in columns]
    lines = [["", *(head[0] for head in heads)], ["variant", *(head[1] for head in heads)]]
    lines += [[name, *(column.brief(study.of(name)) for column in columns)] for name in study.variants]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *_right(line[1:], widths[1:])]).rstrip() for line in lines)


def _figure(head: str, field: str, brief_head: str = "", digits: int = 3) -> Column:
    def values(rows: Sequence[Row]) -> list[float]:
        return [row[field] for row in rows if row[field] is not None]

    def mean(rows: Sequence[Row]) -> str:
        return f"{fmean(values(rows)):.{digits}f}" if values(rows) else ABSENT

    def spread(rows: Sequence[Row]) -> str:
        found = values(rows)
        spread = f" ({min(found):.{digits}f} to {max(found):.{digits}f})" if len(found) > 1 else ""
        return mean(rows) + spread + (f" [{len(found)} of {len(rows)}]" if 0 < len(found) < len(rows) else "")

    return Column(head, spread, brief_head, mean)


def _gate(head: str, accepted: str, cause: str, brief_head: str) -> Column:
    def count(rows: Sequence[Row]) -> str:
        return f"{sum(row[accepted] for row in rows)} of {len(rows)}"

    def with_causes(rows: Sequence[Row]) -> str:
        causes = sorted({row[cause] for row in rows if row[cause]})
        return count(rows) + (f" ({', '.join(causes)})" if causes else "")

    return Column(head, with_causes, brief_head, count)


def _interval(field: str) -> Column:
    """The mean of the seeds' bounds: each is over the same test images, so more seeds do not narrow it."""

    def bounds(rows: Sequence[Row]) -> str:
        found = [row[field] for row in rows if row[field] is not None]
        return f"{fmean(low for low, _ in found):.3f} to {fmean(high for _, high in found):.3f}" if found else ABSENT

    return Column("its 95 % interval", bounds, "", bounds)


_GAP = (
    _figure("fit (A)", "fit_loss", "fit\nA"),
    _figure("batch statistics (C)", "batch_statistics_loss", "batch\nC"),
    _figure("evaluate, before recalibration (D)", "loss_before", "before\nD"),
    _figure("evaluate, after (E)", "loss_after", "after\nE"),
    _figure("gap before (D − A)", "gap_before", "gap\nD − A"),
    _figure("gap after (E − A)", "gap_after", "gap\nE − A"),
    _gate(
        "accepted without recalibration", "accepted_without_recalibration", "cause_without_recalibration", "gate\nat D"
    ),
    _gate("accepted as served", "accepted", "cause", "gate\nserved"),
)
_QUALITY = (
    _figure("validation loss", "validation_loss", "valid.\nloss"),
    _figure("test ROC AUC", "test_roc_auc", "test\nROC AUC"),
    _interval("test_roc_auc_interval"),
    _figure("test loss", "test_loss", "test\nloss"),
    _interval("test_loss_interval"),
    _figure("test ROC AUC on mini-batch statistics", "mini_batch_test_roc_auc", "mini-batch\nROC AUC"),
    _figure("test loss on mini-batch statistics", "mini_batch_test_loss"),
    _figure("training, s", "train_seconds", "train\ns", 0),
    _figure("whole run, s", "total_seconds", "", 0),
)


def _markdown_table(study: Study, columns: Sequence[Column]) -> str:
    lines = [["variant", *(column.head for column in columns)], ["---", *("--:" for _ in columns)]]
    lines += [[f"`{name}`", *(column.cell(study.of(name)) for column in columns)] for name in study.variants]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _variants(study: Study) -> str:
    lines = ["| variant | proposed method | what it does | settings |", "| --- | --- | --- | --- |"]
    for name, variant in study.variants.items():
        settings = ", ".join(f"`{key}={value}`" for key, value in variant.settings.items())
        lines.append(f"| `{name}` | {variant.method} | {variant.about} | {settings} |")
    return "\n".join(lines)


def _settings(study: Study) -> str:
    shown = ", ".join(f"`{key}={value}`" for key, value in study.settings.items())
    return f" Set for every run: {shown}." if shown else ""


def _notes(study: Study) -> str:
    sizes = sorted({row.mini_batch_size for row in study.runs if row.mini_batch_size is not None})
    return _NOTES.format(batches=f" (batches of {', '.join(map(str, sizes))})" if sizes else "")


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if key.endswith("_interval"):
            low, high = value or (None, None)
            flat |= {key.replace("_interval", "_low"): low, key.replace("_interval", "_high"): high}
        else:
            flat[key] = value
    return flat


def _right(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
