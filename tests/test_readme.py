"""Every command and every block of Python in the README, run as printed in a fresh copy of the repository.

The copy holds the tracked files and a link to this environment as `.venv`, so that nothing is installed again.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from ssh_server import SSHD, Server

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TIMEOUT_SECONDS = 3000

# Sections and commands that take seconds; all others run in the slow test.
QUICK_SECTIONS = ("Quick start", "Datasets")
QUICK_COMMANDS = ("edge-cv devices", "edge-cv models")


@dataclass(frozen=True)
class Block:
    """A fenced block: the heading above it, its language and its text."""

    section: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block; a line that ends in a backslash includes the next."""
        return [line for line in self.text.replace("\\\n", "").splitlines() if line.strip()]


def blocks() -> list[Block]:
    section, found = "", []
    for match in re.finditer(r"^## ([^\n]+)$|^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        if match[1]:
            section = match[1]
        else:
            found.append(Block(section, match[2], match[3]))
    return found


def missing_tool(command: str) -> str | None:
    """The tool that a command needs and this machine lacks."""
    if ("ssh://" in command or "pi.json" in command) and SSHD is None:
        return "sshd"
    words = shlex.split(command, comments=True)
    if (words[:2] == ["edge-cv", "web"] or "browser" in words) and shutil.which("npm") is None:
        return "npm"
    return None


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the tracked files, in which `make setup` finds an environment that is ready."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("the tests do not run in a git checkout")
    if not Path(sys.prefix, "bin", "activate").is_file() or not Path(sys.prefix, ".ready").is_file():
        pytest.skip(f"{sys.prefix} was not made by `make setup`")
    copy = tmp_path / "edge_cv"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    for name in ("setup.cfg", "pyproject.toml"):
        os.utime(copy / name, (0, 0))  # older than .venv/.ready
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


@pytest.fixture
def search_path(tmp_path) -> str:
    """PATH of a new shell, without this environment; `ssh raspberrypi` reaches this machine where there is an sshd."""
    own = str(Path(sys.prefix, "bin"))
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != own)
    if SSHD is None:
        yield path
        return
    folder = tmp_path / "ssh"
    folder.mkdir()
    server = Server(folder, path=f"{own}:{path}")
    yield f"{folder / 'bin'}:{path}"
    server.stop()


def run_in_one_shell(chosen: list[tuple[str, str]], checkout: Path, search_path: str) -> str:
    """Run (language, text) in one new bash, in order, and return what it printed; the first failure fails the test."""
    script = []
    for number, (language, text) in enumerate(chosen):
        command = text
        if language == "python":
            file = checkout.parent / f"block_{number}.py"
            file.write_text(text, encoding="utf-8")
            command = f"python {shlex.quote(str(file))}"
        title = shlex.quote(text.partition("\n")[0])
        script += ["SECONDS=0", command, f"code=$?; echo $SECONDS s: {title} >&2"]
        script += [f"[ $code = 0 ] || {{ echo exit code $code: {shlex.quote(text)} >&2; exit 1; }}"]
    (checkout.parent / "session.sh").write_text("\n".join(script) + "\n", encoding="utf-8")
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "XDG_CACHE_HOME") if name in os.environ}
    environment = kept | {"PATH": search_path, "PYTHONPATH": str(checkout), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", checkout.parent / "session.sh"],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    print(*re.findall(r"^\d+ s: .*$", done.stderr, re.MULTILINE), sep="\n")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_readmes_quick_commands_run_as_printed(checkout, search_path):
    chosen = [
        ("sh", command)
        for block in blocks()
        if block.language == "sh"
        for command in block.commands
        if (block.section in QUICK_SECTIONS and command != "make demo") or command in QUICK_COMMANDS
    ]
    assert ("sh", "make setup") in chosen
    assert len(chosen) >= 9
    printed = run_in_one_shell(chosen, checkout, search_path)
    assert "efficientnet_lite0" in printed
    assert (checkout / "example" / "shards").is_dir()


@pytest.mark.slow
def test_every_command_and_every_block_of_python_in_the_readme_runs_as_printed(checkout, search_path):
    chosen, left_out = [], []
    for block in blocks():
        if block.language == "python":
            chosen.append(("python", block.text))
        for command in block.commands if block.language == "sh" else ():
            (left_out if missing_tool(command) else chosen).append(("sh", command))
    run_in_one_shell(chosen, checkout, search_path)
    example = checkout / "example"
    assert (checkout / "runs" / "demo" / "report.html").is_file()
    assert (example / "runs" / "comparison" / "report.html").is_file()
    assert {"mymodel_int8.tflite", "mymodel_int8.json", "mymodel_uint8.tflite", "mymodel_onnx.onnx"} <= {
        path.name for path in example.iterdir()
    }
    if left_out:
        pytest.skip(f"not run, for lack of {missing_tool(left_out[0][1])}: {', '.join(c for _, c in left_out)}")


def test_every_edge_cv_command_in_the_readme_has_options_that_exist():
    import typer

    from edge_cv.cli.app import app

    group = typer.main.get_command(app)
    commands = [c for b in blocks() if b.language == "sh" for c in b.commands if c.startswith("edge-cv ")]
    assert len(commands) >= 20
    for command in commands:
        context, words, parsed = None, shlex.split(command)[1:], group
        while hasattr(parsed, "resolve_command"):
            context = parsed.make_context("edge-cv", words, parent=context)
            words = [*context._protected_args, *context.args]
            _, parsed, words = parsed.resolve_command(context, words)
        parsed.make_context(parsed.name, words, parent=context)  # an unknown option raises UsageError


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", ".github/workflows/ci.yml", ".ci/run"])
def test_every_make_target_in_the_documentation_and_in_ci_exists(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"(?:^ *|`|run: )make ([a-z-]+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "ARCHITECTURE.md"])
def test_every_link_to_a_file_or_a_heading_resolves(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif not link.startswith("http"):
            assert (ROOT / link.split("#")[0]).exists(), link
