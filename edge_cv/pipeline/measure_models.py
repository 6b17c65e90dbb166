"""Measure the architectures: size, latency and memory of their float32 and int8 files, with random weights.

The values of the weights change neither, so nothing is trained, downloaded or evaluated. Each conversion runs in a
process of its own, so that the memory of one model is returned before the next. All conversions are done before the
first measurement. All files are then measured in several rounds, and for each file the round with the lowest median
counts: the one that other programs disturbed least. Conversions and rounds are cached steps: an interrupted measurement
resumes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from converters import strict_json
from converters.errors import InputError
from converters.packages import package_versions
from edge_cv import models
from edge_cv.folder_lock import holds
from edge_cv.models.measured import MeasuredModel, MeasuredTable
from edge_cv.progress import Progress, silent
from edge_cv.stages import Steps

TABLE = "models.json"
SCHEMES = ("float32", "int8")
RUNS, WARMUP, ROUNDS = 20, 3, 5
NO_CHECK_DB = -1e9  # random weights: how much of the logits is left says nothing
# of the targets, those whose files have the input and output type of this int8 file
TARGETS = ("cpu", "nnapi", "edgetpu", "ethos_u", "micro")
VERSIONED = ("edge-cv", "tensorflow", "keras", "ai-edge-litert", "ai-edge-quantizer")


@holds("out_dir")
def measure_models(
    names: Sequence[str],
    out_dir: str | os.PathLike,
    *,
    runs: int = RUNS,
    rounds: int = ROUNDS,
    progress: Progress = silent,
) -> MeasuredTable:
    """Convert and measure architectures on this machine, with one thread.

    Args:
        names: of `edge_cv.models.names()`; each is built for 1000 classes at its published image size.
        out_dir: folder for the files and the table `models.json`.
        runs: timed inferences of each file in a round.
        rounds: number of rounds over all files, of which the least disturbed counts for each file.
        progress: shows what is being done.

    Returns:
        The table.

    Raises:
        InputError: an unknown name, or a process died: memory ran out.
    """
    steps, chosen = Steps(Path(out_dir)), tuple(names)
    for name in chosen:
        models.describe(name)  # the name exists
    with progress(f"converting {len(chosen)} architectures") as update:
        made = {}
        for done, name in enumerate(chosen):
            update(done, len(chosen), name)
            made[name] = steps.cached(f"convert_{name}", {}, functools.partial(_converted, name, steps.folder))
    measured: dict[str, list[Any]] = {name: [] for name in chosen}
    turns = [(turn, name) for turn in range(rounds) for name in chosen]
    with progress(f"measuring {len(chosen)} architectures in {rounds} rounds") as update:
        for done, (turn, name) in enumerate(turns):
            update(done, len(turns), name)
            inputs, work = (
                {"files": made[name][1], "runs": runs},
                functools.partial(_measured, name, steps.folder, runs),
            )
            measured[name].append(steps.cached(f"measure_{name}_{turn}", inputs, work)[0])
    table = _table({name: made[name][0] for name in chosen}, measured)
    table.save(steps.folder / TABLE)
    return table


def _file(folder: Path, name: str, scheme: str) -> Path:
    return folder / f"{name}_{scheme}.tflite"


def _converted(name: str, folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """Convert one architecture in a process of its own, which ends with this one."""
    from loky.process_executor import BrokenProcessPool

    from edge_cv.parallel.processes import process_pool

    executor = process_pool(1, threads=True)
    try:
        figures = executor.submit(convert_random, name, folder).result()
    except BrokenProcessPool as error:
        raise InputError(
            f"the conversion of {name} needs more memory than there is, or its process was killed"
        ) from error
    finally:
        executor.shutdown(wait=True, kill_workers=True)
    return figures, [_file(folder, name, scheme) for scheme in SCHEMES]


def convert_random(name: str, folder: Path) -> dict[str, Any]:
    """Write both files of an architecture with random weights; returns what their content says, by scheme."""
    from converters import Float32, Int8, convert_all
    from converters.calibration import noise
    from converters.devices import micro, targets
    from converters.native_logs import import_tensorflow

    import_tensorflow()
    import keras

    keras.utils.set_random_seed(0)
    model = models.build(name)
    images = noise(model.input_shape[1:], None, True)
    schemes = [
        Float32(NO_CHECK_DB),
        Int8(equalization=False, ranges="minmax", correction="none", min_sqnr_db=NO_CHECK_DB),
    ]
    figures: dict[str, Any] = {"image_size": model.input_shape[1]}
    for conversion in convert_all(model, schemes, calibration=[images]):
        conversion.save(_file(folder, name, conversion.scheme))
        arena = micro.memory(conversion.content).arena_bytes
        figures[conversion.scheme] = {"size_bytes": conversion.size_bytes, "arena_bytes": arena}
    whole = [target for target in TARGETS if not targets.check(conversion.content, target)]
    return figures | {"whole_on": whole}


def _measured(name: str, folder: Path, runs: int) -> tuple[dict[str, Any], list[Path]]:
    """Latency and memory of both files of an architecture in one round; no file is written."""
    from edge_cv.evaluation import measure

    figures: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds")}
    for scheme in SCHEMES:
        performance = measure(_file(folder, name, scheme), runs=runs, warmup=WARMUP)
        latency = performance.latency[0]
        figures |= {"host": latency.host, "runtime": latency.runtime}
        figures[scheme] = {
            "p50_ms": round(latency.p50_ms, 3),
            "cpu_share": latency.cpu_share,
            "peak_memory_bytes": performance.peak_memory_bytes,
        }
    return figures, []


def _table(made: Mapping[str, dict[str, Any]], measured: Mapping[str, list[dict[str, Any]]]) -> MeasuredTable:
    """The table of the figures of each conversion and of all rounds, by the names of the architectures."""
    rows = []
    for name, figures in made.items():
        timed = {scheme: [one[scheme] for one in measured[name]] for scheme in SCHEMES}
        best = {scheme: min(rounds, key=lambda one: one["p50_ms"]) for scheme, rounds in timed.items()}
        files = {scheme: {**figures[scheme], **best[scheme]} for scheme in SCHEMES}
        fields = {"name": name, "image_size": figures["image_size"], "whole_on": figures["whole_on"], **files}
        rows.append(strict_json.typed(MeasuredModel, fields, f"the measurement of {name}"))
    last = max((one for rounds in measured.values() for one in rounds), key=lambda one: one["date"])
    return MeasuredTable(last["host"], last["runtime"], last["date"], package_versions(VERSIONED), tuple(rows))
