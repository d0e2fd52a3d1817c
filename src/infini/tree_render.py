# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn a role's tree and its sidecar into what a host should look like: plain Jinja, no Ansible."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError, Undefined
from jinja2.runtime import Context
from jinja2.utils import missing

from hosting.tree_model import DIRECTORY, FILE, LINK, Entry, Notification, Request, TreeError, Validation, matches
from hosting.tree_read import digest

SUFFIX = ".j2"
KEYS = {"defaults", "files", "directories", "each", "owned", "absent", "validate", "notify"}
ATTRIBUTES = {"owner", "group", "mode", "secret", "notify", "when", "adopt"}
EACH = {"items", "as", "path"}


class LazyContext(Context):
    """Asks for a host's variable when a template first uses it: most are never needed, and each costs milliseconds."""

    def resolve_or_missing(self, key: str) -> Any:
        """Look among the template's own names first."""
        value = super().resolve_or_missing(key)
        if value is missing:
            return self.environment.globals["__host_variable"](key)  # type: ignore[operator]  # Jinja types globals as objects
        return value


def environment(
    variable: Callable[[str], Any], templates: tuple[Path, ...] = (), filters: Any = None, tests: Any = None
) -> Environment:
    """Return the one Jinja environment in which a tree is rendered; `variable` gives a host's variable or `missing`."""
    env = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, not HTML
        loader=FileSystemLoader([str(path) for path in templates]),
        cache_size=-1,
    )
    env.context_class = LazyContext
    env.globals["__host_variable"] = variable
    if filters is not None:
        env.filters = filters(env.filters)
    if tests is not None:
        env.tests = tests(env.tests)
    return env


@dataclass
class Picture:
    """What a host should look like: the request without contents, and the contents by path."""

    request: Request
    contents: dict[str, bytes]


@dataclass
class Item:
    """One file of the tree, or one of the many that a repeated template makes."""

    source: Path
    path: str  # on the host, without the leading slash
    local: dict[str, Any] = field(default_factory=dict)


class Renderer:
    """Renders one tree for one host."""

    def __init__(self, source: Path, env: Environment, name: str, read: Callable[[Path], tuple[bytes, bool]]) -> None:
        self.source = source
        self.env = env
        self.name = name
        self.read = read  # gives a file's content, and whether it was encrypted
        self._expressions: dict[str, Callable[..., Any]] = {}
        self._patterns: dict[str, Any] = {}

    @cached_property
    def sidecar(self) -> dict[str, Any]:
        """Return the sidecar as written, with unknown words refused."""
        path = self.source.with_suffix(".yml")
        if not path.exists():
            return {}
        try:
            sidecar: dict[str, Any] | None = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as problem:
            raise TreeError(f"{path} is not YAML: {problem}") from problem
        if sidecar is None:
            return {}
        _only(sidecar, KEYS, str(path))
        for part, known in (("files", ATTRIBUTES), ("directories", ATTRIBUTES | EACH), ("each", EACH)):
            for pattern, values in (sidecar.get(part) or {}).items():
                _only(values, known, f"{path}, {part}, {pattern}")
        _only(sidecar.get("defaults") or {}, ATTRIBUTES, f"{path}, defaults")
        for validation in sidecar.get("validate") or []:
            _only(validation, {"files", "command", "quarantine"}, f"{path}, validate")
        return sidecar

    def picture(self, *, left: tuple[str, ...] | None = None, **variables: tuple[str, ...] | str | bool) -> Picture:
        """Return what the host should look like; `variables` go into the request as they are.

        Where only what is `left` of before should go, no file is rendered.
        """
        entries: dict[str, Entry] = {}
        contents: dict[str, bytes] = {}
        notifications = [
            Notification(pattern, _names(handlers)) for pattern, handlers in self.part("notify", {}).items()
        ]
        for item in self.items() if left is None else ():
            attributes = self.attributes(item.path, item.local)
            if not _flag(attributes.get("when", True), f"when of {item.path}"):
                continue
            entry = self._write(item, attributes, contents)
            self._add(entries, entry)
            if attributes.get("notify"):
                notifications.append(Notification(item.path, _names(attributes["notify"])))
        for entry in self.directories():
            self._add(entries, entry)
        request = Request(
            name=self.name,
            entries=tuple(entries[path] for path in sorted(entries)),
            owned=self._paths("owned"),
            absent=self._paths("absent"),
            secrets=tuple(
                pattern for pattern, values in self.part("files", {}, raw=True).items() if values.get("secret")
            ),
            validations=tuple(
                Validation(
                    tuple(v["files"]),
                    tuple(str(word) for word in v["command"]),
                    _flag(v.get("quarantine", False), "quarantine of a validation"),
                )
                for v in self.part("validate", [])
            ),
            notifications=tuple(notifications),
            left=left,
            **variables,  # type: ignore[arg-type]  # checked against the spec before
        )
        return Picture(request, contents)

    def items(self) -> Iterator[Item]:
        """Yield every file of the tree, repeated ones once per item."""
        repeated = self.part("each", {}, raw=True)
        seen = set()
        for source in sorted(_walk(self.source)):
            relative = source.relative_to(self.source).as_posix()
            if relative not in repeated:
                yield Item(source, relative.removesuffix(SUFFIX) if not source.is_symlink() else relative)
                continue
            seen.add(relative)
            yield from self._repeat(source, relative, repeated[relative])
        if lost := set(repeated) - seen:
            raise TreeError(f"{self.source.with_suffix('.yml')} repeats {min(lost)}, which is not in {self.source}")

    def _repeat(self, source: Path, relative: str, spec: Mapping[str, Any]) -> Iterator[Item]:
        where = f"each {relative}"
        values = self.render(_need(spec, "items", where), {}, where)
        if isinstance(values, Mapping):
            values = [{"key": key, "value": value} for key, value in values.items()]
        if not isinstance(values, list | tuple):
            raise TreeError(f"{where}: items should be a list, not {type(values).__name__}")
        for value in values:
            local = {spec.get("as", "item"): value}
            yield Item(source, str(self.render(_need(spec, "path", where), local, where)).strip("/"), local)

    def directories(self) -> Iterator[Entry]:
        """Yield the directories that the sidecar names, repeated ones once per item."""
        for path, spec in (self.part("directories", {}, raw=True)).items():
            where = f"directories {path}"
            items = self.render(spec.get("items", [None]), {}, where)
            for item in items:
                local = {spec.get("as", "item"): item} if "items" in spec else {}
                base = {"mode": "0755", **{k: v for k, v in self.defaults().items() if k in ("owner", "group")}}
                rest = {key: value for key, value in spec.items() if key not in EACH}
                attributes = {**base, **self.render(rest, local, where)}
                if not _flag(attributes.get("when", True), f"when of {where}"):
                    continue
                target = str(self.render(spec.get("path", path), local, where))
                yield self._entry(target, DIRECTORY, "", attributes)

    def defaults(self) -> dict[str, Any]:
        """Return the attributes that hold when no pattern says otherwise."""
        return {"owner": "root", "group": "root", "mode": "0644", **self.part("defaults", {})}

    def attributes(self, path: str, local: dict[str, Any]) -> dict[str, Any]:
        """Return the attributes of a file: defaults, then every matching pattern in order."""
        found = dict(self.defaults())
        for pattern, values in self.part("files", {}, raw=True).items():
            if matches(path, pattern):
                found.update(self.render(values, local, f"files {pattern}"))
        return found

    def part(self, key: str, empty: Any, *, raw: bool = False) -> Any:
        """Return one part of the sidecar, rendered once."""
        if raw:
            return self.sidecar.get(key) or empty
        if key not in self._patterns:
            self._patterns[key] = self.render(self.sidecar.get(key) or empty, {}, key)
        return self._patterns[key]

    def render(self, value: Any, local: dict[str, Any], where: str) -> Any:
        """Render the Jinja in a value of the sidecar; a lone expression keeps its type."""
        if isinstance(value, dict):
            return {key: self.render(inner, local, where) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.render(inner, local, where) for inner in value]
        if not isinstance(value, str) or ("{{" not in value and "{%" not in value):
            return value
        try:
            result = self._expression(value)(**local)
        except (TemplateError, TypeError, ValueError) as problem:
            raise TreeError(f"{self.source.with_suffix('.yml')}, {where}: {_said(problem)}") from problem
        if isinstance(result, Undefined):
            message = result._undefined_message
            raise TreeError(f"{self.source.with_suffix('.yml')}, {where}: {message}")
        return result

    def _expression(self, value: str) -> Callable[..., Any]:
        if value not in self._expressions:
            inner = value.strip()
            if inner.startswith("{{") and inner.endswith("}}") and "{{" not in inner[2:] and "{%" not in inner:
                self._expressions[value] = self.env.compile_expression(inner[2:-2].strip(), undefined_to_none=False)
            else:
                self._expressions[value] = self.env.from_string(value).render
        return self._expressions[value]

    def _write(self, item: Item, attributes: dict[str, Any], contents: dict[str, bytes]) -> Entry:
        if item.source.is_symlink():
            return self._entry(item.path, LINK, str(item.source.readlink()), attributes)
        content, encrypted = self.read(item.source)
        if item.source.name.endswith(SUFFIX):
            content = self._template(item, content)
        if encrypted:
            attributes = {**attributes, "secret": True}
        entry = self._entry(item.path, FILE, digest(content), attributes)
        contents[entry.path] = content
        return entry

    def _template(self, item: Item, content: bytes) -> bytes:
        relative = item.source.relative_to(self.source).as_posix()
        source = content.decode("utf-8")
        try:
            if source not in self._expressions:
                self._expressions[source] = self.env.from_string(source).render
            managed = f"Written by infini from roles/{self.name}/tree/{relative}: change it there."
            return str(self._expressions[source](ansible_managed=managed, **item.local)).encode()
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as problem:
            raise TreeError(f"{item.source}: {_said(problem)}{_line(problem)}") from problem

    def _entry(self, path: str, kind: str, content: str, attributes: Mapping[str, Any]) -> Entry:
        mode = attributes["mode"]
        if not isinstance(mode, str) or not mode or set(mode) - set("01234567"):
            raise TreeError(
                f"the mode of {path} in {self.source.with_suffix('.yml')} should be octal in quotes, not {mode!r}"
            )
        return Entry(
            path=_absolute(path, str(self.source)),
            kind=kind,
            content=content,
            mode=int(mode, 8),
            owner=str(attributes["owner"]),
            group=str(attributes["group"]),
            secret=_flag(attributes.get("secret", False), f"secret of {path}"),
            adopt=_flag(attributes.get("adopt", False), f"adopt of {path}"),
        )

    def _add(self, entries: dict[str, Entry], entry: Entry) -> None:
        if entry.path in entries:
            raise TreeError(f"{self.source} gives {entry.path} twice: two items of one set have the same name")
        entries[entry.path] = entry

    def _paths(self, key: str) -> tuple[str, ...]:
        return tuple(_absolute(str(path), key) for path in self.part(key, []))


def _walk(directory: Path) -> Iterator[Path]:
    for where, directories, files in os.walk(directory):
        yield from (Path(where, name) for name in files)
        yield from (path for name in directories if (path := Path(where, name)).is_symlink())


def _absolute(path: str, where: str) -> str:
    clean = "/" + path.strip("/")
    if clean == "/" or "\0" in clean or os.path.normpath(clean) != clean:
        raise TreeError(f"{where}: {path!r} is not a plain path (no .., no //, not empty)")
    return clean


def _only(values: Any, known: set[str], where: str) -> None:
    if not isinstance(values, dict):
        raise TreeError(f"{where} should be a mapping with some of the keys {', '.join(sorted(known))}")
    if unknown := sorted(str(key) for key in set(values) - known):
        raise TreeError(f"{where}: unknown key {unknown[0]}; known are {', '.join(sorted(known))}")


def _need(spec: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in spec:
        raise TreeError(f"{where}: the key {key} is missing")
    return spec[key]


def _names(handlers: Any) -> tuple[str, ...]:
    return (handlers,) if isinstance(handlers, str) else tuple(handlers)


def _flag(value: Any, where: str) -> bool:
    words = {"true": True, "yes": True, "false": False, "no": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    if not isinstance(value, bool | int):
        raise TreeError(f"{where} should be true or false, not {value!r}")
    return bool(value)


def _said(problem: Exception) -> str:
    return str(problem) or type(problem).__name__


def _line(problem: Exception) -> str:
    if isinstance(problem, TemplateSyntaxError):
        return f" (line {problem.lineno})"
    trace, line = problem.__traceback__, 0
    while trace:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""
