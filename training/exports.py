"""The files a model is served from, each read back and proven to answer as the evaluated model does."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import onnxruntime
import tensorflow as tf

from training.errors import NightshiftError, received
from training.graphs import inference_graph

MODEL = "model.keras"
SAVED_MODEL = "saved_model"
ONNX = "model.onnx"
INPUT, OUTPUT = "images", "probability"
# In probability. Another runtime adds float32 numbers in another order: it came within 6e-6 on a night as shipped, and
# within 2e-5 on a network hardly trained; when it resized images in its own way it was 2e-3 off.
LIMITS = {MODEL: 1e-5, SAVED_MODEL: 1e-5, ONNX: 1e-4}
# From uint8 images (1, height, width, 3) to probabilities (1, outputs).
Answer = Callable[[np.ndarray], np.ndarray]
_SIGNATURE = (tf.TensorSpec((None, None, None, 3), tf.uint8, name=INPUT),)


@dataclass(frozen=True)
class Exports:
    """A served model in every format.

    Attributes:
        files: content by name: `model.keras`, `model.onnx`, and what is below `saved_model/`.
        differences: of each format, the largest difference in probability from the evaluated model.
        images: on how many images.
    """

    files: dict[str, bytes]
    differences: dict[str, float]
    images: int

    @property
    def sha256(self) -> dict[str, str]:
        """SHA-256 of each file, by name."""
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}

    @property
    def report(self) -> dict[str, Any]:
        """How alike the formats are, as plain JSON values."""
        return {"images": self.images, "largest_difference": self.differences, "limit": LIMITS}


def export(model: keras.Model, images: Iterable[np.ndarray], expected: np.ndarray) -> Exports:
    """Write a served model in every format, read each back, and have it answer.

    Args:
        model: from uint8 (n, height, width, 3) to probabilities (n, outputs), see `training.serving`.
        images: raw uint8 (height, width, 3), each of its own size.
        expected: what the evaluated model says of them, (images, outputs).

    Raises:
        NightshiftError: a format differs by more than its limit.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        _write(model, folder)
        differences = largest_differences(_read(folder), images, expected)
        _refuse_different(differences)
        return Exports(_files_below(folder), differences, len(expected))


def largest_differences(
    answers: Mapping[str, Answer], images: Iterable[np.ndarray], expected: np.ndarray
) -> dict[str, float]:
    """The largest difference in probability of each of several answers; not a number where one is none."""
    # Image by image, since all raw ones together may not fit into memory.
    found = [
        [np.abs(answer(image[None])[0] - row).max() for answer in answers.values()]
        for image, row in zip(images, expected, strict=True)
    ]
    return dict(zip(answers, np.max(found, axis=0).tolist(), strict=True))


def _write(model: keras.Model, folder: Path) -> None:
    import tf2onnx

    model.save(folder / MODEL)
    graph = inference_graph(model, _SIGNATURE, OUTPUT)
    # The variables alone: with the model itself, each of its layers would be traced once more.
    served = tf.Module()
    served.serve, served.kept = graph, [variable.value for variable in model.variables]
    tf.saved_model.save(served, folder / SAVED_MODEL, signatures={"serving_default": graph})
    tf2onnx.convert.from_function(graph, _SIGNATURE, output_path=folder / ONNX)


def _read(folder: Path) -> dict[str, Answer]:
    model = keras.saving.load_model(folder / MODEL, compile=False, safe_mode=True)
    saved = tf.saved_model.load(folder / SAVED_MODEL)
    session = onnxruntime.InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
    return {
        MODEL: model.predict_on_batch,
        SAVED_MODEL: lambda images: saved.serve(images)[OUTPUT].numpy(),
        ONNX: lambda images: session.run([OUTPUT], {INPUT: images})[0],
    }


def _refuse_different(differences: Mapping[str, float]) -> None:
    for form, worst in differences.items():
        if not worst <= LIMITS[form]:  # nor when it is not a number
            found = f"a difference of {worst:.1e} in probability"
            expected = f"at most {LIMITS[form]:.0e} from the evaluated model"
            raise NightshiftError(received(form, found, expected), cause="export")


def _files_below(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
