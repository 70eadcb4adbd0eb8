"""The classifier: a pretrained backbone, a head, and what trains."""

from pathlib import Path
from tempfile import TemporaryDirectory

import keras

from training.backbones import build_backbone
from training.batchnorm import batch_norm_layers, freeze_batch_norm
from training.config import ModelConfig
from training.store import S3, read_uri


def build_model(config: ModelConfig) -> keras.Model:
    """A classifier from pixels (n, size, size, 3), 0…255, to the positive class's probability (n, 1)."""
    size = config.input_size
    backbone = _backbone(config)
    pixels = keras.Input((size, size, 3), name="pixels")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone(pixels))
    for number, units in enumerate(config.head_units, start=1):
        x = keras.layers.Dense(units, activation="relu", name=f"head{number}")(x)
        x = keras.layers.Dropout(config.dropout, name=f"head{number}_dropout")(x)
    if not config.head_units:
        x = keras.layers.Dropout(config.dropout, name="pool_dropout")(x)
    model = keras.Model(pixels, keras.layers.Dense(1, activation="sigmoid", name="probability")(x), name="classifier")
    apply_policy(model, config)
    return model


def apply_policy(model: keras.Model, config: ModelConfig) -> None:
    """Set what trains and how fast moving statistics move; compile the model afterwards."""
    backbone = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    backbone.trainable = config.policy != "frozen"
    if config.policy == "frozen_batch_norm":
        freeze_batch_norm(model)
    if config.batch_norm_momentum is not None:
        for layer in batch_norm_layers(model):
            layer.momentum = config.batch_norm_momentum


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


def _backbone(config: ModelConfig) -> keras.Model:
    weights = config.weights
    if weights is None or not weights.startswith(S3):
        return build_backbone(config.backbone, config.input_size, weights)
    with TemporaryDirectory() as folder:
        path = Path(folder) / weights.rpartition("/")[2]
        path.write_bytes(read_uri(weights))
        return build_backbone(config.backbone, config.input_size, str(path))
