"""Devices that cannot be reached or used by ssh are reported in one line, and nothing is run by a shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ssh_server import ALIAS, SSHD, free_port

from converters.errors import InputError
from edge_cv.evaluation.remote import measure_on

pytestmark = [
    pytest.mark.skipif(SSHD is None, reason="sshd is not installed (apt-get install openssh-server)"),
    pytest.mark.usefixtures("client", "described_once"),
]


@pytest.fixture
def artifacts(small_files):
    return small_files


def test_unknown_and_changed_host_keys_are_refused(device, server, artifacts, tmp_path, monkeypatch):
    for known, message in (
        ("", "has an unknown host key: connect once by hand, ssh -p"),
        (f"{ALIAS} {_other_key(tmp_path)}", r"has a different host key than before: .*ssh-keygen -R '\[127"),
    ):
        before = server.known_hosts.read_text()
        server.known_hosts.write_text(known)
        try:
            with pytest.raises(InputError, match=message):
                measure_on(device(), artifacts["int8"])
            assert server.known_hosts.read_text() == known
        finally:
            server.known_hosts.write_text(before)


def _other_key(folder):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "other"], check=True)
    return (folder / "other.pub").read_text()


def test_a_refused_login_and_a_closed_port_are_reported(device, server, artifacts):
    with pytest.raises(InputError, match=r"refuses the login .*Permission denied.*ssh-copy-id -p \d+ nobody-here@127"):
        measure_on(device(host="nobody-here@127.0.0.1"), artifacts["int8"])
    with pytest.raises(InputError, match=r"cannot be reached: .*Connection refused"):
        measure_on(device(free_port()), artifacts["int8"])


TOO_OLD = 'exec "$python" -I -c "import sys; sys.version_info=(3,7,9); $3" "$4" "$5"'
BLOCKED = 'PYTHONPATH="$0.d" exec "$python" "$@"'
HELLO = 'echo \'{"event": "agent"}\''
BROKEN = {
    "old": (TOO_OLD, r"must have Python 3\.8 or later; choose one with \?python=PATH\. Received: 3\.7"),
    "silent": ("exit 1", r"does not start \(exit code 1\): no message"),
    "no numpy": (BLOCKED, "numpy is not installed: pip install numpy ai-edge-litert"),
    "no runtime": (BLOCKED, "no TFLite runtime is installed: pip install ai-edge-litert"),
    "broken runtime": (BLOCKED, "ai-edge-litert is installed but does not work: no GLIBC"),
    "dies": ('[ "$1" = -I ] && exec "$python" "$@"\nkill -SEGV $$', "the runtime on ssh://.* ended with SIGSEGV"),
    "lies": (f"{HELLO}\ncat >/dev/null &\necho '[1]'\nsleep 9", "must answer with events. Received"),
    "hangs up": (f"{HELLO}\nexit 7", "disconnected while runner.py was sent"),
    "escapes": (
        "printf '\\033[2Jsilly' >&2\nexit 5",
        "start .exit code 5.: \N{REPLACEMENT CHARACTER}.2Jsilly",
    ),
}


QUICK = ("no runtime", "dies", "lies")


@pytest.mark.parametrize(
    "what", [what if what in QUICK else pytest.param(what, marks=pytest.mark.slow) for what in BROKEN]
)
def test_an_unusable_python_is_a_one_line_error(device, server, artifacts, python, what):
    script, message = BROKEN[what]
    their = python(script)
    blocked = Path(f"{their}.d")
    blocked.mkdir()
    names = {"no numpy": ["numpy"], "no runtime": ["ai_edge_litert", "tflite_runtime", "tensorflow"]}.get(what, [])
    (blocked / "sitecustomize.py").write_text(
        "import sys\nclass Refuse:\n    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {names}: raise ModuleNotFoundError(name, name=name.partition('.')[0])\n"
        f"        if name == 'ai_edge_litert' and {what == 'broken runtime'}: raise ImportError('no GLIBC')\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    with pytest.raises(InputError, match=message) as caught:
        measure_on(device(python=their), artifacts["int8"], runs=1)
    assert "\n" not in str(caught.value)
    assert "\033" not in str(caught.value)
    assert server.left() == []


@pytest.mark.slow
def test_output_of_the_login_shell_is_ignored(device, artifacts, python):
    talks = python('[ "$1" = -I ] && printf "Welcome!\\n{}\\n"\nexec "$python" "$@"')
    assert measure_on(device(python=talks), artifacts["int8"], runs=1).error is None


def test_missing_python_and_missing_ssh_are_reported(device, server, artifacts, monkeypatch):
    with pytest.raises(InputError, match="must have /nowhere/python3: sudo apt install python3, or choose another"):
        measure_on(device(python="/nowhere/python3"), artifacts["int8"])
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="ssh must be installed"):
        measure_on(device(), artifacts["int8"])


def test_the_path_of_python_is_never_run_by_a_shell(device, artifacts, tmp_path):
    for python in (f"$(touch {tmp_path}/here)", f"`touch {tmp_path}/here`", f"x; touch {tmp_path}/here #"):
        with pytest.raises(InputError, match="must have"):
            measure_on(device(python=python), artifacts["int8"])
    assert not (tmp_path / "here").exists()
