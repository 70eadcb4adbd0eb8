import tensorflow as tf

from training.tensorboard import write_logs

HISTORY = [
    {"epoch": 1, "loss": 0.5, "val_loss": 0.75, "recalibrated_val_loss": 0.625},
    {"epoch": 2, "loss": 0.25, "val_loss": 1.5, "recalibrated_val_loss": 0.5},
]


def read(folder):
    """What TensorFlow's own reader finds: (name, step, value) in order."""
    (path,) = folder.iterdir()
    events = tf.compat.v1.train.summary_iterator(str(path))
    return [
        (one.tag, event.step, float(tf.make_ndarray(one.tensor))) for event in events for one in event.summary.value
    ]


def test_each_column_is_a_chart_with_validation_beside_training(tmp_path):
    write_logs(HISTORY, tmp_path)
    assert read(tmp_path / "train") == [
        ("epoch_loss", 0, 0.5),
        ("epoch_recalibrated_val_loss", 0, 0.625),
        ("epoch_loss", 1, 0.25),
        ("epoch_recalibrated_val_loss", 1, 0.5),
    ]
    assert read(tmp_path / "validation") == [("epoch_loss", 0, 0.75), ("epoch_loss", 1, 1.5)]
