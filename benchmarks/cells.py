"""What the benchmarks share: the sample images as pixels, and a network trained on them for a moment."""

import csv
import tempfile
from pathlib import Path

import keras
import numpy as np

from training.config import ModelConfig
from training.images import decode
from training.network import build_model
from training.preprocessing import to_pixels
from training.sample import write_sample


def sample_cells(count: int, size: int, seed: int = 0, defective: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Sample images in random order, a share of them defective: uint8 (count, size, size, 3), labels (count,)."""
    with tempfile.TemporaryDirectory() as folder:
        write_sample(Path(folder))
        rows = list(csv.DictReader((Path(folder) / "labels.csv").open()))
        random = np.random.default_rng(seed)
        counts = {"intact": count - round(count * defective), "defective": round(count * defective)}
        chosen = [row for label, wanted in counts.items() for row in _some(rows, label, wanted, random)]
        pixels = [to_pixels(decode((Path(folder) / row["path"]).read_bytes()), size) for row in chosen]
    order = random.permutation(len(chosen))
    labels = np.array([row["label"] == "defective" for row in chosen], np.int64)
    return np.stack(pixels)[order], labels[order]


def briefly_trained(x: np.ndarray, y: np.ndarray, *, epochs: int = 1, momentum: float | None = None) -> keras.Model:
    """The default network, every layer fine-tuned on the images, so that its statistics lag as they do in a night."""
    keras.utils.set_random_seed(0)
    model = build_model(ModelConfig(input_size=x.shape[1], batch_norm_momentum=momentum))
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    return model


def _some(rows: list[dict[str, str]], label: str, count: int, random: np.random.Generator) -> list[dict[str, str]]:
    of_label = [row for row in rows if row["label"] == label]
    return [of_label[place] for place in random.choice(len(of_label), count, replace=count > len(of_label))]
