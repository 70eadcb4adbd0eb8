"""What ops are told when a night fails: built from a run's documents, sent by nobody; pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from training.evaluation import MEANINGS

Document = Mapping[str, Any]

# The losses worth a line, in the order they are read.
_LOSSES = {
    "fit": "fit loss, training mode",
    "inference_before": "evaluation loss before recalibration, same images",
    "inference": "evaluation loss after recalibration, same images",
    "served": "evaluation loss of the served model, same images",
}
# The causes no step could name, because the process was gone or never got to it.
_KILLED = {
    "code": "killed",
    "message": "The task ended without a word: it was killed, ran out of memory, or lost its machine.",
    "cause": "killed",
    "remedy": "See the task's log and the machine's memory; then clear the task, which goes on where it stopped.",
}
# Slack refuses longer texts.
_SLACK_LIMIT = 2900


@dataclass(frozen=True)
class Number:
    """A measured value and, where there is one, the limit it is held against."""

    label: str
    observed: float | None
    limit: float | None = None

    def __str__(self) -> str:
        limit = "" if self.limit is None else f" (limit {_figure(self.limit)})"
        return f"{self.label}: {_figure(self.observed)}{limit}"


@dataclass(frozen=True)
class Night:
    """Which task of which run failed, and where to look."""

    model: str
    run_id: str
    run_uri: str
    step: str
    links: Mapping[str, str]


@dataclass(frozen=True)
class Alert:
    """One message, ready for every channel."""

    night: Night
    cause: str
    happened: str
    likely_cause: str
    remedy: str
    numbers: tuple[Number, ...]

    @property
    def key(self) -> str:
        """The message's file in the run's folder: one for each step and cause."""
        return f"alerts/{self.night.step}-{self.cause}.json"

    @property
    def subject(self) -> str:
        return f"Nightshift: {self.night.model} failed at {self.night.step} ({self.cause})"

    def tree(self) -> dict[str, Any]:
        return {"subject": self.subject, "text": as_text(self), **asdict(self)}


def killed() -> Document:
    """The failure of a task that could not leave one."""
    return dict(_KILLED)


def unexpected(exception: object) -> Document:
    """The failure of a task that raised before its step could leave one."""
    cause = getattr(exception, "cause", "unexpected")
    remedy = getattr(exception, "remedy", "") or "See the task's log."
    return {"code": "unexpected", "message": str(exception), "cause": cause, "remedy": remedy}


def build_alert(night: Night, failure: Document, verdict: Document | None, evaluation: Document | None) -> Alert:
    """Say what happened, with the numbers the gate went by if the failed step got that far."""
    reasons = (verdict or {}).get("reasons", [])
    measured = [Number(label, _loss(evaluation, name)) for name, label in _LOSSES.items()] if evaluation else []
    refused = [Number(reason["code"], reason["observed"], reason["limit"]) for reason in reasons]
    return Alert(
        night=night,
        cause=failure["cause"],
        happened=failure["message"],
        likely_cause=_cause(failure["cause"]),
        remedy=failure["remedy"],
        numbers=(*refused, *measured),
    )


def as_text(alert: Alert) -> str:
    """Plain text, for the log and for clients without HTML."""
    lines = [alert.subject, "", *(f"{label}: {value}" for label, value in _facts(alert))]
    lines += ["", *map(str, alert.numbers)] if alert.numbers else []
    return "\n".join([*lines, "", *(f"{label}: {url}" for label, url in alert.night.links.items())])


def as_html(alert: Alert) -> str:
    """The e-mail's body."""
    facts = "".join(f"<tr><th align='left'>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in _facts(alert))
    numbers = "".join(f"<li>{escape(str(number))}</li>" for number in alert.numbers)
    links = "".join(f"<li>{escape(label)}: {_anchor(url)}</li>" for label, url in alert.night.links.items())
    return f"<h3>{escape(alert.subject)}</h3><table>{facts}</table><ul>{numbers}</ul><ul>{links}</ul>"


def as_slack(alert: Alert) -> dict[str, Any]:
    """The webhook's JSON: `text` for notifications, `blocks` for the channel."""
    facts = "\n".join(f"*{label}:* {_slack(value)}" for label, value in _facts(alert))
    sections = [facts, "\n".join(f"• {_slack(str(number))}" for number in alert.numbers)]
    sections.append("\n".join(f"{label}: {_slack(url)}" for label, url in alert.night.links.items()))
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": alert.subject[:150]}}]
    blocks += [
        {"type": "section", "text": {"type": "mrkdwn", "text": text[:_SLACK_LIMIT]}} for text in sections if text
    ]
    return {"text": f"{_slack(alert.subject)}: {_slack(alert.happened)}", "blocks": blocks}


def _facts(alert: Alert) -> list[tuple[str, str]]:
    night = alert.night
    return [
        ("Model", night.model),
        ("Run", night.run_id),
        ("Failed step", night.step),
        ("What happened", alert.happened),
        ("Likely cause", alert.likely_cause),
        ("Remedy", alert.remedy),
    ]


def _cause(cause: str) -> str:
    words = cause.replace("_", " ")
    return f"{words}: {MEANINGS[cause]}" if cause in MEANINGS else words


def _loss(evaluation: Document | None, name: str) -> float | None:
    return None if evaluation is None else evaluation["losses"].get(name)


def _figure(value: float | None) -> str:
    return "not a finite number" if value is None else f"{value:.4g}"


def _anchor(url: str) -> str:
    if url.startswith(("http://", "https://")):
        return f'<a href="{escape(url)}">{escape(url)}</a>'
    return escape(url)


def _slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
