"""The trigger form: every setting of a run as a flat field, `train.epochs` as ``train__epochs``; pure."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from training.config import RunConfig, load_config

# Decided when the DAG is parsed, so a run cannot change them; and what is too long for a field.
_FIXED = ("name", "schedule", "expectations")
# What a form or its server can hold a value against, of all that a JSON schema may say.
_KEPT = (
    "enum",
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
    """Each field's name with its JSON schema, `description`, `section` and the config's value as `default`."""
    values = form_values(config)
    return {name: {**field, "default": values[name]} for name, field in _fields().items()}


def form_values(config: RunConfig) -> dict[str, Any]:
    """What the form shows for a config: field name -> JSON value."""
    tree = config.model_dump(mode="json")
    return {name: _value(tree, name.split("__", 1)) for name in _fields()}


def form_changes(config: RunConfig, base: RunConfig) -> dict[str, Any]:
    """The fields to fill in so that a run of `base` becomes one of `config`."""
    before = form_values(base)
    return {name: value for name, value in form_values(config).items() if value != before[name]}


def load_from_form(path: str | Path, values: Mapping[str, Any]) -> RunConfig:
    """The model's config with what was changed in the form laid over it; fields the form does not have are left."""
    before = form_values(load_config(path))
    changed = {
        name.replace("__", ".", 1): values[name] for name in before if name in values and values[name] != before[name]
    }
    return load_config(path, changed)


@cache
def _fields() -> dict[str, dict[str, Any]]:
    schema = RunConfig.model_json_schema()
    return dict(_leaves(schema["properties"], schema["$defs"]))


def _leaves(properties: Mapping[str, Any], sections: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, leaf in properties.items():
        if "$ref" in leaf:
            section = sections[leaf["$ref"].rpartition("/")[2]]["properties"]
            yield from ((f"{name}__{key}", {"section": name, **_schema(field)}) for key, field in section.items())
        elif name not in _FIXED:
            yield name, {"section": "run", **_schema(leaf)}


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
