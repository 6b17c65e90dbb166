"""The Android app's preprocessing of a camera frame against whole steps, in turns in one JVM.

    python benchmarks/frame_path.py [--frames 200]

The app converts, turns and resizes only the visible square of a frame, in buffers that it reuses. The whole steps
convert and turn the whole frame, and then crop and resize it; both give the same bytes. A frame has 640 x 480 pixels,
the input 224 x 224. The benchmark needs what `make android` made.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ANDROID = Path(__file__).resolve().parents[1] / "android_demo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=200, help="frames to measure, after as many of warm-up")
    arguments = parser.parse_args()
    tests, classpath = ANDROID / "core/target/test-classes", ANDROID / "build/classpath.txt"
    if not tests.is_dir() or not classpath.is_file():
        sys.exit("benchmarks/frame_path.py: `make android` must run first")
    paths = [tests, ANDROID / "core/target/classes", classpath.read_text().strip()]
    command = ["java", "-cp", os.pathsep.join(map(str, paths)), "dev.edgecv.core.FramePathBenchmark"]
    printed = subprocess.run([*command, str(arguments.frames)], check=True, capture_output=True, text=True).stdout
    print(printed, end="")
    whole, needed = [float(ms) for ms in re.findall(r": ([\d.]+) ms", printed)]
    print(f"time of a frame, relative to whole steps: {needed / whole:.0%}")


if __name__ == "__main__":
    main()
