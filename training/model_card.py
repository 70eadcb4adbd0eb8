"""The model card that is stored beside a champion."""

import math
from typing import Any

import jinja2

from training import provenance
from training.champion import Champion
from training.exports import Exports
from training.run_folder import Run
from training.sampling import PRIOR_METHODS, Prior, SamplingPlan

# Of everything that was installed, what the numbers come from.
_NAMED = ("keras", "tensorflow", "numpy")
_UNKNOWN = "unknown"


def model_card(run: Run, entry: Champion, exports: Exports) -> bytes:
    """Markdown made from the run's own files, in UTF-8."""
    return (
        _template()
        .render(
            config=run.config,
            entry=entry,
            exports=exports,
            batch_norm=run.read_json("batch_norm.json"),
            validation=run.read_json("validation.json"),
            **_answers(run, entry),
            **_measured(run),
            **_made(run),
        )
        .encode()
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training"),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"figure": "{:.3f}".format, "percent": "{:.1%}".format, "signed": "{:+.3f}".format}
    return environment.get_template("model_card.md.jinja")


def _answers(run: Run, entry: Champion) -> dict[str, Any]:
    """What the outputs mean."""
    prior = Prior.model_validate(run.read_json("evaluation.json")["prior"])
    two = len(entry.classes) == 2
    return {
        "positive": entry.classes[1] if two else None,
        "labels": ", ".join(f"`{label}`" for label in entry.classes),
        "plan": SamplingPlan.model_validate(run.read_json("sampling.json")),
        "shift": prior.on_outputs(1 if two else len(entry.classes)).tolist(),
        "method": PRIOR_METHODS[prior.method],
    }


def _measured(run: Run) -> dict[str, Any]:
    evaluation: dict[str, Any] = run.read_json("evaluation.json")
    summary: dict[str, Any] = run.read_json("validation.json")["summary"]  # type: ignore[assignment]
    test = evaluation["metrics"]["test"]
    return {
        "test": test,
        "interval": "{:.3f} to {:.3f}".format(*test["roc_auc_interval"]),
        "losses": evaluation["losses"],
        "calibration": evaluation["calibration"],
        "brightness": summary["brightness"],
        "side": round(math.exp(summary["log_pixels"]["mean"] / 2)),
    }


def _made(run: Run) -> dict[str, Any]:
    made = provenance.read(run.store)
    environments = made.get("environments", {}).values()
    commits = {f"commit `{facts['code_commit'] or _UNKNOWN}`" for facts in environments}
    return {
        "commits": ", ".join(sorted(commits)) or _UNKNOWN,
        "versions": "; ".join(sorted({_versions(facts) for facts in environments})) or _UNKNOWN,
        "data_sha256": made.get("data_sha256", _UNKNOWN),
    }


def _versions(facts: dict[str, Any]) -> str:
    named = (f"{name} {facts['versions'].get(name, _UNKNOWN)}" for name in _NAMED)
    return f"Python {facts['python']}, {', '.join(named)} on {facts['processor']}"
