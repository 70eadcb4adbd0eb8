import pytest

from tests.conftest import ROOT, SOLAR_CELLS
from training.config import ModelConfig, differing_keys, from_json, load_config, parse_settings, to_json
from training.errors import ConfigError


def test_both_models_load_and_round_trip():
    for path in sorted((ROOT / "dags" / "models").glob("*.yaml")):
        config = load_config(path)
        assert from_json(to_json(config)) == config


def test_roofs_is_the_seed_model():
    config = load_config(ROOT / "dags" / "models" / "roofs.yaml")
    assert (config.model.backbone, config.model.weights, config.model.policy) == ("resnet50", "imagenet", "trainable")
    assert (config.model.head_units, config.model.dropout) == ((64, 64), 0.5)
    assert (config.train.epochs, config.train.learning_rate, config.train.early_stopping_patience) == (15, 1e-3, 5)
    assert config.data.uri.startswith("s3://") and config.store.champion.startswith("s3://")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("train.epochs=0", "train.epochs: received 0, expected greater than or equal to 1"),
        ("train.epoch=2", "train.epoch: received 2, expected no such key"),
        ("model.policy=thaw", "model.policy: received 'thaw'"),
        ("data.classes=[a, a]", "data.classes: received ['a', 'a'], expected two or more different labels"),
        ("data.classes=[a, b, a]", "data.classes: received ['a', 'b', 'a'], expected two or more different labels"),
        ("data.classes=[a]", "data.classes: received ['a'], expected two or more different labels"),
        ("data.classes=[]", "data.classes: received [], expected two or more different labels"),
        ("sampling.strategy=smote", "sampling.strategy: received 'smote'"),
        ("augment.rotation=-1", "augment.rotation: received -1, expected greater than or equal to 0"),
        ("augment.flips=diagonal", "augment.flips: received 'diagonal'"),
        ("train=3", "train: received 3"),
        ("train.learning_rate=fast", "train.learning_rate: received 'fast'"),
        ("gate.max_loss_gap=.nan", "gate.max_loss_gap: received"),
        ("name=../x", "name: received '../x'"),
        ("seed.x=2", "seed: received"),
    ],
)
def test_bad_setting_is_one_line_that_names_it(setting, told):
    with pytest.raises(ConfigError) as caught:
        load_config(SOLAR_CELLS, parse_settings([setting]))
    assert told in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2


def test_no_limit_at_all_is_refused():
    names = ("max_loss_gap", "max_loss_ratio", "max_batch_norm_gap")
    with pytest.raises(ConfigError, match="no limit is configured"):
        load_config(SOLAR_CELLS, {f"gate.{name}": None for name in names})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model.policy": "frozen", "model.trainable_layers": "all"}, "with policy 'frozen', not 'all'"),
        ({"model.policy": "features", "model.trainable_layers": "last_blocks"}, "'features', not 'last_blocks'"),
        (
            {"model.policy": "batch_norm_free", "model.trainable_layers": "head_and_batch_norm"},
            "model: received 'these settings', expected policy 'trainable' with trainable_layers 'head_and_batch_norm'",
        ),
        ({"model.policy": "frozen_batch_norm", "model.trainable_layers": "head_and_batch_norm"}, "policy 'trainable'"),
        ({"model.policy": "features", "train.head_epochs": 1}, "train.head_epochs 0 where only the head trains, not 1"),
        ({"model.trainable_layers": "head", "train.head_epochs": 1}, "train.head_epochs 0"),
        ({"model.policy": "features", "augment.flips": "both"}, "no augment with model.policy 'features'"),
    ],
)
def test_contradictions_are_one_line(settings, told):
    with pytest.raises(ConfigError) as caught:
        load_config(SOLAR_CELLS, settings)
    assert told in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({"policy": "trainable"}, "all"),
        ({"policy": "batch_norm_free"}, "all"),
        ({"policy": "frozen"}, "head"),
        ({"policy": "features", "trainable_layers": "head"}, "head"),
        ({"policy": "frozen_batch_norm", "trainable_layers": "last_blocks"}, "last_blocks"),
    ],
)
def test_each_policy_has_layers_of_its_own_that_train(settings, layers):
    assert ModelConfig(**settings).layers_that_train == layers


@pytest.mark.parametrize("content", ["- a\n", "a: [\n", None])
def test_unusable_file_is_one_line(tmp_path, content):
    path = tmp_path / "model.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="--config: received"):
        load_config(path)


def test_settings_are_yaml():
    assert parse_settings(["a.b=1", "c=[x, y]", "d=null"]) == {"a.b": 1, "c": ["x", "y"], "d": None}
    assert load_config(SOLAR_CELLS, parse_settings(["train.learning_rate=1e-4"])).train.learning_rate == 1e-4
    with pytest.raises(ConfigError, match="key=value"):
        parse_settings(["train.epochs"])


def test_differing_keys_names_them():
    other = load_config(SOLAR_CELLS, {"train.epochs": 9, "gate.max_loss_gap": None})
    assert differing_keys(load_config(SOLAR_CELLS), other) == ["gate.max_loss_gap", "train.epochs"]


def test_a_snapshot_is_a_date_and_needed_where_the_uri_says_so():
    dated = {"data.uri": "s3://cells/{snapshot}/images"}
    config = load_config(SOLAR_CELLS, {**dated, **parse_settings(["data.snapshot=2026-01-31"])})
    assert config.data.location == "s3://cells/2026-01-31/images"
    assert from_json(to_json(config)) == config
    with pytest.raises(ConfigError, match=r"data\.snapshot: received None, expected a date for {snapshot}"):
        _ = load_config(SOLAR_CELLS, dated).data.location
    with pytest.raises(ConfigError, match=r"data\.snapshot: received '../..', expected a valid date"):
        load_config(SOLAR_CELLS, {**dated, "data.snapshot": "../.."})
