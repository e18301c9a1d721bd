"""A folder of Jinja2 templates becomes a folder of files with the same tree (`.j2` is cut off).

A user's folder is looked up first: a template there replaces ours of the same name, and can start with
`{% extends "builtin/..." %}` to keep ours and replace named blocks only.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from modelrel import archive
from modelrel.errors import Invalid, did_you_mean


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


class _Own(jinja2.FileSystemLoader):
    """The templates in a user's folder; a link there does not lead out of it."""

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        found = super().get_source(environment, template)
        top = Path(self.searchpath[0]).resolve()
        if not Path(found[1]).resolve().is_relative_to(top):
            raise Invalid(f"the template {template} is a link out of its folder", "Replace the link by the file.")
        return found


class _Environment(SandboxedEnvironment):
    """Templates see values, not this machine: nothing private, and no method of a path (which could read files)."""

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        return not (isinstance(obj, PurePath) and callable(value)) and super().is_safe_attribute(obj, attr, value)


def page(kind: str, name: str, variables: Mapping[str, object]) -> str:
    """Return one page of HTML from `templates/KIND/NAME`, with every text escaped; raises as `render`."""
    return _text(_environment(kind, None, escaped=True), kind, name, variables)


def _environment(kind: str, user: Path | None, *, escaped: bool = False) -> jinja2.Environment:
    ours = templates_dir()
    loaders: list[jinja2.BaseLoader] = []
    if user is not None:
        # both DIR/docker/Dockerfile.j2 and DIR/Dockerfile.j2 are what people try
        loaders += [_Own(user / kind), _Own(user)]
    loaders += [
        jinja2.FileSystemLoader(ours / kind),
        jinja2.PrefixLoader({"builtin": jinja2.FileSystemLoader(ours)}),
    ]
    return _Environment(
        loader=jinja2.ChoiceLoader(loaders),
        undefined=jinja2.StrictUndefined,
        autoescape=escaped,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def strays(kind: str, user: Path | None) -> tuple[str, ...]:
    """Return a sentence for each of the user's templates that takes the place of none of ours: it may be a typo."""
    if user is None or not user.is_dir():
        return ()
    ours = set(names(templates_dir() / kind))
    kinds = sorted(path.name for path in templates_dir().iterdir() if path.is_dir())
    everywhere = {name for other in kinds for name in names(templates_dir() / other)}
    own = set(names(user / kind)) - ours if (user / kind).is_dir() else set()
    said = [
        f"the template {kind}/{name} is none of ours, and was rendered beside them{_near(name, ours)}" for name in own
    ]
    for path in user.iterdir():
        if path.is_dir() and path.name not in kinds and (near := _near(path.name, kinds)):
            said.append(f"the templates in {path.name}/ are for no target, and were not used{near}")
        if path.is_file() and path.suffix == ".j2" and path.name not in everywhere:
            said.append(f"the template {path.name} is none of {kind}, and is used only where another names it"
                        f"{_near(path.name, ours)}")  # fmt: skip
    return tuple(sorted(said))


def _near(name: str, known: Iterable[str]) -> str:
    near = did_you_mean(name, known).strip()
    return f" ({near[:1].lower()}{near[1:]})" if near else ""


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
            f"the template {kind}/{name} uses something that is not defined{_line(error)}: {error.message}",
            f"A template of {kind} knows these variables: {known}.",
        ) from error
    except jinja2.TemplateNotFound as error:
        raise Invalid(
            f"the template {kind}/{name} extends {error.name}, which does not exist{_line(error)}",
            f'Ours are reached as "builtin/{kind}/...".',
        ) from error
    except UnicodeDecodeError as error:
        raise Invalid(f"the template {kind}/{name} is not UTF-8", "Save it as UTF-8.") from error
    except (
        jinja2.TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise Invalid(
            f"the template {kind}/{name} does not render{_line(error)}: {' '.join(str(error).split())[:200]}",
            "Correct it, or leave out --templates to use ours.",
        ) from error


def _line(error: BaseException) -> str:
    """Return where in a template an error arose: ` (Dockerfile.j2, line 3)`."""
    # Jinja rewrites tracebacks: the frames of a template carry its own file and line
    frames = traceback.extract_tb(error.__traceback__)
    found = [frame for frame in frames if not frame.filename.endswith(".py") and frame.lineno]
    return f" ({Path(found[-1].filename).name}, line {found[-1].lineno})" if found else ""
