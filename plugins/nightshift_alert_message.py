"""What ops are told of a night: built from a run's documents, sent by nobody; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from training.evaluation import MEANINGS
from training.nights import Night, in_words
from training.step_names import STEPS
from training.verdict import WORSE

Document = Mapping[str, Any]

# The picture of the losses, where the step that draws it got that far.
PICTURE = "losses.png"
RUNBOOK = "Runbook"
# The losses worth a line, in the order they are read.
_LOSSES = {
    "fit": "fit loss, training mode",
    "inference_before": "evaluation loss before recalibration, same images",
    "inference": "evaluation loss after recalibration, same images",
    "served": "evaluation loss of the served model, same images",
}
# The cause that no step could name, because the process was gone or never got to it.
KILLED = {
    "code": "killed",
    "message": "The task ended without a word: it was killed, ran out of memory, or lost its machine.",
    "cause": "killed",
    "remedy": "See the task's log and the machine's memory; then clear the task, which goes on where it stopped.",
}
# The run's folder does not answer, and the task's own callback may not have run.
UNKNOWN = {
    "code": "store",
    "message": "The task failed, and the run's folder cannot be read to see why.",
    "cause": "store",
    "remedy": "See the task's log; check that the runs' storage answers.",
}
_ORDINALS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
# Slack refuses longer texts.
_SLACK_LIMIT, _SLACK_FACT = 2900, 800


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
class Place:
    """Which step of which run it is about, at which try of it, and where to look."""

    model: str
    run_id: str
    step: str
    links: Mapping[str, str]
    attempt: int | None = None


@dataclass(frozen=True)
class Message:
    """One message, ready for every channel.

    Attributes:
        name: of its file in the run's `alerts/`; a run sends one message of a name.
        picture: PNG, or None.
        quiet: whether it only repeats what was told the night before.
    """

    name: str
    subject: str
    cause: str
    place: Place
    facts: tuple[tuple[str, str], ...]
    numbers: tuple[Number, ...] = ()
    picture: bytes | None = None
    quiet: bool = False

    @classmethod
    def of(cls, name: str, tree: Document) -> "Message":
        """The message that `tree` was made from, without its picture."""
        place = Place(tree["model"], tree["run_id"], tree["step"], tree["links"], tree.get("try"))
        facts, numbers = tuple(tree["facts"].items()), tuple(Number(**one) for one in tree["numbers"])
        return cls(name, tree["subject"], tree["cause"], place, facts, numbers, quiet=tree.get("quiet", False))

    def tree(self) -> dict[str, Any]:
        """All of it but the picture as plain JSON values."""
        numbers = [{"label": one.label, "observed": one.observed, "limit": one.limit} for one in self.numbers]
        place = {"model": self.place.model, "run_id": self.place.run_id, "step": self.place.step}
        place |= {"try": self.place.attempt, "links": dict(self.place.links)}
        told = {"subject": self.subject, "cause": self.cause, "facts": dict(self.facts), "numbers": numbers}
        return {**told, **place, "quiet": self.quiet, "text": as_text(self)}


def unexpected(exception: object) -> Document:
    """The failure of a task that raised before its step could leave one."""
    # Airflow's own, which ends the retries, is raised from the step's.
    origin = getattr(exception, "__cause__", None)
    error = origin if hasattr(origin, "remedy") else exception
    cause, remedy = getattr(error, "cause", "unexpected"), getattr(error, "remedy", "") or "See the task's log."
    return {"code": "unexpected", "message": str(error), "cause": cause, "remedy": remedy}


def failed(
    place: Place,
    failure: Document,
    verdict: Document | None = None,
    evaluation: Document | None = None,
    before: Sequence[Night] = (),
    picture: bytes | None = None,
) -> Message:
    """A failure, with the numbers the gate went by if the step got that far.

    Args:
        before: the nights directly before it that failed just so, the newest first; then it is told in fewer words,
            without the picture.
    """
    if before:
        return _failed_again(place, failure, verdict, before)
    cause, step = failure["cause"], place.step
    facts = [("What happened", failure["message"]), ("Likely cause", _meaning(cause)), ("Remedy", failure["remedy"])]
    measured = [Number(label, evaluation["losses"].get(name)) for name, label in _LOSSES.items()] if evaluation else []
    numbers = (*_against_limits(verdict), *_against_champion(cause, verdict), *measured)
    subject = f"Nightshift: {place.model} failed at {step} ({cause})"
    return Message(f"{step}-{cause}", subject, cause, place, _with_place(place, facts), numbers, picture)


def _failed_again(place: Place, failure: Document, verdict: Document | None, before: Sequence[Night]) -> Message:
    cause, step, nth = failure["cause"], place.step, ordinal(len(before) + 1)
    facts = [
        ("Again", f"the {nth} night in a row, since {before[-1].began[:10]}"),
        ("What happened", failure["message"]),
        ("Remedy", failure["remedy"]),
    ]
    subject = f"Nightshift: {place.model}, {nth} night: {cause} at {step}"
    numbers = _against_limits(verdict)
    return Message(f"{step}-{cause}", subject, cause, place, _with_place(place, facts), numbers, quiet=True)


def recovered(place: Place, night: Night, before: Sequence[Night]) -> Message:
    """A night that passed after the failed nights `before` it, the newest first."""
    count = "one failed night" if len(before) == 1 else f"{len(before)} failed nights"
    facts = [
        ("Recovered", f"this night passed, after {count} since {before[-1].began[:10]}"),
        ("The last failure was", f"{before[0].cause} at {before[0].step}"),
        ("Outcome", f"{night.outcome}. {in_words(night)}"),
    ]
    subject = f"Nightshift: {place.model} recovered after {count}"
    return Message("recovered", subject, "recovered", place, _with_place(place, facts))


def late(place: Place, hours: float, done: Sequence[str], since: str | None = None) -> Message:
    """A night that has not ended in time.

    Args:
        done: the steps it has behind it.
        since: when the last of these ended, or where there is none when the night was queued.
    """
    finished, at = ", ".join(done) or "no step", f", since {since}" if since else ""
    facts = [
        ("What happened", f"The night has not ended {hours:g} hours after it was queued; done so far: {finished}."),
        ("Now", f"{place.step} runs or waits{at}"),
        ("Likely cause", "a slow or lost worker, a full pool or queue, more data than usual, or a pending approval"),
        ("Remedy", "See whether the step runs, waits or was lost; a cleared task goes on where it stopped."),
    ]
    subject = f"Nightshift: {place.model} has not ended in time (at {place.step})"
    return Message("deadline", subject, "deadline", place, _with_place(place, facts))


def step_after(done: Sequence[str]) -> str:
    """The step that a night is at when these are done."""
    return next((step for step in STEPS if step not in done), STEPS[-1])


def asked(place: Place, night: Night) -> Message:
    """An accepted model that waits for a person's approval."""
    facts = [("What is needed", "Approve or reject the promotion on Airflow's page."), ("Outcome", in_words(night))]
    subject = f"Nightshift: {place.model} waits for approval"
    return Message("approval", subject, "approval", place, _with_place(place, facts))


def as_text(message: Message) -> str:
    """Plain text, for the log and for clients without HTML."""
    lines = [message.subject, "", *(f"{label}: {value}" for label, value in message.facts)]
    lines += ["", *map(str, message.numbers)] if message.numbers else []
    return "\n".join([*lines, "", *(f"{label}: {url}" for label, url in message.place.links.items())])


def as_html(message: Message, picture: str | None = None) -> str:
    """The e-mail's body; `picture` is where its picture is found, e.g. ``cid:…``."""
    cell = "padding:4px 12px 4px 0;vertical-align:top;text-align:left"
    facts = "".join(_row(cell, escape(label), escape(value)) for label, value in message.facts)
    numbers = "".join(_row(cell, escape(one.label), escape(_observed(one))) for one in message.numbers)
    links = "".join(f"<li>{_anchor(label, url)}</li>" for label, url in message.place.links.items())
    image = f'<p><img src="{picture}" alt="Losses from fit to validation" width="600"></p>' if picture else ""
    return (
        f'<div style="font:15px/1.5 system-ui,sans-serif;max-width:44rem"><h2>{escape(message.subject)}</h2>'
        f"<table>{facts}</table>{image}<table>{numbers}</table><ul>{links}</ul></div>"
    )


def as_slack(message: Message) -> dict[str, Any]:
    """The webhook's JSON: `text` for notifications, `blocks` for the channel."""
    facts = "\n".join(f"*{label}:* {_slack(value[:_SLACK_FACT])}" for label, value in message.facts)
    if message.quiet:  # a header shouts
        facts = f"{_slack(message.subject)}\n{facts}"
    sections = [facts, "\n".join(f"• {_slack(str(number))}" for number in message.numbers)]
    sections.append(" · ".join(_slack_link(label, url) for label, url in message.place.links.items()))
    header = {"type": "header", "text": {"type": "plain_text", "text": message.subject[:150]}}
    blocks: list[dict[str, Any]] = [] if message.quiet else [header]
    blocks += [
        {"type": "section", "text": {"type": "mrkdwn", "text": text[:_SLACK_LIMIT]}} for text in sections if text
    ]
    happened = " ".join(value for label, value in message.facts if label == "What happened")
    return {"text": _slack(f"{message.subject}: {happened}" if happened else message.subject), "blocks": blocks}


def _against_limits(verdict: Document | None) -> tuple[Number, ...]:
    return tuple(Number(one["code"], one["observed"], one["limit"]) for one in (verdict or {}).get("reasons", []))


def _against_champion(cause: str, verdict: Document | None) -> tuple[Number, ...]:
    found = (verdict or {}).get("champion")
    if cause != WORSE or not found:
        return ()
    measures = {"test loss": "loss", "test ROC AUC": "roc_auc"}
    return tuple(
        Number(f"{label} of {whose}", found[f"{who}_{key}"])
        for label, key in measures.items()
        for who, whose in (("candidate", "this model"), ("champion", f"champion {found['number']}"))
    )


def _with_place(place: Place, facts: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return (("Model", place.model), ("Run", place.run_id), ("Step", place.step), *facts)


def ordinal(number: int) -> str:
    """The word for a place in a row, from the second on: second, third, … 21st, 112th."""
    if number - 2 < len(_ORDINALS):
        return _ORDINALS[number - 2]
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def _meaning(cause: str) -> str:
    words = cause.replace("_", " ")
    return f"{words}: {MEANINGS[cause]}" if cause in MEANINGS else words


def _figure(value: float | None) -> str:
    return "not a finite number" if value is None else f"{value:.4g}"


def _observed(number: Number) -> str:
    return str(number).removeprefix(f"{number.label}: ")


def _row(style: str, head: str, value: str) -> str:
    return f'<tr><th style="{style}">{head}</th><td style="{style}">{value}</td></tr>'


def _anchor(label: str, url: str) -> str:
    if url.startswith(("http://", "https://")):
        return f'<a href="{escape(url)}">{escape(label)}</a>'
    return f"{escape(label)}: {escape(url)}"


def _slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _slack_link(label: str, url: str) -> str:
    # An address that holds Slack's own signs stays text.
    is_link = url.startswith(("http://", "https://")) and not set(url) & set("<>|")
    return f"<{_slack(url)}|{label}>" if is_link else f"{label}: {_slack(url)}"
