"""What a sweep costs beyond its recipes: `edge-cv sweep` against `edge-cv run` for each recipe, by hand.

    python benchmarks/sweep.py [--rounds 3] [--epochs 4] [--ray]

The digits in two widths, trained for some epochs and made float32 and float16. By hand each is run by a command of its
own, and `edge-cv report` compares them in the end, which the sweep does as well; the overhead without that is told too.
Both ways begin anew in each round, in turns, in the other order every second time. The time of processors beside the
time of the clock: other programs lengthen the latter. With --ray a sweep on a cluster of this machine is measured, too,
whose start and end are part of it.

Then both ways are gone again, when all is finished: what is left is what the sweep adds, without the noise of the runs.
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
    """Seconds of the clock and of processors that the commands took, one after the other."""
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
            ways = {
                "by hand": lambda runs=runs: timed(*runs),
                "sweep": lambda out=out: timed(("sweep", *recipes, "--out", out / "sweep")),
            }
            if options.ray:
                ways["sweep --ray local"] = lambda out=out: timed(
                    ("sweep", *recipes, "--out", out / "ray", "--ray", "local")
                )
            for way in list(ways)[:: 1 if number % 2 == 0 else -1]:
                found.setdefault(way, []).append(ways[way]())
            hand = out / "hand"
            compare = ("report", *(hand / recipe.stem for recipe in recipes), "--out", hand)
            found.setdefault("report", []).append(timed(compare))
            told = ", ".join(f"{way} {took[-1][0]:.1f} s ({took[-1][1]:.1f} s)" for way, took in found.items())
            print(f"round {number + 1}: {told}", flush=True)
        again: dict[str, list[tuple[float, float]]] = {}
        for _ in range(AGAIN):
            for way in ("by hand", "sweep"):
                again.setdefault(way, []).append(ways[way]())
            again.setdefault("report", []).append(timed(compare))
    for kind, what in enumerate(("clock", "processors")):
        hand, report = (statistics.median(took[kind] for took in found[way]) for way in ("by hand", "report"))
        for way in [way for way in found if way.startswith("sweep")]:
            sweep = statistics.median(took[kind] for took in found[way])
            print(
                f"{what}: {way} {sweep:.1f} s, runs by hand {hand:.1f} s and their comparison {report:.1f} s: "
                f"{sweep / (hand + report) - 1:+.1%}, {sweep / hand - 1:+.1%} without the comparison (limit 3 %)"
            )
        own, same, told = (
            statistics.median(took[kind] for took in again[way]) for way in ("sweep", "by hand", "report")
        )
        print(
            f"{what}, of finished runs: {own - same - told:+.2f} s, {(own - same - told) / (hand + report):+.1%} of "
            f"runs and comparison; {own - same:+.2f} s, {(own - same) / hand:+.1%} of the runs alone (limit 3 %)"
        )


if __name__ == "__main__":
    main()
