"""Configs: pydantic models that report all errors at once as one UmieError, each with the path of its key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError

from umie.errors import UmieError, UnknownNameError, check_keys, shown


class ConfigError(UmieError):
    """All errors of a config.

    Args:
        errors: one line per error, with the path of the key.
        place: the file, if there is one.
    """

    def __init__(self, errors: Iterable[str], place: str = "") -> None:
        self.errors = list(dict.fromkeys(errors))
        before = f"{place}: " if place else ""
        if len(self.errors) == 1:
            super().__init__(before + self.errors[0])
        else:
            super().__init__(f"{before}{len(self.errors)} errors:\n" + "\n".join(f"  {line}" for line in self.errors))


def errors_of(error: UmieError) -> list[str]:
    """Return the lines of an error, which may be several for a ConfigError."""
    return list(error.errors) if isinstance(error, ConfigError) else [str(error)]


def errors_in(check: Callable[..., object], *arguments: Any) -> list[str]:
    """Call a check; return the errors that it raises, so that several checks are reported at once."""
    try:
        check(*arguments)
    except UmieError as error:
        return errors_of(error)
    return []


class Config(BaseModel):
    """A frozen config without extra keys; invalid values raise ConfigError, which is a UmieError."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise config_error(type(self), error) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined] # keeps the paths of nested errors


def config_error(model: type[BaseModel], error: ValidationError) -> ConfigError:
    """Convert pydantic's errors to one ConfigError."""
    lines: list[str] = []
    for item in error.errors():
        path = ".".join(str(part) for part in _keys(model, item["loc"]))
        cause = item.get("ctx", {}).get("error")
        if item["type"] == "extra_forbidden":
            *before, key = (str(part) for part in item["loc"])
            owner = _model_at(model, before)
            prefix = f"{'.'.join(before)}: " if before else ""
            lines.append(prefix + str(UnknownNameError("key", key, owner.model_fields if owner else ())))
        elif isinstance(cause, UmieError):
            lines += [_at(path, line) for line in errors_of(cause)]
        elif item["type"] == "missing":
            lines.append(f"{path} is missing")
        else:
            message = (
                str(item["msg"])
                .removeprefix("Input ")
                .removeprefix("Value error, ")
                .replace("valid tuple", "valid list")
            )
            if item["type"] in ("model_type", "dict_type"):
                message = "expected a mapping of names to values"
            lines.append(f"{path} is {shown(item['input'])}: {message}")
    return ConfigError(lines)


def _at(path: str, line: str) -> str:
    """Prefix an error line with the path of its key, unless the line already starts with it."""
    before, _, key = path.rpartition(".")
    if line.startswith(f"{key} is "):
        return f"{before}.{line}" if before else line
    return f"{path}: {line}" if path else line


def _keys(model: type[BaseModel], loc: Iterable[int | str]) -> list[int | str]:
    """Return the keys of a location, without the names that pydantic inserts for the members of a union."""
    keys: list[int | str] = []
    for part in loc:
        if isinstance(part, str) and keys and _model_at(model, map(str, keys)) is None and part in _UNION_MEMBERS:
            continue
        keys.append(part)
    return keys


_UNION_MEMBERS = ("bool", "str", "int", "float", "dict[str,any]", "constrained-int", "constrained-float")


def _model_at(model: type[BaseModel], path: Iterable[str]) -> type[BaseModel] | None:
    """Return the model of the value at a path of keys, or None."""
    found: Any = model
    for key in path:
        field = found.model_fields.get(key) if isinstance(found, type) and issubclass(found, BaseModel) else None
        if field is None:
            return None
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        found = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def as_mapping(kind: str, value: Any) -> dict[str, Any]:
    """Return the value if it is a mapping with string keys; otherwise raise UmieError."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UmieError(f"{kind} is {shown(value)}: expected a mapping of names to values")
    return value


def as_list(value: Any) -> list[Any]:
    """Return a list unchanged, None as an empty list, and any other value as a list of one."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def one_of(kind: str, choices: Iterable[str]) -> Any:
    """Return the annotation of a field that must be one of some choices."""
    names = tuple(choices)

    def check(value: str) -> str:
        check_keys(kind, [value], names)
        return value

    return Annotated[str, AfterValidator(check)]


def _mapping(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


Natural = Annotated[int, Strict(), Field(ge=0)]
Positive = Annotated[int, Strict(), Field(ge=1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
PositiveNumber = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Strict(), Field(ge=0, lt=1)]
Flag = Annotated[bool, Strict()]
Options = Annotated[dict[str, Any], BeforeValidator(_mapping)]
