"""What it costs that a night can be repeated, and continued, to the bit.

    python benchmarks/determinism.py [--steps 60] [--repeats 3]

One training step of the model as shipped (EfficientNet-Lite0, all layers, 32 images), in a process of its own with
TensorFlow's deterministic kernels and without, in turn; and how long it takes to save where training stands.
Medians, and their ratio.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", choices=["deterministic", "free"], help="measure one, and print its figures")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.steps, deterministic=options.measure == "deterministic")))
    else:
        compare(options.steps, options.repeats)


def compare(steps: int, repeats: int) -> None:
    found: dict[str, list[dict[str, float]]] = {"deterministic": [], "free": []}
    for _ in range(repeats):
        for name, figures in found.items():
            command = [sys.executable, __file__, "--steps", str(steps), "--measure", name]
            done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            figures.append(json.loads(done.stdout.splitlines()[-1]))
    step = {name: median(one["step"] for one in figures) for name, figures in found.items()}
    for name, seconds in step.items():
        print(f"{name:14} {1e3 * seconds:7.1f} ms a step")
    print(f"determinism costs {step['deterministic'] / step['free'] - 1:+.1%}")
    saving, size = (median(one[name] for one in found["deterministic"]) for name in ("save", "bytes"))
    steps_long = saving / step["deterministic"]
    print(f"a checkpoint   {1e3 * saving:7.1f} ms, {size / 2**20:.0f} MiB, as long as {steps_long:.1f} steps")


def measured(steps: int, *, deterministic: bool) -> dict[str, float]:
    """Seconds a step, after ten that trace and warm up; seconds and bytes of a checkpoint."""
    sys.path.insert(0, str(ROOT))
    import numpy as np

    from training.config import ModelConfig
    from training.determinism import make_deterministic
    from training.network import build_model
    from training.objective import bare_loss, compile_classifier

    if deterministic:
        make_deterministic(0)
    model = build_model(ModelConfig())
    compile_classifier(model, 1e-3, bare_loss(1))
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (32, 80, 80, 3), np.uint8), random.integers(0, 2, (32, 1)).astype(np.float32)
    for _ in range(10):
        model.train_on_batch(x, y)
    begun = time.perf_counter()
    for _ in range(steps):
        model.train_on_batch(x, y)
    step = (time.perf_counter() - begun) / steps
    return {"step": step, **saved(model)}


def saved(model) -> dict[str, float]:
    from training.checkpoints import Checkpoints
    from training.standing import Standing, Variables, to_checkpoint, values
    from training.store import LocalStore

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        weights = values(model.variables)
        variables = Variables(weights, values(model.optimizer.variables), values(model.metrics_variables), weights)
        Checkpoints(LocalStore(Path(folder)), "benchmark").save(to_checkpoint(Standing(), variables))
        seconds = time.perf_counter() - begun
        return {"save": seconds, "bytes": sum(path.stat().st_size for path in Path(folder).rglob("*.npz"))}


if __name__ == "__main__":
    main()
