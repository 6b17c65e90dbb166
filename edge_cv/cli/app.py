"""The command `edge-cv`. Results go to stdout, progress and logs to stderr.

Exit codes: 0 success; 1 a limit of the run is exceeded, or a check failed; 2 bad input or usage; 130, 143 and 129
interrupted by Ctrl-C, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import atexit
import os
import sys
import warnings
from typing import Annotated, Any

import typer

from converters.errors import CheckFailed, InputError, UnknownLayer, UnsafeCode, WeightsAlone
from edge_cv.cli import compiling, data, machine, measuring, models, runs, zoo
from edge_cv.cli.exits import BAD_INPUT, BROKEN, BROKEN_PIPE, INTERRUPTED, fail
from edge_cv.cli.interruption import end_at_a_signal, interruption
from edge_cv.cli.surroundings import check_backend, close_streams, log_to_stderr, open_streams
from edge_cv.cli.unused_imports import skip_unused_imports

OPTIONS = {  # that make an input usable, by the error
    UnknownLayer: "--import FILE.py",
    UnsafeCode: "--unsafe",
    WeightsAlone: "--architecture NAME",
}

app = typer.Typer(
    name="edge-cv",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Image classifiers for phones and boards: quantized, exported, and compared with their float model.",
    epilog="Example: edge-cv run demo --out runs/demo",
)
for module in (runs, models, compiling, zoo, measuring, machine):
    app.add_typer(module.commands)
app.add_typer(data.commands, name="data")


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        print(f"edge-cv {version('edge-cv')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of `edge-cv` itself."""


def program() -> None:
    """The program `edge-cv`: `main` in a process of its own, which ends as soon as its exit handlers have run.

    The interpreter would first take the modules of TensorFlow apart, for 1 to 2 seconds.
    """
    code: object = BROKEN  # of an error that is not the user's

    def end() -> None:
        close_streams()
        os._exit(code if isinstance(code, int) else 0)

    atexit.register(end)  # the first handler runs last
    skip_unused_imports()
    try:
        main()
    except SystemExit as stopped:
        code = stopped.code
        end_at_a_signal(end)
        raise


def main() -> None:
    """Run a command; print an error of the user in one line."""
    open_streams()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["MPLBACKEND"] = "agg"  # plots are files, whatever the user's own programs draw on
    log_to_stderr()
    warnings.filterwarnings("default", message="edge_cv", category=DeprecationWarning)  # of recipes and --set
    with interruption() as interrupted:
        try:
            check_backend()
            code = app(standalone_mode=False)
        except BaseException as error:
            # A library may turn the interruption into an error of its own, of any kind.
            code = _reported(error) if interrupted.number is None else INTERRUPTED
        if code == INTERRUPTED:  # typer itself turns Ctrl-C into this code
            close_streams()
            interrupted.end()
    close_streams()
    sys.exit(code if isinstance(code, int) else 0)


def _reported(error: BaseException) -> int:
    """Print an error of the user in one line; returns the exit code. Other errors are raised again."""
    from typer.exceptions import TyperException

    if isinstance(error, InputError):
        option = OPTIONS.get(type(error))
        return fail(error if option is None else f"{error}  (edge-cv convert {option})", BAD_INPUT)
    if isinstance(error, CheckFailed):
        return fail(error, BROKEN)
    if isinstance(error, TyperException):
        return fail(f"{error.format_message()}  ({_command_of(error)} --help)", BAD_INPUT)
    if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has what it wants
        return BROKEN_PIPE
    if isinstance(error, OSError):
        return fail(error, BAD_INPUT)
    if isinstance(error, MemoryError):
        return fail(f"memory ran out: {error or 'a smaller model, image or batch needs less'}", BAD_INPUT)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return INTERRUPTED
    raise error


def _command_of(error: Any) -> str:
    """The command whose arguments are wrong, such as `edge-cv data check`."""
    context, names = getattr(error, "ctx", None), []
    while context is not None and context.parent is not None:
        names.append(context.info_name)
        context = context.parent
    return " ".join(["edge-cv", *reversed(names)])


if __name__ == "__main__":
    program()
