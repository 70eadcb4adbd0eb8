"""The trigger form says what the config says, and gives back a config that is the same."""

import pytest

from tests.conftest import SOLAR_CELLS
from training.config import RunConfig, load_config
from training.errors import ConfigError
from training.form import FORCE, form_changes, form_fields, form_values, load_from_form


@pytest.fixture
def config() -> RunConfig:
    return load_config(SOLAR_CELLS)


def test_a_form_left_alone_is_the_models_own_config(config):
    assert load_from_form(SOLAR_CELLS, form_values(config)) == config
    assert load_from_form(SOLAR_CELLS, {}) == config


@pytest.mark.parametrize(
    "settings",
    [
        {"recalibrate.enabled": False, "model.batch_norm_momentum": 0.999, "train.keep_epoch": "last"},
        {"gate.max_loss_gap": None, "train.learning_rate": "1e-4", "model.head_units": [64, 64]},
        {"seed": 3, "store.runs": "s3://nights/runs"},
    ],
)
def test_settings_filled_into_the_form_give_the_same_config_as_on_the_command_line(config, settings):
    wanted = load_config(SOLAR_CELLS, settings)
    changes = form_changes(wanted, config)
    assert set(changes) == {key.replace(".", "__") for key in settings}
    assert load_from_form(SOLAR_CELLS, form_values(config) | changes) == wanted


def test_every_setting_has_a_field_but_those_that_make_the_dag(config):
    dotted = {name.replace("__", ".", 1) for name in form_fields(config)}
    sections = {key: value for key, value in config.model_dump().items() if isinstance(value, dict)}
    assert {f"{section}.{key}" for section, keys in sections.items() for key in keys} | {"seed", FORCE} == dotted


def test_fields_carry_bounds_types_and_documentation(config):
    fields = form_fields(config)
    epochs = fields["train__epochs"]
    assert (epochs["type"], epochs["minimum"], epochs["section"]) == ("integer", 1, "Training")
    assert fields["model__batch_norm_momentum"]["type"] == ["number", "null"]
    assert fields["train__keep_epoch"]["enum"] == ["best", "last"]
    layers = fields["model__trainable_layers"]
    assert layers["type"] == ["string", "null"] and {None, "last_blocks"} < set(layers["enum"])
    assert fields["data__classes"]["type"] == "array"
    assert (fields["data__snapshot"]["format"], fields["promote__enabled"]["type"]) == ("date", "boolean")
    assert all(field["description"] for field in fields.values())


def test_what_the_form_lets_through_and_the_config_does_not_is_one_line():
    with pytest.raises(
        ConfigError, match=r"data\.classes: received .* expected two or more different labels"
    ) as failure:
        load_from_form(SOLAR_CELLS, {"data__classes": ["same", "same"]})
    assert "\n" not in str(failure.value)


def test_sections_come_in_the_order_of_a_night(config):
    shown = [field["section"] for field in form_fields(config).values()]
    sections = list(dict.fromkeys(shown))
    assert sections == ["Run", "Data", "Model", "Training", "Recalibration", "Gate", "Promotion", "Alerts"]
    assert shown == sorted(shown, key=sections.index)


def test_a_field_that_does_not_exist_is_named_and_force_is_no_setting(config):
    with pytest.raises(ConfigError, match=r"train__epoch: received 3, expected a field of the trigger form"):
        load_from_form(SOLAR_CELLS, {"train__epoch": 3})
    assert load_from_form(SOLAR_CELLS, {FORCE: True}) == config


def test_what_the_run_decides_goes_before_what_the_form_says():
    found = load_from_form(SOLAR_CELLS, {"promote__enabled": True}, {"promote.enabled": False})
    assert not found.promote.enabled
