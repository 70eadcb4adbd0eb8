"""Recalibration beside fvcore's `update_bn_stats`: the same network, weights and images, in time and in loss.

    python benchmarks/precise_bn.py [--images 1024] [--size 80] [--repeats 5]

EfficientNet-Lite0, briefly fine-tuned in Keras so that its statistics lag, copied weight by weight into PyTorch's; both
on the CPU with the same threads. fvcore's own code runs on PyTorch. The loss is each framework's own on the images that
the statistics came from, in inference mode; before recalibration the two must agree, or the networks are not the same.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
import torch
from cells import briefly_trained, sample_cells
from efficientnet_lite_pytorch import EfficientNet
from fvcore.nn.precise_bn import update_bn_stats

from training.batchnorm import Recalibrator, batch_norm_layers, put_back, statistics_variables
from training.efficientnet_lite0 import _sources
from training.logits import cross_entropies, in_batches, inference_logits
from training.network import backbone_of

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    x, y = sample_cells(options.images, options.size)
    model = briefly_trained(x, y)
    compare(Ours(model, x, y), Theirs(model, x, y), options.repeats)


class Ours:
    def __init__(self, model: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y, self.logits = x, y, inference_logits(model)
        self.batches = [tf.constant(x[start : start + BATCH]) for start in range(0, len(x), BATCH)]
        self.recalibrator, self.variables = Recalibrator(model), statistics_variables(batch_norm_layers(model))
        self.lagging = [variable.numpy() for variable in self.variables]

    def reset(self) -> None:
        put_back(self.variables, self.lagging)

    def recalibrate(self) -> None:
        self.recalibrator.recalibrate(self.batches)

    def loss(self) -> float:
        return float(cross_entropies(in_batches(self.logits, self.x, BATCH), self.y).mean())


class Theirs:
    """The same network in PyTorch."""

    def __init__(self, model: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
        self.y = y
        self.network = torch_network(model)
        scaled = torch.from_numpy(x.astype(np.float32).transpose(0, 3, 1, 2) / 128 - 127 / 128)
        self.batches = list(torch.split(scaled, BATCH))
        self.state = {name: value.clone() for name, value in self.network.state_dict().items()}

    def reset(self) -> None:
        self.network.load_state_dict(self.state)

    def recalibrate(self) -> None:
        self.network.train()
        update_bn_stats(self.network, self.batches, len(self.batches))

    def loss(self) -> float:
        self.network.eval()
        with torch.no_grad():
            logits = torch.cat([self.network(batch) for batch in self.batches])
        return float(cross_entropies(logits.numpy(), self.y).mean())


def torch_network(model: keras.Model) -> torch.nn.Module:
    """The classifier in PyTorch, with the Keras model's weights."""
    # Its padding is that of one size of images, which it must be told; ours drops no connections.
    base = EfficientNet.from_name("efficientnet-lite0", image_size=model.input_shape[1], drop_connect_rate=0.0)
    state = base.state_dict()
    for layer, source in _sources(backbone_of(model)):
        for name, value in torch_arrays(layer, source).items():
            assert state[name].shape == value.shape, name
            state[name] = torch.from_numpy(value.copy())
    base.load_state_dict(state)
    for module in base.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = batch_norm_layers(model)[0].epsilon
    head = torch.nn.Linear(1280, 1)
    dense = model.get_layer("probability")
    head.load_state_dict(
        {"weight": torch.from_numpy(dense.kernel.numpy().T.copy()), "bias": torch.from_numpy(dense.bias.numpy())}
    )
    return Classifier(base, head)


class Classifier(torch.nn.Module):
    def __init__(self, base: torch.nn.Module, head: torch.nn.Module) -> None:
        super().__init__()
        self.base, self.head = base, head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.base.extract_features(images).mean(dim=(2, 3)))


def torch_arrays(layer: keras.layers.Layer, source: str) -> dict[str, np.ndarray]:
    """A layer's weights by PyTorch's names, in PyTorch's order of axes."""
    weights = layer.get_weights()
    if isinstance(layer, keras.layers.BatchNormalization):
        names = ("weight", "bias", "running_mean", "running_var")
        return {f"{source}.{name}": value for name, value in zip(names, weights, strict=True)}
    axes = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (3, 2, 0, 1)
    return {f"{source}.weight": weights[0].transpose(axes)}


def compare(ours: Ours, theirs: Theirs, repeats: int) -> None:
    seconds: dict[str, list[float]] = {"recalibrate": [], "fvcore": []}
    before = ours.loss(), theirs.loss()
    after = dict[str, float]()
    for repeat in range(repeats + 1):
        for name, way in (("recalibrate", ours), ("fvcore", theirs)):
            way.reset()
            spent = timed(way.recalibrate)
            if repeat:
                seconds[name].append(spent)
            else:
                after[name] = way.loss()
    ratio = np.median(np.array(seconds["fvcore"]) / np.array(seconds["recalibrate"]))
    print(f"loss as training left it: {before[0]:.4f} in Keras, {before[1]:.4f} in PyTorch")
    print(f"recalibrate {np.median(seconds['recalibrate']):.2f} s, loss {after['recalibrate']:.4f}")
    print(f"fvcore      {np.median(seconds['fvcore']):.2f} s, loss {after['fvcore']:.4f}")
    print(f"fvcore takes {ratio:.2f} times as long ({torch.get_num_threads()} threads each)")


def timed(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
