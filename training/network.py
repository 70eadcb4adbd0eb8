"""The classifier: a pretrained backbone, a head, and what trains."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import keras

from training.backbones import blocks, build_backbone
from training.batchnorm import batch_norm_layers, fold_batch_norm, freeze_batch_norm
from training.config import ModelConfig
from training.errors import ConfigError, received
from training.objective import units
from training.store import S3, read_uri


def build_model(config: ModelConfig, classes: int = 2) -> keras.Model:
    """A classifier from pixels (n, size, size, 3), 0…255, to probabilities.

    Of two classes that of the positive one, (n, 1) from a sigmoid; of more each one's, (n, classes) from a softmax.
    """
    size = config.input_size
    backbone = _backbone(config)
    pixels = keras.Input((size, size, 3), name="pixels")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone(pixels))
    for number, width in enumerate(config.head_units, start=1):
        x = keras.layers.Dense(width, activation="relu", name=f"head{number}")(x)
        x = keras.layers.Dropout(config.dropout, name=f"head{number}_dropout")(x)
    if not config.head_units:
        x = keras.layers.Dropout(config.dropout, name="pool_dropout")(x)
    activation = "sigmoid" if classes == 2 else "softmax"
    probability = keras.layers.Dense(units(classes), activation=activation, name="probability")(x)
    model = keras.Model(pixels, probability, name="classifier")
    apply_policy(model, config)
    return model


def apply_policy(model: keras.Model, config: ModelConfig) -> None:
    """Set what trains and how fast moving statistics move, whatever was set before; compile the model afterwards.

    Raises:
        ConfigError: more blocks are to train than the backbone has.
    """
    base = backbone_of(model)
    base.trainable = config.layers_that_train != "head"
    training = {id(layer) for layer in _training_layers(base, config)}
    for layer in base.layers:
        layer.trainable = id(layer) in training
    if config.policy == "frozen_batch_norm":
        freeze_batch_norm(model)
    if config.batch_norm_momentum is not None:
        for layer in batch_norm_layers(model):
            layer.momentum = config.batch_norm_momentum


@contextmanager
def head_alone(model: keras.Model) -> Iterator[None]:
    """Inside, only the head trains; afterwards what did before. Compile the model after entering and leaving."""
    layers = backbone_of(model)._flatten_layers()
    before = [layer.trainable for layer in layers]
    try:
        layers[0].trainable = False
        yield
    finally:
        # The outer ones first, since each passes its value on to those inside it.
        for layer, trainable in zip(layers, before, strict=True):
            layer.trainable = trainable


def backbone_of(model: keras.Model) -> keras.Model:
    """The model inside the classifier; all the rest is the head."""
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def from_bytes(content: bytes) -> keras.Model:
    """A model from the content of a `.keras` file; nothing in it is executed, and it is not compiled."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(content)
        return keras.saving.load_model(path, compile=False, safe_mode=True)


def to_bytes(model: keras.Model) -> bytes:
    """The content of the model's `.keras` file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def _training_layers(base: keras.Model, config: ModelConfig) -> Iterable[keras.layers.Layer]:
    """The base's layers that train; frozen BatchNorm is not considered here."""
    kind = config.layers_that_train
    if kind == "last_blocks":
        return [layer for block in _last_blocks(base, config) for layer in block]
    if kind == "head_and_batch_norm":
        return batch_norm_layers(base)
    return [] if kind == "head" else base.layers


def _last_blocks(base: keras.Model, config: ModelConfig) -> list[list[keras.layers.Layer]]:
    found = blocks(base, config.backbone)
    if config.trainable_blocks > len(found):
        expected = f"at most {len(found)} for {config.backbone}"
        raise ConfigError(received("model.trainable_blocks", config.trainable_blocks, expected))
    return found[-config.trainable_blocks :]


def _backbone(config: ModelConfig) -> keras.Model:
    backbone = _pretrained(config)
    return fold_batch_norm(backbone) if config.policy == "batch_norm_free" else backbone


def _pretrained(config: ModelConfig) -> keras.Model:
    weights = config.weights
    if weights is None or not weights.startswith(S3):
        return build_backbone(config.backbone, config.input_size, weights)
    with TemporaryDirectory() as folder:
        path = Path(folder) / weights.rpartition("/")[2]
        path.write_bytes(read_uri(weights))
        return build_backbone(config.backbone, config.input_size, str(path))
