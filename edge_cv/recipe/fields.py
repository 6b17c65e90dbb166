"""The base class of a recipe's parts: checked fields, deprecated field names, and `--set` replacement."""

from __future__ import annotations

import ast
import copy
import dataclasses
import functools
import re
import types
import typing
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

from converters.errors import InputError, unknown

LARGEST = 10**15  # of any number in a recipe
_NAMES = re.compile(r"[\w.-]+(,[\w.-]+)*")  # a list as one types it: float32,int8

PartT = TypeVar("PartT", bound="Part")


class Part:
    """A part of a recipe: a frozen dataclass whose values must have the annotated types.

    A list is accepted where a tuple is annotated.
    """

    renamed: ClassVar[dict[str, str]] = {}  # deprecated field name -> current name

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for part_field in dataclasses.fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, part_field.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, part_field.name, value)
            if not _has_type(value, hints[part_field.name]):
                expected = str(hints[part_field.name]).replace("<class '", "").replace("'>", "")
                raise InputError(f"{type(self).__name__}.{part_field.name} must be {expected}. Received: {value!r}")
            _check_values(f"{type(self).__name__}.{part_field.name}", value)
        self.check()

    def __getattr__(self, name: str) -> Any:
        # Called only for names that the instance does not have.
        if name not in type(self).renamed:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self, self._current_name(name, stacklevel=3))

    def check(self) -> None:
        """Raise InputError for invalid values or combinations of values."""

    def check_at_least(self, minimum: float, *names: str) -> None:
        """Raise InputError if a field, or an item of a tuple field, is below the minimum. None is allowed."""
        for name in names:
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and number < minimum:
                    raise InputError(f"{type(self).__name__}.{name} must be at least {minimum:g}. Received: {value!r}")

    def check_at_most(self, maximum: float, *names: str) -> None:
        """Raise InputError if a field, or an item of a tuple field, is above the maximum. None is allowed."""
        for name in names:
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and number > maximum:
                    raise InputError(f"{type(self).__name__}.{name} must be at most {maximum:,}. Received: {value!r}")

    def with_field(self: PartT, name: str, value: Any) -> PartT:
        """The part with one field replaced by a setting."""
        return dataclasses.replace(self, **{name: value})  # type: ignore[type-var]  # see __post_init__

    @classmethod
    def _current_name(cls, name: str, stacklevel: int) -> str:
        """The current name of a field; warns if the given name is deprecated."""
        if name not in cls.renamed:
            return name
        warn_renamed(f"{cls.__name__}.{name}", f"{cls.__name__}.{cls.renamed[name]}", stacklevel + 1)
        return cls.renamed[name]


def renamed_fields(**names: str) -> Callable[[type[PartT]], type[PartT]]:
    """Class decorator: the constructor also accepts deprecated field names, with a DeprecationWarning.

    Args:
        names: the current name for each deprecated name. If both are passed, the deprecated one wins, because
            `dataclasses.replace` always passes the current one too.
    """

    def decorate(part: type[PartT]) -> type[PartT]:
        initialize: Callable[..., None] = part.__init__

        @functools.wraps(initialize)
        def with_current_names(self: PartT, *args: Any, **kwargs: Any) -> None:
            for name in names:
                if name in kwargs:
                    kwargs[part._current_name(name, stacklevel=2)] = kwargs.pop(name)
            initialize(self, *args, **kwargs)

        part.renamed = names
        part.__init__ = with_current_names  # type: ignore[method-assign, assignment]  # the same signature and more names
        return part

    return decorate


def to_dict(value: Any) -> Any:
    """A part as a dict of JSON values, each renamed field also under its deprecated name."""
    if isinstance(value, Part):
        names = [part_field.name for part_field in dataclasses.fields(value)]  # type: ignore[arg-type]  # see __post_init__
        fields = {name: to_dict(getattr(value, name)) for name in names}
        return fields | {old: fields[new] for old, new in value.renamed.items()}
    if isinstance(value, tuple):
        return tuple(to_dict(item) for item in value)
    return copy.deepcopy(value)


def warn_renamed(old: str, new: str, stacklevel: int) -> None:
    """Warn that a name of `edge_cv.recipe` is deprecated."""
    warnings.warn(
        f"edge_cv.recipe: {old} is deprecated and will be removed; use {new}",
        DeprecationWarning,
        stacklevel=stacklevel + 1,
    )


def with_settings(part: PartT, settings: Iterable[str]) -> PartT:
    """A recipe, or a part of one, with fields replaced.

    Args:
        part: the recipe or part.
        settings: `FIELD=VALUE` each, such as `measure.runs=20` or `schemes=float32,int8`. A number in brackets
            selects one of several parts, counted from 0: `fit.phases[0].epochs=5`. `fit.phases=()` removes them all.

    Raises:
        InputError: there is no such field, or the field does not accept the value.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"a setting must be FIELD=VALUE, such as measure.runs=20. Received: {setting!r}")
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            value = text.strip()  # plain words need no quotes
        steps = re.sub(r"\[(\d+)\]", r".\1", path.strip()).split(".")  # phases[0] is the step phases and the step 0
        part = _replace(part, steps, value, setting)
    return part


def _replace(part: Any, path: list[str], value: Any, setting: str) -> Any:
    if isinstance(part, tuple) and part and isinstance(part[0], Part):
        return _replace_item(part, path, value, setting)
    if not isinstance(part, Part):
        raise InputError(f"a setting must lead to a field of the recipe. Received: {setting!r}")
    names = [part_field.name for part_field in dataclasses.fields(part)]  # type: ignore[arg-type]  # see __post_init__
    name = part._current_name(path[0], stacklevel=4)
    if name not in names:
        raise unknown(f"field of {type(part).__name__}", name, names)
    if path[1:]:
        value = _replace(getattr(part, name), path[1:], value, setting)
    elif isinstance(getattr(part, name), tuple) and not isinstance(value, tuple | list):
        value = value.split(",") if isinstance(value, str) and _NAMES.fullmatch(value) else (value,)
    return part.with_field(name, value)


def _replace_item(parts: tuple[Part, ...], path: list[str], value: Any, setting: str) -> tuple[Part, ...]:
    """The parts with a field of one of them replaced; the path begins with its index."""
    fields = ", ".join(part_field.name for part_field in dataclasses.fields(parts[0]))  # type: ignore[arg-type]
    if not path[0].isdigit() or int(path[0]) >= len(parts) or len(path) < 2:
        raise InputError(
            f"a setting of one of {len(parts)} parts must be NAME[INDEX].FIELD=VALUE with an index in "
            f"0..{len(parts) - 1} and a field of {type(parts[0]).__name__} ({fields}). Received: {setting!r}"
        )
    index = int(path[0])
    return (*parts[:index], _replace(parts[index], path[1:], value, setting), *parts[index + 1 :])


def _check_values(name: str, value: Any) -> None:
    """Raise InputError for text that no file or terminal can hold, and for numbers beyond any use."""
    if isinstance(value, str) and any(unicodedata.category(c) in ("Cc", "Cs") for c in value if c not in "\n\t"):
        raise InputError(f"{name} must be text without control characters. Received: {value!a:.80}")
    if isinstance(value, int | float) and not abs(value) <= LARGEST:
        raise InputError(f"{name} must be a number of at most {LARGEST:,}. Received: {value!r:.40}")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ():
        _check_values(name, item)


def _has_type(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_has_type(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_has_type(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
