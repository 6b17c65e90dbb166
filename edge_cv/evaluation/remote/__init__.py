"""Measuring on the device itself: boards and computers reached by ssh, Android phones reached by adb.

measurement = measure_on("ssh://pi@raspberrypi.local", "model_int8.tflite", threads=(1, 4))
measurement.save("pi.json")  # for the command edge-cv report RUN pi.json
"""

from edge_cv.evaluation.remote.address import Adb, Address, Host, Ssh, parse
from edge_cv.evaluation.remote.measuring import measure_on

__all__ = ["Adb", "Address", "Host", "Ssh", "measure_on", "parse"]
