"""The trigger form: every setting of a run as a flat field, `train.epochs` as ``train__epochs``; pure."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from training.config import RunConfig, load_config
from training.errors import ConfigError, received

# Decided when the DAG is parsed, so a run cannot change them; and what is too long for a field.
_FIXED = ("name", "schedule", "deadline_hours", "expectations")
# The form's sections, in its order, and the config's that each one shows.
_SECTIONS = {
    "Run": ("run", "scale"),
    "Data": ("data", "split", "drift"),
    "Model": ("model",),
    "Training": ("sampling", "augment", "train"),
    "Recalibration": ("recalibrate",),
    "Gate": ("evaluate", "gate"),
    "Promotion": ("promote", "store"),
    "Alerts": ("alerts",),
}
# The one field that is about this run alone and no setting of the model.
FORCE = "force"
_FORCE = {
    "type": "boolean",
    "title": "force",
    "section": "Run",
    "default": False,
    "description": "Train even if data, settings, weights and code are those of the night that was accepted last.",
}
# What a form or its server can hold a value against, of all that a JSON schema may say.
_KEPT = (
    "enum",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "minItems",
    "maxItems",
    "items",
)


def form_fields(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Each field's name with its JSON schema, `title`, `description`, `section` and the config's value as `default`."""
    values = form_values(config)
    return {FORCE: _FORCE} | {name: {**field, "default": values[name]} for name, field in _fields().items()}


def form_values(config: RunConfig) -> dict[str, Any]:
    """What the form shows for a config: field name -> JSON value."""
    tree = config.model_dump(mode="json")
    return {name: _value(tree, name.split("__", 1)) for name in _fields()}


def form_changes(config: RunConfig, base: RunConfig) -> dict[str, Any]:
    """The fields to fill in so that a run of `base` becomes one of `config`."""
    before = form_values(base)
    return {name: value for name, value in form_values(config).items() if value != before[name]}


def load_from_form(path: str | Path, values: Mapping[str, Any], fixed: Mapping[str, Any] | None = None) -> RunConfig:
    """The model's config with what was changed in the form laid over it, and over that the dotted settings `fixed`.

    Raises:
        ConfigError: a field that the form does not have, or a value that the config refuses.
    """
    before = form_values(load_config(path))
    if unknown := sorted(values.keys() - before.keys() - {FORCE}):
        raise ConfigError(received(unknown[0], values[unknown[0]], "a field of the trigger form, e.g. train__epochs"))
    changed = {_dotted(name): value for name, value in values.items() if name != FORCE and value != before[name]}
    return load_config(path, {**changed, **(fixed or {})})


@cache
def _fields() -> dict[str, dict[str, Any]]:
    schema = RunConfig.model_json_schema()
    leaves = dict(_leaves(schema["properties"], schema["$defs"]))
    order = list(_SECTIONS)
    return dict(sorted(leaves.items(), key=lambda leaf: order.index(leaf[1]["section"])))


def _leaves(properties: Mapping[str, Any], sections: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, leaf in properties.items():
        if "$ref" in leaf:
            section = sections[leaf["$ref"].rpartition("/")[2]]["properties"]
            yield from ((f"{name}__{key}", _field(name, f"{name}.{key}", field)) for key, field in section.items())
        elif name not in _FIXED:
            yield name, _field("run", name, leaf)


def _field(section: str, title: str, leaf: Mapping[str, Any]) -> dict[str, Any]:
    (shown,) = (name for name, sections in _SECTIONS.items() if section in sections)
    return {"section": shown, "title": title, **_schema(leaf)}


def _dotted(name: str) -> str:
    return name.replace("__", ".", 1)


def _schema(leaf: Mapping[str, Any]) -> dict[str, Any]:
    """One flat schema; ``anyOf`` a type and null becomes a list of types, which forms understand."""
    branches = leaf.get("anyOf", [leaf])
    types = [branch["type"] for branch in branches]
    kept = {key: value for branch in branches for key, value in branch.items() if key in _KEPT}
    if "enum" in kept and "null" in types:
        kept["enum"] = [*kept["enum"], None]
    return {"type": types if len(types) > 1 else types[0], "description": leaf["description"], **kept}


def _value(tree: Mapping[str, Any], path: list[str]) -> Any:
    return tree[path[0]] if len(path) == 1 else tree[path[0]][path[1]]
