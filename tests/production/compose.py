"""docker/compose.yaml as Compose would hand it to containers: commands, environments and health checks."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.conftest import ROOT

DOCKER = ROOT / "docker"
# `${NAME:?what to do}` or `${NAME:-default}`, whose default may hold others; `$$` is a dollar.
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(:[?-])((?:[^${}]|\$\{[^{}]*\})*)\}")


@dataclass(frozen=True)
class Service:
    """One service, filled in; `command` is None where the image's own is run."""

    command: list[str] | None
    environment: dict[str, str]
    healthcheck: list[str] | None
    read_only: bool
    restarts: bool


def service(name: str, variables: Mapping[str, str], moved: Callable[[str], str] = str) -> Service:
    """A service with its variables filled in; `moved` says where a text's places are, before any secret is in it.

    Raises:
        KeyError: a variable that must be given is not.
    """
    tree = _filled(services()[name], variables, moved)
    test = tree.get("healthcheck", {}).get("test")
    check = test and (["sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:])
    environment = {key: str(value) for key, value in tree.get("environment", {}).items()}
    return Service(tree.get("command"), environment, check, tree["read_only"], tree["restart"] == "unless-stopped")


def services() -> dict[str, Any]:
    """The services as they are written."""
    return dict(yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"])


def image_environment(moved: Callable[[str], str] = str) -> dict[str, str]:
    """What the image itself sets, save the path to its programs."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    pairs = [pair.split("=", 1) for line in re.findall(r"^ENV (.*)$", text, re.MULTILINE) for pair in line.split()]
    return {name: moved(value) for name, value in pairs if name != "PATH"}


def _filled(part: Any, variables: Mapping[str, str], moved: Callable[[str], str]) -> Any:
    match part:
        case str():
            return _VARIABLE.sub(lambda found: _value(found, variables, moved), moved(part))
        case list():
            return [_filled(one, variables, moved) for one in part]
        case dict():
            return {key: _filled(one, variables, moved) for key, one in part.items()}
    return part


def _value(found: re.Match[str], variables: Mapping[str, str], moved: Callable[[str], str]) -> str:
    if found[0] == "$$":
        return "$"
    name, kind, rest = found.groups()
    if kind == ":?" and not variables.get(name):
        raise KeyError(f"{name}: {rest}")
    return variables.get(name) or str(_filled(rest, variables, moved))
