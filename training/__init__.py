"""Nightly retraining of a transfer-learning image classifier, with a gate on the BatchNorm gap."""

import os

# TensorFlow leaves oneDNN's kernels off where a processor has no AVX-512, and looks once, when it is loaded: a step
# takes a quarter less with them (benchmarks/training_step.py).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# By default each of tf2onnx's dozen optimizers works on a deep copy of the graph, which takes half of a conversion.
os.environ.setdefault("TF2ONNX_CATCH_ERRORS", "FALSE")
