"""The command on this machine and its installation: doctor."""

from __future__ import annotations

import dataclasses

import typer

from edge_cv.cli.exits import BROKEN, say
from edge_cv.cli.options import Json
from edge_cv.cli.tables import print_json, print_rows

commands = typer.Typer(rich_markup_mode=None)

DOT_PRODUCT = {
    True: "yes: int8 is fast",
    False: "no: int8 is hardly faster than float on this processor",
    None: "not known",
}


@commands.command(epilog="Example: edge-cv doctor")
def doctor(as_json: Json = False) -> int:
    """Show the processor, the installed versions, and what is missing for which command.

    The exit code is 1 if a package that every command needs is missing or has a version out of its bounds.
    """
    from edge_cv.evaluation import describe_environment
    from edge_cv.pipeline.doctor import EVERY_COMMAND, checks

    environment, found = describe_environment(), checks()
    broken = any(check.missing for check in found if check.purpose == EVERY_COMMAND)
    if as_json:
        print_json({"environment": environment, "checks": [dataclasses.asdict(check) for check in found]})
        return BROKEN if broken else 0
    memory = environment["memory_bytes"]
    say(f"processor: {environment['cpu']}, {environment['cores']} cores, {environment['machine']}")
    say(f"int8 dot product: {DOT_PRODUCT[environment['int8_dot_product']]}")
    say(f"memory: {'not known' if memory is None else f'{memory / 2**30:.1f} GiB'}")
    say(f"system: {environment['os']}, {environment['kernel']}, Python {environment['python']}")
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in environment["versions"].items())
    say(f"versions: {versions}\n")
    rows = [
        {
            "for": check.purpose,
            "missing": ", ".join(check.missing) or "nothing",
            "install with": check.install if check.missing else "",
        }
        for check in found
    ]
    print_rows(rows, as_json)
    return BROKEN if broken else 0
