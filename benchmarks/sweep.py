"""The overhead of a sweep: `edge-cv sweep` against one `edge-cv run` a recipe.

    python benchmarks/sweep.py [--rounds 3] [--epochs 4] [--ray]

Two networks for the digits are trained for some epochs and converted to float32 and float16. By hand, each recipe has
a command of its own and `edge-cv report` compares them at the end, as the sweep does; the overhead is printed with and
without that comparison. Each round starts from empty folders; the order of the two methods alternates. Wall time and
processor time are printed: other programs lengthen wall time only. With --ray a sweep on a local Ray cluster is
measured too, including the cluster's start and end.

At the end both methods are repeated on finished runs: the difference is the overhead without the noise of the runs.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = """
from edge_cv.recipe import Analysis, Data, Fit, Measure, Model, Recipe
RECIPE = Recipe(
    name="digits",
    model=Model("mobilenet_v2", image_size=64, alpha={alpha}, preprocessing={{"resize_to": None}}),
    data=Data(measure="digits", calibrate=None, calibration_images=50),
    fit=Fit(epochs={epochs}, batch_size=64, learning_rate=0.1, warmup_epochs=0),
    schemes=("float32", "float16"),
    measure=Measure(threads=(1,), runs=100),
    analysis=Analysis(grad_cam=0),
)
"""
ALPHAS = (0.35, 0.5)
AGAIN = 5


def command(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_cv.cli", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if done.returncode:
        sys.exit(done.stderr.decode()[-2000:])


def timed(*commands: tuple) -> tuple[float, float]:
    """Wall time and processor time of the commands, one after the other, in seconds."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    for arguments in commands:
        command(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    from edge_cv.evaluation import describe_environment

    machine = describe_environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, load {os.getloadavg()[0]:.1f}")
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipes = [folder / f"digits_{alpha}.py" for alpha in ALPHAS]
        for path, alpha in zip(recipes, ALPHAS, strict=True):
            text = RECIPE.format(alpha=alpha, epochs=options.epochs)
            path.write_text(text.replace('name="digits"', f'name="{path.stem}"'))
        for number in range(options.rounds):
            out = folder / str(number)
            runs = [("run", recipe, "--out", out / "hand" / recipe.stem) for recipe in recipes]
            methods = {
                "by hand": lambda runs=runs: timed(*runs),
                "sweep": lambda out=out: timed(("sweep", *recipes, "--out", out / "sweep")),
            }
            if options.ray:
                methods["sweep --ray local"] = lambda out=out: timed(
                    ("sweep", *recipes, "--out", out / "ray", "--ray", "local")
                )
            for method in list(methods)[:: 1 if number % 2 == 0 else -1]:
                found.setdefault(method, []).append(methods[method]())
            hand = out / "hand"
            compare = ("report", *(hand / recipe.stem for recipe in recipes), "--out", hand)
            found.setdefault("report", []).append(timed(compare))
            line = ", ".join(f"{method} {took[-1][0]:.1f} s ({took[-1][1]:.1f} s)" for method, took in found.items())
            print(f"round {number + 1}: {line}", flush=True)
        again: dict[str, list[tuple[float, float]]] = {}
        for _ in range(AGAIN):
            for method in ("by hand", "sweep"):
                again.setdefault(method, []).append(methods[method]())
            again.setdefault("report", []).append(timed(compare))
    for kind, what in enumerate(("wall time", "processor time")):
        hand, report = (statistics.median(took[kind] for took in found[method]) for method in ("by hand", "report"))
        for method in [method for method in found if method.startswith("sweep")]:
            sweep = statistics.median(took[kind] for took in found[method])
            print(
                f"{what}: {method} {sweep:.1f} s, runs by hand {hand:.1f} s and their comparison {report:.1f} s: "
                f"{sweep / (hand + report) - 1:+.1%}, {sweep / hand - 1:+.1%} without the comparison (limit 3 %)"
            )
        sweep, runs, compared = (
            statistics.median(took[kind] for took in again[method]) for method in ("sweep", "by hand", "report")
        )
        with_report, without = sweep - runs - compared, sweep - runs
        print(
            f"{what}, of finished runs: {with_report:+.2f} s, {with_report / (hand + report):+.1%} of "
            f"runs and comparison; {without:+.2f} s, {without / hand:+.1%} of the runs alone (limit 3 %)"
        )


if __name__ == "__main__":
    main()
