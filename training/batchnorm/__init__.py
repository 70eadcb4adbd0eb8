"""BatchNormalization of any Keras model: find it, freeze it, fold it away, and replace lagging statistics.

This package stands alone, with NumPy in and out:

    from training.batchnorm import fold_batch_norm, freeze_batch_norm, recalibrate
"""

from training.batchnorm.folding import fold_batch_norm
from training.batchnorm.fused import fused_training
from training.batchnorm.layers import (
    batch_norm_layers,
    freeze_batch_norm,
    learning_layers,
    put_back,
    statistics_variables,
    unchanged,
)
from training.batchnorm.moments import BatchMoments
from training.batchnorm.recalibration import NotFinite, Recalibrator, recalibrate
from training.batchnorm.report import BatchNormReport, LayerDrift
from training.batchnorm.tracing import batch_statistics, using_batch_statistics

__all__ = [
    "BatchMoments",
    "BatchNormReport",
    "LayerDrift",
    "NotFinite",
    "Recalibrator",
    "batch_norm_layers",
    "batch_statistics",
    "fold_batch_norm",
    "freeze_batch_norm",
    "fused_training",
    "learning_layers",
    "put_back",
    "recalibrate",
    "statistics_variables",
    "unchanged",
    "using_batch_statistics",
]
