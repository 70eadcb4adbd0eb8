"""The quickest honest way to run a network that only answers: ONNX Runtime, which folds BatchNorm into convolutions."""

import logging
from collections.abc import Callable

import keras
import numpy as np
import onnxruntime
import tensorflow as tf

from training.graphs import inference_graph

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

    signature = (tf.TensorSpec(model.input_shape, tf.uint8, name=_IMAGES),)
    proto, _ = tf2onnx.convert.from_function(inference_graph(model, signature, _ANSWERS), signature)
    content: bytes = proto.SerializeToString()
    return content


def quickest(model: keras.Model, content: bytes, images: np.ndarray) -> Answer:
    """What answers as the model does in inference mode: ONNX Runtime, or, where that answers otherwise, Keras.

    Takes half the time of TensorFlow (benchmarks/features.py).

    Args:
        content: of `to_onnx`.
        images: uint8 (n, size, size, 3), the first of which both are asked about.
    """
    answer, some = _session(content), images[:_LOOKED_AT]
    expected = np.asarray(model(tf.convert_to_tensor(some), training=False))
    difference = float(np.max(np.abs(answer(some) - expected)) / np.sqrt(np.mean(np.square(expected))))
    if difference <= TOLERANCE:
        return answer
    log.warning("ONNX Runtime answers otherwise than Keras, by %.1g of the root mean square: not used", difference)
    forward = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True, autograph=False)
    return lambda batch: np.asarray(forward(tf.convert_to_tensor(batch)))


def _session(content: bytes) -> Answer:
    options = onnxruntime.SessionOptions()
    # Threads that wait actively take half the machine from whatever Airflow runs beside this, and from themselves.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda batch: np.asarray(session.run([_ANSWERS], {_IMAGES: batch})[0])
