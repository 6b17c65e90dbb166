"""Recipe files: the user's own, by path, and those of the project, also by name."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from converters.errors import InputError, unknown
from edge_cv.recipe.recipe import Recipe


def load(recipe: str | Path) -> Recipe:
    """Load a recipe file. The file is run as Python.

    Args:
        recipe: the path of a Python file that defines `RECIPE`, or the name of a recipe of the project, such as `demo`.

    Raises:
        InputError: there is no such file, it raises an error, or it does not define `RECIPE`.
    """
    path = _path(recipe)
    import_path = list(sys.path)
    try:
        value = runpy.run_path(str(path), run_name="edge_cv_recipe").get("RECIPE")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the file may raise anything
        raise InputError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    finally:
        sys.path[:] = import_path
    if not isinstance(value, Recipe):
        raise InputError(f"{path} must define RECIPE, a Recipe. Received: {type(value).__name__}")
    return value


def shipped() -> dict[str, Path]:
    """The paths of the project's recipes by their names, which are those of the files."""
    package = Path(__file__).resolve().parents[1]
    installed, checkout = package / "recipes", package.parent / "recipes"
    folder = installed if installed.is_dir() else checkout
    return {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}


def device_recipes() -> list[tuple[Path, Recipe]]:
    """The project's recipes for a target device, with their paths, sorted by name."""
    recipes = ((path, load(path)) for path in shipped().values())
    return [(path, recipe) for path, recipe in recipes if recipe.device is not None]


def _path(recipe: str | Path) -> Path:
    path = Path(recipe)
    if str(recipe) in shipped() and not path.is_file():
        return shipped()[str(recipe)]
    if not path.suffix and len(path.parts) == 1 and not path.exists():
        raise unknown("recipe (neither a file nor a name)", str(recipe), list(shipped()))
    if not path.is_file():
        raise InputError(f"the recipe must be a file that exists. Received: {path}")
    if path.suffix != ".py":
        raise InputError(f"the recipe must be a Python file that ends in RECIPE = Recipe(...). Received: {path}")
    return path
