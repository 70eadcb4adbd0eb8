"""BatchNormalization of any Keras model: find it, freeze it, fold it away, and replace lagging statistics.

This package stands alone, with NumPy in and out:

    from training.batchnorm import fold_batch_norm, freeze_batch_norm, recalibrate
"""

from training.batchnorm.layers import (
    batch_norm_layers,
    freeze_batch_norm,
    learning_layers,
    put_back,
    statistics_variables,
)
from training.batchnorm.recalibration import BatchNormReport, LayerDrift, Recalibrator, batch_statistics, recalibrate

__all__ = [
    "BatchNormReport",
    "LayerDrift",
    "Recalibrator",
    "batch_norm_layers",
    "batch_statistics",
    "freeze_batch_norm",
    "learning_layers",
    "put_back",
    "recalibrate",
    "statistics_variables",
]
