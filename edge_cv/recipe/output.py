"""The identity of a file that a run makes: one row of its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal["tflite", "onnx"]


@dataclass(frozen=True)
class Output:
    """One file of a run, and its row in the report.

    Attributes:
        stage: the model that the file is converted from: "" for the recipe's model itself, else `channel_pruned`,
            `pruned`, `clustered` or `qat` for the model after that stage of compression.
        format: `tflite` or `onnx`.
        scheme: the quantization scheme, such as `int8`.
    """

    stage: str
    format: Format
    scheme: str

    @property
    def name(self) -> str:
        """Its name in the report, such as `int8`, `onnx_float32` or `pruned_onnx_float32`."""
        return "_".join(part for part in (self.stage, "onnx" if self.format == "onnx" else "", self.scheme) if part)

    def file_name(self, model_name: str) -> str:
        """The name of its file in the run's folder, such as `mobilenet_v2_pruned_int8.tflite`."""
        return f"{model_name}_{self.name}.{self.format}"
