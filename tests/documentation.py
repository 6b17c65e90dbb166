"""The pages of the documentation as the tests see them: their blocks, commands and links.

A block `sh` or `python` runs as printed. A block `python title="NAME"` is saved under this name. A block `console`
holds commands that need a device, a cluster, data or hours, which the tests do not have: they are parsed and not run.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ssh_server import SSHD

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OF_THE_REPOSITORY = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "ARCHITECTURE.md", "SECURITY.md")
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the name that it is saved under, if any, and its text."""

    language: str
    title: str | None
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block; a line that ends in a backslash includes the next."""
        return [line for line in self.text.replace("\\\n", "").splitlines() if line.strip()]


@cache
def generated() -> dict[str, str]:
    """The pages that are made from the code, by their path below `docs/`."""
    spec = importlib.util.spec_from_file_location("documentation_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks.generated_pages()


@cache
def site_pages() -> dict[str, str]:
    """The text of every page of the site, by its path below `docs/`."""
    written = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
    return written | generated()


def text_of(page: str) -> str:
    """The text of a page, named by its path in the repository."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    return [Block(*match.groups()) for match in _BLOCK.finditer(text_of(page))]


def written_pages() -> list[str]:
    """README.md and every written page of the site, by their paths in the repository."""
    return ["README.md", *(f"docs/{path.relative_to(DOCS)}" for path in sorted(DOCS.rglob("*.md")))]


def runnable_pages() -> list[str]:
    """The pages with a block that runs."""
    return [page for page in written_pages() if any(block.language in ("sh", "python") for block in blocks(page))]


def prose(page: str) -> str:
    """The text of a page without its blocks."""
    return _BLOCK.sub("", text_of(page))


def inline_code(page: str) -> list[str]:
    """The inline code of a page."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def anchors(text: str, *, of_github: bool) -> set[str]:
    """The anchors of a page's headings, as MkDocs or GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text), re.MULTILINE)
    slugs = {re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles}
    return {slug.replace(" ", "-") if of_github else re.sub(r"[-\s]+", "-", slug) for slug in slugs}


def missing_tool(command: str) -> str | None:
    """The tool that a command needs and this machine lacks."""
    if ("ssh://" in command or "pi.json" in command) and SSHD is None:
        return "sshd"
    if shlex.split(command, comments=True)[:2] == ["edge-cv", "web"] and shutil.which("npm") is None:
        return "npm"
    return None


def parse(command: str, *, partial: bool = False) -> None:
    """Parse a command by the command line's own parser, which raises an error of usage.

    Args:
        command: `edge-cv ...`, as text.
        partial: whether required arguments and values may be missing.
    """
    import typer
    from typer._click.exceptions import BadOptionUsage, MissingParameter

    from edge_cv.cli.app import app

    words = shlex.split(command.partition(" > ")[0])[1:]
    context: Any = None
    parsed: Any = typer.main.get_command(app)
    if words[-1] in ("--help", "--version"):
        words = words[:-1]
    while hasattr(parsed, "resolve_command") and words:
        context = parsed.make_context("edge-cv", words, parent=context)
        words = [*context._protected_args, *context.args]
        _, parsed, words = parsed.resolve_command(context, words)
    try:
        if not hasattr(parsed, "resolve_command"):
            parsed.make_context(parsed.name, words, parent=context)
    except (MissingParameter, BadOptionUsage):
        if not partial and "--help" not in command:
            raise


@cache
def all_options() -> frozenset[str]:
    """Every option of every command."""
    return frozenset(re.findall(r"(?<![\w-])--[a-z][a-z-]*", generated()["reference/cli.md"])) | {"--help", "--version"}
