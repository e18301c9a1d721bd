"""A folder of Jinja2 templates becomes a folder of files with the same tree (`.j2` is cut off).

A user's folder is looked up first: a template there replaces ours of the same name, and can start with
`{% extends "builtin/..." %}` to keep ours and replace named blocks only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import jinja2

from modelrel import archive
from modelrel.errors import Invalid


def templates_dir() -> Path:
    """Return the folder that holds our templates: inside the installed package, else the source tree."""
    here = Path(__file__).resolve().parent
    # In a wheel they sit in the package; an editable install or a clone has them beside it.
    beside = here.parent / "templates"
    inside = here / "templates"
    return beside if (here.parent / "pyproject.toml").is_file() and beside.is_dir() else inside


def names(top: Path) -> Iterator[str]:
    """Yield the names of all templates below `top`, relative, with `/`, sorted."""
    for path in archive.walk(top):
        if "__pycache__" not in path.parts:
            yield path.relative_to(top).as_posix()


def _environment(kind: str, user: Path | None) -> jinja2.Environment:
    ours = templates_dir()
    loaders: list[jinja2.BaseLoader] = []
    if user is not None:
        # both DIR/docker/Dockerfile.j2 and DIR/Dockerfile.j2 are what people try
        loaders += [jinja2.FileSystemLoader(user / kind), jinja2.FileSystemLoader(user)]
    loaders += [
        jinja2.FileSystemLoader(ours / kind),
        jinja2.PrefixLoader({"builtin": jinja2.FileSystemLoader(ours)}),
    ]
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # Dockerfiles, YAML and Python, never HTML
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(kind: str, into: Path, variables: Mapping[str, object], user: Path | None = None) -> list[Path]:
    """Render all templates of `templates/KIND/` (and those only the user has) into the folder `into`.

    Returns the files written. Raises `Invalid` for a template that is not valid or uses an undefined
    variable, naming template and line.
    """
    if user is not None and not user.is_dir():
        raise Invalid(f"the template folder {user} does not exist", "Check --templates.")
    wanted = set(names(templates_dir() / kind))
    if user is not None and (user / kind).is_dir():
        wanted |= set(names(user / kind))
    environment = _environment(kind, user)
    written = []
    for name in sorted(wanted):
        target = archive.within(into, name.removesuffix(".j2"))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_text(environment, kind, name, variables), encoding="utf-8", newline="\n")
        target.chmod(0o644)
        written.append(target)
    return written


def _text(environment: jinja2.Environment, kind: str, name: str, variables: Mapping[str, object]) -> str:
    try:
        if not name.endswith(".j2"):
            return environment.loader.get_source(environment, name)[0]  # type: ignore[union-attr]
        return environment.get_template(name).render(variables)
    except jinja2.TemplateSyntaxError as error:
        raise Invalid(
            f"the template {kind}/{error.name or name} is not valid at line {error.lineno}: {error.message}",
            "Correct it, or leave out --templates to use ours.",
        ) from error
    except jinja2.UndefinedError as error:
        known = ", ".join(sorted(variables))
        raise Invalid(
            f"the template {kind}/{name} uses something that is not defined: {error.message}",
            f"A template of {kind} knows these variables: {known}.",
        ) from error
    except jinja2.TemplateNotFound as error:
        raise Invalid(
            f"the template {kind}/{name} extends {error.name}, which does not exist",
            f'Ours are reached as "builtin/{kind}/...".',
        ) from error
    except UnicodeDecodeError as error:
        raise Invalid(f"the template {kind}/{name} is not UTF-8", "Save it as UTF-8.") from error
