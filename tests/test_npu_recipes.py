"""Recipes for NPUs: the compiled file, the compiler's estimates in rows, limits, fronts and the report."""

from __future__ import annotations

import dataclasses
import json

import pytest

from converters.devices.compiled import CpuOperator, Estimate, Simulation
from converters.devices.micro import memory
from converters.errors import InputError
from converters.packages import package_versions
from edge_cv.deploy.package import Package, check_package, package
from edge_cv.pipeline.rows import broken_limits, with_package
from edge_cv.recipe import Limits, Model, Output, Recipe, TargetDevice
from edge_cv.report import Report, Row
from edge_cv.report.columns import columns
from edge_cv.report.files import from_dict, to_dict
from edge_cv.report.page import to_html
from edge_cv.report.pareto import fronts
from edge_cv.report.terminal import show

INT8 = Output("", "tflite", "int8")
NPU = TargetDevice("a board", "Ethos-U55", "TFLM", package="c_array", compiler="ethos-u55-64", clock_mhz=250)
with_vela = pytest.mark.skipif(not package_versions(["ethos-u-vela"]), reason="ethos-u-vela is not installed")


def _estimate(cycles: int = 1_000_000, **fields) -> Estimate:
    plain = {
        "target": "ethos-u55-64",
        "compiler": "ethos-u-vela 5.2.0",
        "clock_mhz": 250.0,
        "memory_system": "Shared_Sram",
        "npu_operators": 5,
        "cpu_operators": (),
        "sram_bytes": 1000,
        "dram_bytes": 0,
        "flash_bytes": 2000,
    }
    return Estimate(cycles=cycles, **plain | fields)


@with_vela
def test_the_package_has_the_compiled_file_and_its_program(small_files, tmp_path):
    made = package(NPU, small_files["int8"], tmp_path)
    assert made.files[0] == "small_int8_ethos-u55-64.tflite"
    assert made.estimate.clock_mhz == 250
    assert made.estimate.milliseconds == pytest.approx(made.estimate.cycles / 250_000)
    assert "ops.AddEthosU()" in (tmp_path / "model_ops.h").read_text()
    assert "ethos_u55_64" in (tmp_path / "model_settings.h").read_text()
    found = memory((tmp_path / made.files[0]).read_bytes())
    assert found.activations_bytes == made.estimate.sram_bytes  # the compiler's own figure
    (row,) = with_package([Row(INT8, "a.tflite")], made)
    assert row.estimate == made.estimate


@with_vela
def test_a_package_with_estimates_is_read_back_from_report_json(small_files, tmp_path):
    made = package(NPU, small_files["int8"], tmp_path)
    report = Report({"name": "r"}, {}, rows=(Row(INT8, "a.tflite", estimate=made.estimate),), delivery=made)
    again = from_dict(json.loads(json.dumps(to_dict(report))))
    assert again.delivery == made
    assert again.rows == report.rows
    assert "250 MHz, estimated by ethos-u-vela" in to_html(report)


def test_estimated_latency_is_named_an_estimate_wherever_it_is_shown(capsys):
    rows = (Row(INT8, "a.tflite", size_bytes=10, estimate=_estimate()),)
    (column,) = (column for column in columns(rows) if column.title == "Estimate")
    assert column.under == "ethos-u55-64 at 250 MHz, estimated by ethos-u-vela 5.2.0"
    assert column.cells[0].text == "4.00 ms"
    show(Report({"name": "r"}, {}, rows=rows))
    assert "estimated by" in capsys.readouterr().out


def test_an_estimate_without_a_clock_is_reported_with_what_the_simulator_computed(capsys):
    simulated = Simulation(images=100, top1_agreement=0.99, sqnr_db=47.8)
    row = Row(INT8, "a.tflite", estimate=_estimate(clock_mhz=None, sram_bytes=None, simulation=simulated))
    assert row.estimate.milliseconds is None
    assert row.estimate.source == "ethos-u55-64, estimated by ethos-u-vela 5.2.0"
    titles = [(column.title, column.under, column.cells[0].text) for column in columns((row,))]
    assert ("Simulated", "agreement", "99 %") in titles
    assert ("Simulated", "SQNR", "47.8 dB") in titles
    assert "Estimate" not in [title for title, *_ in titles]
    delivery = Package("a board", "an NPU", "a runtime", "int8", estimate=row.estimate)
    report = Report({"name": "r"}, {}, rows=(row,), delivery=delivery)
    assert from_dict(json.loads(json.dumps(to_dict(report)))).rows == (row,)
    assert "as the file on 99 of 100 photos, with an SQNR of" in to_html(report).replace("\N{NO-BREAK SPACE}", " ")
    show(report)
    assert "simulated agreement" in capsys.readouterr().out
    limits = Limits("int8", min_simulated_agreement=0.995)
    assert broken_limits([limits], [row]) == (
        "int8: top-1 agreement in the vendor's simulator must be at least 0.995. Measured: 0.99",
    )


def test_runs_have_a_front_by_estimated_latency():
    rows = [
        Row(INT8, f"{name}.tflite", run=name, images=100, top1=top1, size_bytes=10, estimate=_estimate(cycles))
        for name, top1, cycles in (("small", 0.7, 1_000_000), ("large", 0.8, 2_000_000), ("slow", 0.6, 3_000_000))
    ]
    front = fronts(rows)[0]
    assert front.cost == "latency on ethos-u55-64 at 250 MHz, estimated by ethos-u-vela 5.2.0"
    assert front.costs == (4.0, 8.0, 12.0)
    assert front.on == (True, True, False)
    assert "estimated latency, ms" in to_html(Report({"name": "r"}, {}, rows=tuple(rows)))


def test_limits_on_estimates_are_reported_when_broken_or_without_a_compiler():
    left = (CpuOperator("MEAN", "pool", "too deep"),)
    row = Row(INT8, "a.tflite", estimate=_estimate(cpu_operators=left))
    limits = Limits("int8", max_cycles=999_999, max_sram_bytes=999, max_cpu_operators=0)
    by = "estimated by ethos-u-vela 5.2.0"
    assert broken_limits([limits], [row]) == (
        f"int8: cycles of the NPU, {by}, must be at most 999,999. Measured: 1,000,000",
        f"int8: SRAM in bytes, {by}, must be at most 999. Measured: 1,000",
        f"int8: operators on the CPU, {by}, must be at most 0. Measured: 1",
    )
    kept = dataclasses.replace(limits, max_cycles=1_000_000, max_sram_bytes=1000, max_cpu_operators=1)
    assert broken_limits([kept], [row]) == ()
    assert all("not measured" in line for line in broken_limits([limits], [Row(INT8, "a.tflite")]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"compiler": "ethos-u55-265"}, "unknown target of a compiler.*Did you mean"),
        ({"clock_mhz": 0}, "clock_mhz"),
        ({"clock_mhz": float("nan")}, "clock_mhz"),
        ({"compiler": None}, "clock_mhz needs a compiler"),
        ({"package": "web"}, "must be c_array, or None"),
        ({"quantize": True}, "is for a compiler that reads float files"),
        ({"compiler": "rk3588"}, r"TargetDevice\.package must be None for rk3588"),
    ],
)
def test_a_device_with_an_unknown_compiler_or_clock_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(NPU, **fields)


@pytest.mark.parametrize(
    ("scheme", "compiler"),
    [
        *(("float32", "ethos-u55-64"), ("dynamic_int8", "ethos-u55-64"), ("onnx_int8", "ethos-u55-64")),
        *(("int8", "rk3588"), ("float32", "rk3588"), ("onnx_int8", "rk3588")),
    ],
)
def test_an_output_that_the_compiler_does_not_read_is_refused(scheme, compiler):
    device = TargetDevice("d", "p", "r", scheme=scheme, compiler=compiler)
    with pytest.raises(InputError, match=r"TargetDevice\.compiler"):
        Recipe("r", Model("mobilenet_v1"), onnx=("int8",), device=device)


def test_a_missing_compiler_stops_a_run_before_its_first_step(monkeypatch):
    monkeypatch.setattr("converters.devices.vela.package_versions", lambda names: {})
    with pytest.raises(InputError, match=r"pip install 'edge-cv\[ethos-u\]'"):
        check_package(Recipe("r", Model("mobilenet_v1"), device=NPU))


@pytest.mark.parametrize(
    "fields",
    [
        *({"clock_mhz": 0}, {"cycles": -1}, {"sram_bytes": "many"}, {"cpu_operators": [1]}, {"npu_operators": None}),
        *({"simulation": {"images": 0, "top1_agreement": 1, "sqnr_db": 9}}, {"simulation": 5}),
        {"simulation": {"images": 9, "top1_agreement": 1.5, "sqnr_db": 9}},
    ],
)
def test_estimates_of_an_untrusted_report_are_checked(fields):
    report = to_dict(Report({"name": "r"}, {}, rows=(Row(INT8, "a.tflite", estimate=_estimate()),)))
    report["rows"][0]["estimate"] |= fields
    with pytest.raises(InputError):
        from_dict(report)
