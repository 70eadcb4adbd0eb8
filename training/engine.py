"""The quickest honest way to run a network that only answers: ONNX Runtime, which folds BatchNorm into convolutions."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
import onnxruntime
import tensorflow as tf

from training.errors import NightshiftError
from training.graphs import constant_graph

log = logging.getLogger(__name__)
# From a batch of images to what the network makes of them.
Answer = Callable[[np.ndarray], np.ndarray]
# Between runtimes, in parts of the answers' root mean square: sums in another order came to 5e-5 at most.
TOLERANCE = 1e-3
_LOOKED_AT = 2
_IMAGES, _ANSWERS = "images", "answers"


def to_onnx(model: keras.Model) -> bytes:
    """The model in inference mode, with the statistics of the moment, from uint8 images, as the content of a file."""
    import tf2onnx

    graph = constant_graph(model, tf.TensorSpec(model.input_shape, tf.uint8, name=_IMAGES), _ANSWERS)
    names = {f"{name}:0": name for name in (_IMAGES, _ANSWERS)}
    with _only_errors(tf.get_logger()):  # tf2onnx itself calls what TensorFlow has deprecated
        proto, _ = tf2onnx.convert.from_graph_def(
            graph, input_names=[f"{_IMAGES}:0"], output_names=[f"{_ANSWERS}:0"], tensors_to_rename=names
        )
    content: bytes = proto.SerializeToString()
    return content


@contextmanager
def _only_errors(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def quickest(model: keras.Model, content: Callable[[], bytes], images: np.ndarray) -> Answer:
    """What answers as the model does in inference mode: ONNX Runtime, or, where that does not, Keras.

    Takes half of the time of TensorFlow when as many threads ask as there are processors (benchmarks/extraction.py).

    Args:
        content: gives what `to_onnx` makes of the model.
        images: uint8 (n, size, size, 3), the first of which both are asked about.
    """
    some = images[:_LOOKED_AT]
    try:
        answer = _session(content())
        found = answer(some)
    except NightshiftError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever else cannot take over a network, Keras can run it
        log.warning("ONNX Runtime cannot run this network, so Keras does: %s", error)
        return _by_keras(model)
    expected = np.asarray(model(tf.convert_to_tensor(some), training=False))
    difference = float(np.max(np.abs(found - expected)) / np.sqrt(np.mean(np.square(expected))))
    if difference <= TOLERANCE:
        return answer
    log.warning("ONNX Runtime answers otherwise than Keras, by %.1g of the root mean square: not used", difference)
    return _by_keras(model)


def _by_keras(model: keras.Model) -> Answer:
    forward = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True, autograph=False)
    return lambda batch: np.asarray(forward(tf.convert_to_tensor(batch)))


def _session(content: bytes) -> Answer:
    options = onnxruntime.SessionOptions()
    # Batches side by side are quicker than many threads to a batch, which wait for each other at every layer.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda batch: np.asarray(session.run([_ANSWERS], {_IMAGES: batch})[0])
