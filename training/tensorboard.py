"""TensorBoard's logs of a training, written from its history: complete however often it was interrupted."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

_VALIDATION = "val_"


def write_logs(history: Sequence[Mapping[str, float]], folder: Path) -> None:
    """One scalar a column and epoch, under the names that Keras's own callback gives them.

    Those whose name begins with ``val_`` go to ``validation/``, where TensorBoard draws them into the same chart.
    """
    for name in ("train", "validation"):
        with tf.summary.create_file_writer(str(folder / name)).as_default():
            for row in history:
                _write(row, validation=name == "validation")


def _write(row: Mapping[str, float], *, validation: bool) -> None:
    for name, value in row.items():
        if name != "epoch" and name.startswith(_VALIDATION) == validation:
            tf.summary.scalar(f"epoch_{name.removeprefix(_VALIDATION)}", value, step=int(row["epoch"]) - 1)
