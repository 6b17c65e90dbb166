"""`edge-cv doctor`: what is installed, what is missing, and the command that installs it."""

from __future__ import annotations

import json
import platform
from importlib import metadata

from edge_cv.pipeline.doctor import EXTRAS, missing


def test_it_prints_the_machine_the_versions_and_one_row_for_each_extra(edge_cv):
    code, out, err = edge_cv("doctor")
    assert code == 0, err
    assert f"Python {platform.python_version()}" in out
    assert f"numpy {metadata.version('numpy')}" in out
    assert all(purpose in out for purpose in EXTRAS.values())


def test_a_program_that_is_missing_is_named_with_the_command_that_installs_it(edge_cv, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, _ = edge_cv("doctor", "--json")
    checks = {check["purpose"]: check for check in json.loads(out)["checks"]}
    assert checks["benchmark --device adb"]["missing"] == ["adb"]
    assert checks["benchmark --device adb"]["install"] == "apt-get install adb"
    assert code == 0  # not every command needs it


def test_a_requirement_is_missing_if_it_is_not_installed_or_has_another_version():
    version = metadata.version("numpy")
    stated = ["numpy<1", "no-such-package>=2", "pytest", 'no-such-extra; extra == "search"']
    assert missing(stated, None) == (f"numpy {version} (needed: <1)", "no-such-package")
    assert missing(stated, "search") == ("no-such-extra",)
    assert missing(stated, "ray") == ()


def test_an_extra_that_includes_another_lacks_what_the_other_lacks():
    stated = ['edge-cv[train]; extra == "search"', 'no-such-extra; extra == "train"', 'pytest; extra == "search"']
    assert missing(stated, "search") == ("no-such-extra",)


def test_a_requirement_of_another_system_is_not_missing():
    stated = ['no-such-package; sys_platform == "win32"', 'absent; sys_platform == "linux"']
    assert missing(stated, None) == ("absent",)


def test_every_extra_that_it_explains_exists():
    stated = metadata.metadata("edge-cv").get_all("Provides-Extra")
    assert set(EXTRAS) <= set(stated)
