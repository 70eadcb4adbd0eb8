"""docker/compose.yaml against the schema of the compose specification, as check-jsonschema brings it along."""

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft202012Validator

from tests.conftest import ROOT


def mistakes(compose: dict) -> list[str]:
    schema = get_builtin_schema("vendor.compose-spec")
    return [error.json_path for error in Draft202012Validator(schema).iter_errors(compose)]


@pytest.fixture
def compose() -> dict:
    return yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())


def test_the_file_is_what_the_specification_asks(compose):
    assert mistakes(compose) == []


def test_the_schema_sees_mistakes(compose):
    service = compose["services"]["scheduler"]
    service["healthcheck"] |= {"retries": [3]}
    service["comand"] = service.pop("command")
    compose["volume"] = compose.pop("volumes")
    assert {"$", "$.services.scheduler", "$.services.scheduler.healthcheck.retries"} <= set(mistakes(compose))
