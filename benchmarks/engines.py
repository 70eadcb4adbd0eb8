"""Features by ONNX Runtime, as Nightshift computes them, beside OpenVINO in float32 and in bfloat16: rates and errors.

    python benchmarks/engines.py [--size 112 224]

Both run the same ONNX file, as many batches side by side as there are processors. Errors are the distance
from what Keras answers, in parts of the answers' root mean square: on average, and at worst.
"""

import argparse
import os
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import openvino
from cells import sample_cells
from extraction import answered, interleaved
from openvino.properties import hint

from training.config import ModelConfig
from training.engine import Answer, quickest, to_onnx
from training.features import divided, images_at_once
from training.network import build_model
from training.processors import usable

BATCHES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[112, 224], help="sides, in pixels")
    for size in parser.parse_args().size:
        x, _ = sample_cells(BATCHES * images_at_once(size), size)
        measure(x)


def measure(x: np.ndarray) -> None:
    base, _ = divided(build_model(ModelConfig(input_size=x.shape[1], policy="features")))
    content = to_onnx(base)
    ways = {
        "ONNX Runtime": partial(answered, quickest(base, lambda: content, x)),
        "OpenVINO, float32": by_openvino(content, x.shape[1:], openvino.Type.f32),
        "OpenVINO, bfloat16": by_openvino(content, x.shape[1:], openvino.Type.bf16),
    }
    expected = base.predict(x, batch_size=32, verbose=0)
    seconds = interleaved({name: partial(way, x) for name, way in ways.items()}, 5)
    for name, way in ways.items():
        mean, worst = errors(way(x), expected)
        rate = len(x) / seconds[name]
        print(f"{x.shape[1]} px, {name:18} {rate:6.0f} images/s; error {mean:.0e}, at worst {worst:.0e}", flush=True)


def by_openvino(content: bytes, shape: tuple[int, ...], precision: openvino.Type) -> Answer:
    """As OpenVINO's manual has it for throughput; Python's own threads sometimes wait in it for each other for ever."""
    model = openvino.Core().read_model(content)
    model.reshape([images_at_once(shape[0]), *shape])
    settings = {hint.inference_precision: precision, hint.performance_mode: hint.PerformanceMode.THROUGHPUT}
    compiled = openvino.compile_model(model, "CPU", {**settings, hint.num_requests: usable()})
    return partial(_queued, openvino.AsyncInferQueue(compiled, usable()))


def _queued(queue: openvino.AsyncInferQueue, images: np.ndarray) -> np.ndarray:
    found: dict[int, np.ndarray] = {}

    def keep(request: openvino.InferRequest, place: int) -> None:
        found[place] = request.get_output_tensor().data.copy()

    queue.set_callback(keep)
    for place, batch in enumerate(np.split(images, BATCHES)):
        queue.start_async(batch, place)
    queue.wait_all()
    return np.concatenate([found[place] for place in range(BATCHES)])


def errors(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    unit = np.sqrt(np.mean(np.square(expected)))
    return float(np.sqrt(np.mean(np.square(found - expected))) / unit), float(np.max(np.abs(found - expected)) / unit)


if __name__ == "__main__":
    main()
