"""docker/Dockerfile, as far as the tests read it."""

import re

from tests.conftest import ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as pairs of instruction and rest."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in of("ENV") for pair in rest.split())


def copied() -> list[str]:
    """What the Dockerfile copies out of the checkout."""
    lines = [rest.split() for rest in of("COPY") if not rest.startswith("--from=")]
    return [source for *sources, _ in lines for source in sources]
