"""What Airflow itself takes of a night: from trigger to verdict, without what the steps take by themselves.

    python benchmarks/airflow_share.py

One night as `make run` does it, in this checkout. A step's own time is what its work took, which the run's provenance
has, and what it takes to start Python and import what the step needs: the same command once more, which finds it done.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from training.step_names import STEPS

CHECKOUT = Path(__file__).resolve().parent.parent
MODEL = CHECKOUT / "dags" / "models" / "solar_cells.yaml"


def main() -> None:
    night = [sys.executable, "-m", "runner", "run"]
    done = subprocess.run(night, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:])
    table = {line[:34].strip(): line[34:].strip() for line in done.stdout.splitlines()}
    run, judged = Path(table["report"]).parent, STEPS[:-1]
    steps = json.loads((run / "provenance.json").read_text())["steps"]
    work = sum(steps[step]["seconds"] for step in judged)
    start = sum(seconds_to_start(step, run) for step in judged)
    whole = float(table["trigger to verdict"].split()[0])
    print(f"trigger to verdict {whole:.1f} s: work {work:.1f} s, starting Python and importing for {len(judged)} steps")
    print(
        f"{start:.1f} s, and Airflow {whole - work - start:.1f} s ({(whole - work - start) / len(judged):.1f} s a task)"
    )


def seconds_to_start(step: str, run: Path) -> float:
    begun = time.perf_counter()
    again = [sys.executable, "-m", "training", step, "--config", str(MODEL), "--run", str(run)]
    subprocess.run(again, cwd=CHECKOUT, check=True, capture_output=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
