"""The bill of materials against the locks, and by CycloneDX's own schema."""

import json
import re
import subprocess
import sys

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def sbom(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("sbom") / "build" / "sbom.json"
    subprocess.run([sys.executable, "security/sbom.py", "--to", str(path)], cwd=ROOT, check=True)
    return path.read_text()


def test_it_is_valid_and_a_mistake_in_it_is_found(sbom):
    tree = json.loads(sbom)
    validator = JsonStrictValidator(SchemaVersion.from_version(tree["specVersion"]))
    assert validator.validate_str(sbom) is None
    tree["components"][0]["type"] = "magic"
    assert validator.validate_str(json.dumps(tree)) is not None


def test_it_names_what_the_image_installs(sbom):
    everywhere, somewhere = set[tuple[str, str]](), set[tuple[str, str]]()
    for name in ("requirements.txt", "requirements-production.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if found := re.match(r"([\w.-]+)(?:\[.*\])?==(\S+)( ;)?", line):
                (somewhere if found[3] else everywhere).add((found[1], found[2]))
    components = {(one["name"], one["version"]) for one in json.loads(sbom)["components"]}
    assert everywhere <= components <= everywhere | somewhere
    assert {"uvloop", "apache-airflow-core"} <= {name for name, _ in components} and len(components) > 200
    assert all(one["purl"].startswith("pkg:pypi/") for one in json.loads(sbom)["components"])


def test_it_is_the_same_each_time(sbom, tmp_path):
    subprocess.run([sys.executable, "security/sbom.py", "--to", str(tmp_path / "again.json")], cwd=ROOT, check=True)
    assert (tmp_path / "again.json").read_text() == sbom
