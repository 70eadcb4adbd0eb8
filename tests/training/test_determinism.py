import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Depthwise convolutions, BatchNorm and Adam: what gave other last bits from process to process.
PROGRAM = """
import hashlib, keras, numpy as np
from training.backbones import build_backbone
from training.determinism import make_deterministic
make_deterministic(0)
base = build_backbone("efficientnet_lite0", 64, None)
head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.5), keras.layers.Dense(1, activation="sigmoid")]
model = keras.Sequential([base, *head])
model.compile("adam", "binary_crossentropy")
x = np.random.default_rng(0).integers(0, 255, (16, 64, 64, 3)).astype(np.float32)
for _ in range(4):
    model.train_on_batch(x, np.arange(16)[:, None] % 2)
print(hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest())
"""


@pytest.mark.soak
def test_processes_agree_to_the_bit():
    command = [sys.executable, "-c", PROGRAM]
    runs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(3)]
    assert len({run.stdout for run in runs}) == 1
