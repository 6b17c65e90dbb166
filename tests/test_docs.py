"""README.md and the documentation site: every command and every block of Python runs as printed, every link resolves.

README.md and docs/index.md run in a fresh copy of the repository, with this environment as its `.venv`. All other pages
start where docs/index.md ends: in a fresh copy of its folder `example`. Each page has a new shell.
"""

from __future__ import annotations

import ast
import fcntl
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documentation import (
    OF_THE_REPOSITORY,
    ROOT,
    Block,
    all_options,
    anchors,
    blocks,
    generated,
    inline_code,
    missing_tool,
    parse,
    runnable_pages,
    site_pages,
    text_of,
    written_pages,
)
from ssh_server import SSHD, Server

TIMEOUT_SECONDS = 900
START = "docs/index.md"
IN_THE_REPOSITORY = ("README.md", START)
ALONE = "docs/concepts/"  # these pages need no files
MAX_README_LINES = 120
# What people search for, and the page that must be found.
PAINS = {
    "slower than float": "faq.html",
    "dynamic range": "faq.html",
    "teachable machine": "faq.html",
    "nnapi": "faq.html",
    "builtin opcode": "faq.html",
    "per-channel": "faq.html",
    "select_tf_ops": "faq.html",
    "flex delegate": "faq.html",
    "accuracy drops": "faq.html",
    "batch normalization": "faq.html",
    "normalization": "faq.html",
    "uint8": "faq.html",
    "float fallback": "faq.html",
    "representative dataset": "faq.html",
    "lambda": "faq.html",
    "tfmot": "faq.html",
    "onnx from keras 3": "faq.html",
    "dynamic batch": "faq.html",
    "pruning changes neither size": "faq.html",
    "mediapipe refuses the metadata": "faq.html",
    "different results": "faq.html",
    "int16x8": "faq.html",
    "zero points": "faq.html",
}


KEPT = (  # of the environment of the tests: with more threads than cores, they would wait for each other
    *("HOME", "LANG", "XDG_CACHE_HOME", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"),
    *("OPENBLAS_NUM_THREADS", "RAY_worker_niceness"),
)


def run_as_printed(page: str, folder: Path, *, activated: bool, repository: Path = ROOT) -> list[str]:
    """Run a page's blocks in one new bash, in order; the first failure fails the test.

    Args:
        page: its path in the repository.
        folder: where the shell starts.
        activated: whether the environment is activated before; the page does it itself otherwise.
        repository: the code that runs.

    Returns:
        The commands that were left out for lack of a tool.
    """
    script = [f"source {shlex.quote(sys.prefix)}/bin/activate"] if activated else []
    left_out: list[str] = []
    for number, block in enumerate(blocks(page)):
        script += block_lines(block, folder.parent / f"block_{number}.py", left_out)
    own = str(Path(sys.prefix, "bin"))
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != own)
    server = None
    if SSHD is not None and "ssh://" in text_of(page):  # `ssh raspberrypi` reaches this machine
        (folder.parent / "ssh").mkdir()
        server = Server(folder.parent / "ssh", path=f"{own}:{path}")
        path = f"{folder.parent / 'ssh' / 'bin'}:{path}"
    before = processor_seconds()
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    try:
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-c", "\n".join(script)],
            cwd=folder,
            env=kept | {"PATH": path, "PYTHONPATH": str(repository), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
    finally:
        if server is not None:
            server.stop()
    print(*re.findall(r"^\d+ s: .*$", done.stderr, re.MULTILINE), sep="\n")
    print(f"{page}: {processor_seconds() - before:.0f} s of processor time")
    assert done.returncode == 0, f"{page}: {done.stderr[-3000:]}"
    return left_out


def processor_seconds() -> float:
    """The processor time of all processes that this one has waited for, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def block_lines(block: Block, file: Path, left_out: list[str]) -> list[str]:
    """The lines of the shell's script that run a block; a failed command ends the script."""
    if block.language == "python" and block.title is not None:
        return [f"cat > {shlex.quote(block.title)} <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK"]
    commands = block.commands if block.language == "sh" else []
    if block.language == "python":
        file.write_text(block.text, encoding="utf-8")
        commands = [f"python {shlex.quote(str(file))}"]
    lines = []
    for command in commands:
        if missing_tool(command):
            left_out.append(command)
            continue
        lines += ["SECONDS=0", command, f"code=$?; echo $SECONDS s: {shlex.quote(command)} >&2"]
        lines += [f"[ $code = 0 ] || {{ echo exit code $code: {shlex.quote(command)} >&2; exit 1; }}"]
    return lines


def copy_of_the_repository(folder: Path) -> Path:
    """A copy of the tracked files, in which `make setup` finds an environment that is ready."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("the tests do not run in a git checkout")
    if not Path(sys.prefix, "bin", "activate").is_file() or not Path(sys.prefix, ".ready").is_file():
        pytest.skip(f"{sys.prefix} was not made by `make setup`")
    copy = folder / "edge_cv"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    for name in ("setup.cfg", "pyproject.toml"):
        os.utime(copy / name, (0, 0))  # older than .venv/.ready
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


@pytest.fixture(scope="session")
def example(tmp_path_factory) -> Path:
    """The folder `example` that docs/index.md makes; once for all workers of a parallel run."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = shared / "start"
    with (shared / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            copy = copy_of_the_repository(folder)
            run_as_printed(START, copy, activated=False, repository=copy)
            (folder / "done").touch()
    return folder / "edge_cv" / "example"


@pytest.mark.slow
def test_the_readme_runs_as_printed(tmp_path):
    copy = copy_of_the_repository(tmp_path)
    run_as_printed("README.md", copy, activated=False, repository=copy)
    assert (copy / "runs" / "demo" / "report.html").is_file()


@pytest.mark.slow
def test_the_first_page_runs_as_printed_and_leaves_the_files_of_the_others(example):
    files = {str(path.relative_to(example)) for path in example.rglob("*") if path.is_file()}
    converted = {
        f"converted/mymodel_{scheme}.{suffix}" for scheme in ("float32", "int8") for suffix in ("tflite", "json")
    }
    assert files >= {"mymodel.keras", "labels.txt", "photos.csv", "photos/goose/0.jpg"} | converted


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in runnable_pages() if page not in IN_THE_REPOSITORY and not page.startswith(ALONE)]
)
def test_a_page_runs_as_printed(page, example, tmp_path):
    folder = tmp_path / "example"
    shutil.copytree(example, folder)
    left_out = run_as_printed(page, folder, activated=True)
    if left_out:
        pytest.skip(f"not run, for lack of {missing_tool(left_out[0])}: {', '.join(left_out)}")


@pytest.mark.parametrize("page", [page for page in runnable_pages() if page.startswith(ALONE)])
def test_a_page_about_a_concept_runs_as_printed(page, tmp_path):
    (tmp_path / "empty").mkdir()
    run_as_printed(page, tmp_path / "empty", activated=True)


@pytest.mark.parametrize("page", written_pages())
def test_every_command_on_a_page_has_options_that_exist(page):
    for block in blocks(page):
        for command in block.commands if block.language in ("sh", "console") else ():
            if command.startswith("edge-cv "):
                parse(command)
    for code in inline_code(page):
        if code.startswith("edge-cv "):
            parse(code, partial=True)
        elif code.startswith("--"):
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)) <= all_options(), code


@pytest.mark.parametrize("page", written_pages())
def test_every_block_of_a_page_has_a_known_language(page):
    known = {"sh", "python", "console", "text", "yaml"}
    fences = re.findall(r"^ *```(.*)$", text_of(page), re.MULTILINE)
    assert {fence.split(" ")[0] for fence in fences[::2]} <= known
    assert not any(fences[1::2])
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text)
        if block.language == "console":
            assert all(command.startswith("edge-cv ") for command in block.commands)


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= MAX_README_LINES


def test_every_page_of_the_site_is_in_its_navigation():
    yaml = pytest.importorskip("yaml")

    def paths(entry) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        inner = entry.values() if isinstance(entry, dict) else entry
        return [path for part in inner for path in paths(part)]

    listed = paths(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert len(listed) == len(set(listed))
    assert set(listed) == set(site_pages())


@pytest.mark.parametrize("page", [*OF_THE_REPOSITORY, *(f"docs/{path}" for path in site_pages())])
def test_every_link_to_a_file_or_a_heading_resolves(page):
    path = page.removeprefix("docs/")
    text = generated().get(path) if page.startswith("docs/") else None
    text = text_of(page) if text is None else text
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = (folder / file).resolve() if file else ROOT / page
        in_site = str(target.relative_to(ROOT / "docs")) if target.is_relative_to(ROOT / "docs") else None
        if in_site in site_pages():
            content = site_pages()[in_site]
        else:
            assert target.exists(), link
            assert in_site is not None or not page.startswith("docs/"), f"{link} is outside the site"
            content = target.read_text(encoding="utf-8") if anchor else ""
        assert not anchor or anchor in anchors(content, of_github=in_site is None), link


@pytest.mark.parametrize("page", ["README.md", START, "CONTRIBUTING.md", ".github/workflows/ci.yml", ".ci/run"])
def test_every_make_target_in_the_documentation_and_in_ci_exists(page):
    makefile = text_of("Makefile")
    targets = re.findall(r"(?:^ *|`|run: )make ([a-z-]+)", text_of(page), re.MULTILINE)
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_generated_pages_hold_every_command_and_every_recipe():
    commands, recipes = generated()["reference/cli.md"], generated()["reference/recipes.md"]
    for command in ("edge-cv convert", "edge-cv data prepare", "edge-cv compile"):
        assert f"\n## {command}\n" in commands
    assert "`--calibration" in commands
    names = {path.stem for path in (ROOT / "recipes").glob("[a-z]*.py")}
    assert names == set(re.findall(r"^### (\w+)$", recipes, re.MULTILINE))


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_its_search_finds_what_people_ask(tmp_path):
    pytest.importorskip("mkdocs", reason="pip install 'edge-cv[docs]'")
    pytest.importorskip("mkdocstrings", reason="pip install 'edge-cv[docs]'")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    import json

    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    for words, page in PAINS.items():
        found = {
            entry["location"].split("#")[0] for entry in index if words in f"{entry['title']} {entry['text']}".lower()
        }
        assert page in found, words
