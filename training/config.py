"""RunConfig: every setting of a run, its default, its bounds and its meaning, in one place."""

import json
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from training.errors import ConfigError, received
from training.uris import holds_credentials

SNAPSHOT = "{snapshot}"
Share = Annotated[float, Field(gt=0, lt=0.5)]
Limit = Annotated[float, Field(gt=0)]
# The policies under which the base never trains.
_HEAD_ONLY = ("frozen", "features")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)


class DataConfig(_Section):
    uri: str = Field(
        min_length=1,
        description="Folder or s3:// prefix holding labels.csv (path,label[,group]) or one sub-folder a class; "
        "may hold {snapshot}.",
    )
    snapshot: date | None = Field(
        None, description="Date (as in 2026-01-31) that stands for {snapshot} in uri; null: in Airflow the run's own."
    )
    classes: tuple[str, ...] = Field(
        description="Two or more labels; of two, the second is the positive class.", json_schema_extra={"minItems": 2}
    )
    min_side: int = Field(32, ge=1, description="Smallest accepted width and height, in pixels.")
    max_side: int = Field(8192, ge=1, description="Largest accepted width and height, in pixels.")
    max_pixels: int = Field(2**25, ge=1, description="Most width times height; larger images are not decoded.")
    max_bytes: int = Field(2**26, ge=1, description="Largest accepted file; larger ones are not read.")
    modes: tuple[str, ...] = Field(
        ("1", "L", "LA", "P", "PA", "RGB", "RGBA"),
        description="Accepted Pillow image modes; CMYK and I;16 (16 bits) can be added.",
    )
    max_bad_fraction: float = Field(
        0.01, ge=0, lt=1, description="Share of rows that may be put into quarantine; with more the night fails."
    )

    @property
    def location(self) -> str:
        """`uri` with its snapshot; raises ConfigError where it needs one and has none."""
        if self.snapshot is None and SNAPSHOT in self.uri:
            raise ConfigError(received("data.snapshot", self.snapshot, f"a date for {SNAPSHOT} in data.uri"))
        return self.uri.replace(SNAPSHOT, str(self.snapshot))

    @field_validator("classes")
    @classmethod
    def _two_or_more_different_classes(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError("two or more different labels")
        return classes


class SplitConfig(_Section):
    salt: str = Field("nightshift", description="Changes every image's split; keep it for the life of a model.")
    validation: Share = Field(0.15, description="Expected share of images (or groups) held out for validation.")
    test: Share = Field(0.2, description="Expected share of images (or groups) held out for the test.")
    min_per_class: int = Field(20, ge=2, description="Fewest images of each class in each split.")


class ExpectationConfig(_Section):
    type: str = Field(
        pattern=r"^expect_[a-z_]+$", description="Name of an expectation: Great Expectations' own, or one about images."
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Its arguments, `column` among them.")


class DriftConfig(_Section):
    max_label_share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        0.1,
        description="Largest total variation distance of the classes' shares from those accepted last; null: any.",
    )
    max_brightness: Limit | None = Field(
        0.5, description="Largest change of the mean brightness, in standard deviations of the last accepted data's."
    )
    max_size: Limit | None = Field(
        0.5, description="The same for the logarithm of width times height (standard deviation at least 0.1)."
    )


class ModelConfig(_Section):
    backbone: str = Field("efficientnet_lite0", description="efficientnet_lite0 or a keras.applications model.")
    weights: str | None = Field("imagenet", description="'imagenet', a file, an s3:// URI, or null for random weights.")
    input_size: int = Field(80, ge=32, le=1024, description="Side of the square the network sees, in pixels.")
    policy: Literal["trainable", "frozen_batch_norm", "frozen", "features", "batch_norm_free"] = Field(
        "trainable",
        description="trainable: everything trains, BatchNorm on batch statistics. frozen_batch_norm: convolutions "
        "train, BatchNorm stays in inference mode. frozen: only the head trains. features: only the head trains, on "
        "features computed once. batch_norm_free: BatchNorm is folded into the convolutions, and everything trains.",
    )
    trainable_layers: Literal["all", "last_blocks", "head_and_batch_norm", "head"] | None = Field(
        None,
        description="Which layers train: all, the backbone's last blocks and the head, only BatchNorm and the head, or "
        "only the head; null: the head for the policies frozen and features, else all.",
    )
    trainable_blocks: int = Field(2, ge=1, le=1000, description="How many of the last blocks last_blocks trains.")
    batch_norm_momentum: float | None = Field(
        None, ge=0, lt=1, description="Momentum of the moving statistics; null keeps the pretrained network's own."
    )
    head_units: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="Units of each Dense relu layer between the pooled features and the output."
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout rate after each head layer (or the pooled features).")

    @property
    def layers_that_train(self) -> str:
        """`trainable_layers`, or what the policy stands for."""
        return self.trainable_layers or ("head" if self.policy in _HEAD_ONLY else "all")

    @model_validator(mode="after")
    def _layers_suit_policy(self) -> Self:
        layers = self.layers_that_train
        if self.policy in _HEAD_ONLY and layers != "head":
            raise ValueError(f"trainable_layers null or 'head' with policy {self.policy!r}, not {layers!r}")
        if layers == "head_and_batch_norm" and self.policy != "trainable":
            raise ValueError(f"policy 'trainable' with trainable_layers 'head_and_batch_norm', not {self.policy!r}")
        return self


class SamplingConfig(_Section):
    strategy: Literal["oversample", "undersample", "class_weight", "none"] = Field(
        "oversample",
        description="oversample: images of the smaller classes repeat until classes are equal. undersample: of the "
        "larger ones, each epoch shows another part. class_weight: as they come, the loss weighted so that classes are "
        "equal. none: as they come.",
    )


class AugmentConfig(_Section):
    flips: Literal["none", "horizontal", "vertical", "both"] = Field(
        "none", description="Directions in which every other training image is flipped."
    )
    rotation: float = Field(0, ge=0, le=180, description="Largest rotation either way, in degrees.")
    shift: float = Field(0, ge=0, le=0.5, description="Largest shift either way along each axis, as part of the side.")
    brightness: float = Field(0, ge=0, le=1, description="Most that is added or taken away, as part of 255.")
    apply_to: Literal["repeated", "all"] = Field(
        "repeated", description="repeated: an image's second and later showings in an epoch. all: every one."
    )

    @property
    def enabled(self) -> bool:
        """Whether anything is ever changed."""
        return self.flips != "none" or max(self.rotation, self.shift, self.brightness) > 0


class TrainConfig(_Section):
    epochs: int = Field(3, ge=1, le=10_000, description="Largest number of epochs, head_epochs not counted.")
    batch_size: int = Field(32, ge=2, le=4096, description="Images a step, over all GPUs; BatchNorm needs at least 2.")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam's learning rate; after head_epochs a lower one.")
    full_every: int = Field(
        1,
        ge=1,
        description="Every so many nights training begins from the pretrained weights; the others go on from the "
        "champion, unless the night before was refused. 1: always.",
    )
    warm_epochs: int = Field(1, ge=1, le=10_000, description="Epochs of a night that goes on from the champion.")
    head_epochs: int = Field(
        0, ge=0, le=10_000, description="Epochs in which only the head trains, before the others; none of them is kept."
    )
    head_learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam's learning rate in head_epochs.")
    early_stopping_patience: int = Field(5, ge=1, description="Epochs without improvement before training stops.")
    reduce_lr_patience: int | None = Field(
        None, ge=1, description="Epochs without improvement before the learning rate is divided by ten; null: never."
    )
    keep_epoch: Literal["best", "last"] = Field(
        "best", description="Which epoch's weights go on: best monitor or last."
    )
    monitor: Literal["recalibrated_val_loss", "val_loss"] = Field(
        "recalibrated_val_loss",
        description="What 'best' and early stopping look at; val_loss misleads while moving statistics lag.",
    )
    monitor_samples: int = Field(256, ge=2, description="Training images recalibrated on, each epoch, for the monitor.")
    checkpoint_seconds: float = Field(
        120, ge=0, description="A checkpoint is written after each epoch, and within one when so many seconds passed."
    )


class RecalibrateConfig(_Section):
    enabled: bool = Field(True, description="Replace lagging BatchNorm statistics by pooled population statistics.")
    samples: int = Field(1024, ge=2, description="Training images the statistics are pooled over.")
    distribution: Literal["oversampled", "natural"] = Field(
        "oversampled", description="oversampled: the images as trained on. natural: each training image once."
    )
    mode: Literal["one_pass", "self_consistent"] = Field(
        "one_pass",
        description="one_pass: each layer sees inputs normalised by their own batch, as in training. self_consistent: "
        "repeated until each layer's statistics are those of its input in the served model.",
    )


class EvaluateConfig(_Section):
    batches: int = Field(16, ge=10, description="Batches of oversampled training images the losses are compared on.")
    resamples: int = Field(2000, ge=200, description="Bootstrap resamples behind each interval.")


class GateConfig(_Section):
    max_loss_gap: Limit | None = Field(
        0.25, description="Largest served minus fit loss, in nats, whose lower 99 % bound is still accepted."
    )
    max_loss_ratio: Annotated[float, Field(ge=1)] | None = Field(
        1.5, description="Largest served to fit loss ratio; the wider of this and max_loss_gap applies."
    )
    max_batch_norm_gap: Limit | None = Field(
        0.15, description="Largest loss, in nats, that moving statistics may add over batch statistics."
    )
    max_generalization_gap: Limit | None = Field(
        None, description="Largest validation minus training loss, in nats; null: reported, not gated."
    )
    max_champion_loss_increase: Annotated[float, Field(ge=0)] = Field(
        0.1, description="Most by which the test loss may exceed the champion's, in nats (upper 95 % bound)."
    )
    max_champion_auc_decrease: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05, description="Most by which the test ROC AUC may fall below the champion's (lower 95 % bound)."
    )

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if self.max_loss_gap is None and self.max_loss_ratio is None and self.max_batch_norm_gap is None:
            raise ValueError(
                "no limit is configured; set at least one of max_loss_gap, max_loss_ratio, max_batch_norm_gap"
            )
        return self


class PromoteConfig(_Section):
    enabled: bool = Field(True, description="Whether an accepted model becomes the champion.")
    approval: bool = Field(
        False, description="Whether it first waits for a person's approval on Airflow's pages (20 hours at most)."
    )


class StoreConfig(_Section):
    runs: str = Field("runs", min_length=1, description="Folder or s3:// prefix under which Airflow's runs go.")
    champion: str = Field(min_length=1, description="Folder or s3:// prefix of the champion's history and models.")
    keep_models: int = Field(10, ge=2, description="How many of the newest models are kept, whatever their age.")
    keep_days: int = Field(90, ge=0, description="Days for which every model is kept, however many there are.")
    keep_runs: int = Field(30, ge=1, description="How many of the newest runs `retain` keeps, whatever their age.")
    keep_run_days: int = Field(30, ge=0, description="Days for which `retain` keeps every run, however many there are.")

    keep_computed_gib: float = Field(
        20, ge=0, description="How much of what is computed once an image, its pixels and features, is kept (GiB)."
    )

    @property
    def data(self) -> str:
        """What is known of the data from night to night, beside the champion: splits, facts, pixels, features."""
        return f"{self.champion.rstrip('/')}_data"


class ScaleConfig(_Section):
    shards: int = Field(
        1,
        ge=1,
        le=1000,
        description="In how many parts images are read, features and moments computed and losses measured; Airflow "
        "gives each a task of its own, as many as the model's file says.",
    )


class AlertsConfig(_Section):
    email_to: tuple[str, ...] = Field((), description="Addresses that get an e-mail when a night fails.")
    smtp_conn_id: str = Field("smtp_default", description="Airflow connection of the mail server.")
    slack_conn_id: str | None = Field(
        None, description="Airflow connection whose URL is a Slack incoming webhook; null: none."
    )
    sns_topic_arn: str | None = Field(None, description="ARN of the AWS SNS topic that is told; null: none.")
    aws_conn_id: str | None = Field(
        None, description="Airflow AWS connection for that topic; null: credentials from boto3's usual places."
    )
    webhook_conn_id: str | None = Field(
        None, description="Airflow HTTP connection whose URL receives all of it as JSON; null: none."
    )


class RunConfig(_Section):
    """All settings of one run; frozen, and unknown keys are refused."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$", description="The model's name; its DAG is retrain_<name>.")
    schedule: str | None = Field(
        "0 2 * * *",
        description="Cron of the nightly run (UTC); null: only when triggered, or when new data are announced.",
    )
    deadline_hours: Annotated[float, Field(gt=0)] | None = Field(
        6, description="Hours after which ops are told that a night has not ended; null: never."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of weights, order and dropout.")
    data: DataConfig
    split: SplitConfig = Field(default_factory=SplitConfig)
    drift: DriftConfig = Field(default_factory=DriftConfig)
    expectations: tuple[ExpectationConfig, ...] = Field(
        (), description="What else is expected of the manifest, in Great Expectations' own form (type, kwargs)."
    )
    model: ModelConfig = Field(default_factory=ModelConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    recalibrate: RecalibrateConfig = Field(default_factory=RecalibrateConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    gate: GateConfig = Field(default_factory=GateConfig)
    promote: PromoteConfig = Field(default_factory=PromoteConfig)
    store: StoreConfig
    scale: ScaleConfig = Field(default_factory=ScaleConfig)
    alerts: AlertsConfig = Field(default_factory=AlertsConfig)

    @model_validator(mode="after")
    def _head_epochs_come_before_others(self) -> Self:
        if self.train.head_epochs and self.model.layers_that_train == "head":
            raise ValueError(f"train.head_epochs 0 where only the head trains, not {self.train.head_epochs}")
        return self

    @model_validator(mode="after")
    def _augmented_images_have_no_stored_features(self) -> Self:
        if self.augment.enabled and self.model.policy == "features":
            raise ValueError("no augment with model.policy 'features', which are computed once from each image")
        return self


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a model's YAML file and lay dotted `overrides` over it.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong; one line names it.
    """
    return _overridden(_read_yaml(Path(path)), overrides or {})


def parse_config(tree: Mapping[str, Any]) -> RunConfig:
    """Validate a nested mapping; raises ConfigError with one line for the first thing wrong."""
    _refuse_credentials(tree)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_one_line(error), remedy="Correct the key; the README lists where settings live.") from None


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Turn ``["train.epochs=2", ...]`` into ``{"train.epochs": 2, ...}``; values are YAML."""
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise ConfigError(received("--set", setting, "key=value, e.g. train.epochs=2"))
        overrides[key] = _yaml_value(key, text)
    return overrides


def differing_keys(one: RunConfig, other: RunConfig) -> list[str]:
    """Dotted keys in which two configs differ, sorted."""
    left, right = _flatten(one.model_dump(mode="json")), _flatten(other.model_dump(mode="json"))
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def to_json(config: RunConfig) -> bytes:
    return json.dumps(config.model_dump(mode="json"), indent=2, sort_keys=True).encode() + b"\n"


def from_json(text: bytes, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """What `to_json` wrote, with dotted `overrides` laid over it; raises ValueError for what is no JSON."""
    return _overridden(json.loads(text), overrides or {})


def _overridden(tree: dict[str, Any], overrides: Mapping[str, Any]) -> RunConfig:
    for key, value in overrides.items():
        _set(tree, key, value)
    return parse_config(tree)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(received("--config", str(path), f"a readable YAML file ({type(error).__name__})")) from None
    except yaml.YAMLError as error:
        raise ConfigError(received("--config", str(path), f"valid YAML ({' '.join(str(error).split())})")) from None
    if not isinstance(tree, dict):
        raise ConfigError(received("--config", str(path), "a YAML mapping of settings"))
    return tree


def _yaml_value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(received(key, text, "a YAML value")) from None


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(received("--set", dotted, "a key of the configuration"))
    tree[last] = value


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _refuse_credentials(tree: Mapping[str, Any]) -> None:
    for key, value in _flatten(tree).items():
        if isinstance(value, str) and holds_credentials(value):
            raise ConfigError(f"{key}: received a URI that holds credentials, expected one without")


def _one_line(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False)
    field = ".".join(str(part) for part in first["loc"]) or "config"
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "missing":
        return f"{field}: received nothing, expected a value{more}"
    if first["type"] == "extra_forbidden":
        return received(field, first["input"], "no such key") + more
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    shown = first["input"] if not isinstance(first["input"], BaseModel | dict) else "these settings"
    return received(field, shown, expected) + more
