"""Plain YAML held against the kubernetes client's models, whose own reading skips keys that it does not know."""

import re
from datetime import datetime
from typing import Any

from kubernetes.client import Configuration, models

_PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "datetime": datetime, "object": object}
_LIST, _DICT = re.compile(r"list\[(.+)\]"), re.compile(r"dict\[str, (.+)\]")


def mistakes(value: Any, kind: str, at: str = "") -> list[str]:
    """Where `value` is not what the client's type `kind` may hold: unknown and missing keys, and wrong types."""
    if inner := _LIST.fullmatch(kind):
        items = {f"{at}[{number}]": item for number, item in enumerate(value)} if isinstance(value, list) else None
    elif inner := _DICT.fullmatch(kind):
        items = {f"{at}.{key}": item for key, item in value.items()} if isinstance(value, dict) else None
    elif kind in _PLAIN:
        fits = isinstance(value, _PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))
        return [] if fits or kind == "object" else [f"{at}: received {value!r}, expected {kind}"]
    else:
        return _of_model(value, getattr(models, kind), at)
    if items is None:
        return [f"{at}: received {value!r}, expected {kind}"]
    return [mistake for place, item in items.items() for mistake in mistakes(item, inner[1], place)]


def _of_model(value: Any, model: type, at: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{at}: received {value!r}, expected {model.__name__}"]
    kinds = {key: model.openapi_types[name] for name, key in model.attribute_map.items()}
    found = [f"{at}.{key}: received a key that {model.__name__} does not have" for key in value if key not in kinds]
    found += [f"{at}.{key}: is missing" for key in _needed(model) - value.keys()]
    return found + [
        mistake for key in value.keys() & kinds.keys() for mistake in mistakes(value[key], kinds[key], f"{at}.{key}")
    ]


def _needed(model: type) -> set[str]:
    """Keys that must be there: those whose absence the client's own setters refuse."""
    return {key for name, key in model.attribute_map.items() if not _may_be_absent(model, name)}


def _may_be_absent(model: type, name: str) -> bool:
    empty = model.__new__(model)
    empty.local_vars_configuration = Configuration()
    try:
        setattr(empty, name, None)
    except ValueError:
        return False
    return True
