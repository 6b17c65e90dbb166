"""Hooks of MkDocs: the pages that are made from the code when the site is built.

- `reference/cli.md`: every command with its arguments and options, from the command line's own parser.
- `reference/recipes.md`: the shipped recipes, from their docstrings.
- `security.md`: SECURITY.md.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
GROUPS = (
    ("Target devices", lambda text: "TargetDevice(" in text),
    ("ImageNet, trained as the papers did", lambda text: "--data IMAGENET" in text),
    ("Demonstrations and your own photos", lambda text: True),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code."""
    from mkdocs.structure.files import File

    for path, text in generated_pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def generated_pages() -> dict[str, str]:
    """The Markdown of each page that is made from the code, by its path in the site."""
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    return {"reference/cli.md": commands_page(), "reference/recipes.md": recipes_page(), "security.md": security}


def commands_page() -> str:
    """Every command of `edge-cv`, as its own parser describes it."""
    sys.path.insert(0, str(ROOT))
    import typer

    from edge_cv.cli.app import app

    parts = [
        "# Commands",
        "Results go to stdout, progress and logs to stderr. Exit codes: 0 done; 1 a limit of the run is exceeded, or a "
        "check failed; 2 bad input or usage, in one line; 130, 143 and 129 interrupted by Ctrl-C, SIGTERM and SIGHUP.",
    ]
    for name, command in leaves("edge-cv", typer.main.get_command(app)):
        parts += [f"## {name}", *command_parts(name, command)]
    return "\n\n".join(parts) + "\n"


def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """The commands of a group and of the groups in it, each with its full name."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, inner in sorted(command.commands.items()):
        yield from leaves(f"{name} {word}", inner)


def command_parts(name: str, command: Any) -> list[str]:
    """The description, the usage, the parameters and the example of one command."""
    context = command.context_class(command, info_name=name)
    records = [record for record in (p.get_help_record(context) for p in command.get_params(context)) if record]
    rows = [f"| {code(left)} | {cell(meaning)} |" for left, meaning in records]
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    table = "\n".join(["| argument or option | meaning |", "|---|---|", *rows])
    epilog, _, example = (command.epilog or "").partition("Example: ")
    shown = f"```text\n{example}\n```" if example else ""
    return [text for text in (cell(command.help), f"```text\n{usage}\n```", table, cell(epilog.strip()), shown) if text]


def code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def cell(text: str) -> str:
    """Text of a help message as Markdown: options as code, and no other markup than its own backticks."""
    parts = re.split(r"(`[^`]*`|(?<!\w)--[a-z][a-z-]*)", text)
    return "".join(
        re.sub(r"([|<\[\]*_])", r"\\\1", p) if i % 2 == 0 else code(p.strip("`")) for i, p in enumerate(parts)
    )


def recipes_page() -> str:
    """The shipped recipes in groups: their names and docstrings."""
    sources = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "recipes").glob("[a-z]*.py"))}
    parts = [
        "# Recipes",
        "Run a recipe by its name, `edge-cv run NAME`, or copy it, change it and run it by its path. "
        "[Write a recipe](../guide/recipes.md) explains the parts. The texts below are the recipes' own.",
    ]
    left = dict(sources)
    for title, belongs in GROUPS:
        parts.append(f"## {title}")
        for path in [path for path, text in left.items() if belongs(text)]:
            docstring = ast.get_docstring(ast.parse(left.pop(path))) or ""
            parts += [f"### {path.stem}", docstring]
    return "\n\n".join(parts) + "\n"
