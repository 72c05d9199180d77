"""What a runbook names exists: links, anchors, commands with their options, files, names.

Commands are given to the parsers that will read them at night; shell is read by `bash -n`; names
of Google's resources are looked up in the kept plan of the production estate.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from alerts.nearest import did_you_mean
from alerts.policies import CATALOG
from alerts.policy import Catalog
from speakfit.metrics import METRICS
from speakfit.runbook import Block, Language, Runbook, read_runbook
from speakfit.settings import Settings
from speakfit_ops.runbook.gcloud import COMMANDS
from speakfit_ops.runbook.shelf import FOLDER, ROOT

if TYPE_CHECKING:
    from markdown_it.token import Token

SHELL_PAGE = "shell"
"""The page that says how a shell gets the variables that blocks take from it."""

_SHELL_OWN = frozenset({"PATH", "HOME", "PWD", "USER"})
_FOREIGN = frozenset(
    {
        *("DEADLINE_EXCEEDED", "FAILING_OVER", "INVALID_ARGUMENT", "NOT_FOUND"),
        *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "ZONE_RESOURCE_POOL_EXHAUSTED"),
    }
)
"""Words in capitals that Google says, and no settings."""

_ASSIGNED = re.compile(r"(?m)(?:^|[\s;(])([A-Z][A-Z0-9_]*)=|\bread -\w+ ([A-Z][A-Z0-9_]*)")
_VARIABLE = re.compile(r"\$\{?([A-Z][A-Z0-9_]*)(:\?)?")
_CAPITALS = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_POLICY = re.compile(r"\b[a-z]+(?:-[a-z]+)*-(?:warning|critical)\b")
_METRIC = re.compile(r"(?<![\w.])speakfit\.[a-z_]+(?:\.[a-z_]+)*")
_FILE = re.compile(
    r"(?<![\w/.-])(?:alerts|dashboards|docs|docker|loadtest|platform|runbooks|scripts|services"
    r"|terraform|tests)/[\w./-]*\w"
)
_RESOURCE = re.compile(r"speakfit-prod(?:-[a-z0-9]+)*")
_MAKE = re.compile(r"\bmake ([a-z-]+)")
_PYTHON = re.compile(r"\bpython -m ([\w.]+)([^\n]*)")
_GCLOUD = re.compile(r"\bgcloud ([^\n]*)")
_PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*")
_HAND_MADE = frozenset({"speakfit-prod", "speakfit-prod-hop"})
"""The project, and the machine that a page lets people make when no worker runs."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that a page names and that does not exist."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"

    def to_json(self) -> dict[str, str]:
        """For machines."""
        return {"where": self.where, "text": self.text}


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A fence or a span of code, and where it is; `language` is empty for a span."""

    language: str
    text: str
    line: int
    block: Block | None = None


def findings(page: Runbook, catalog: Catalog) -> list[Finding]:
    """All that is wrong with a page, in its order."""
    tokens = _tokens(page.text)
    pieces = _pieces(tokens, page)
    found: list[tuple[int, str]] = list(_links(tokens))
    outer = _assigned(page)
    for piece in pieces:
        joined = re.sub(r"\\\n\s*", " ", piece.text)
        shell = piece.language in ("bash", "sh") or not piece.language
        texts = [*_names(joined, catalog)]
        if shell:
            texts += _commands(joined)
        if piece.language in ("bash", "sh"):
            texts += [*_syntax(piece.text), *_variables(piece, outer)]
        elif not piece.language:
            texts += _settings(piece.text, outer)
        found += [(piece.line, text) for text in texts]
    where = f"runbooks/{page.id}.md"
    return [Finding(where=f"{where}:{line}", text=text) for line, text in sorted(found)]


def _tokens(text: str) -> list[Token]:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table").parse(text)


def _pieces(tokens: list[Token], page: Runbook) -> list[_Piece]:
    typed = {block.line: block for block in page.blocks}
    pieces = []
    for token in tokens:
        line = token.map[0] + 1 if token.map else 0
        if token.type == "fence":
            language = (token.info.split() or ["text"])[0]
            block = typed.get(line)
            pieces.append(_Piece(language=language, text=token.content, line=line, block=block))
        pieces += [
            _Piece(language="", text=child.content, line=line)
            for child in token.children or ()
            if child.type == "code_inline"
        ]
    return pieces


def _links(tokens: list[Token]) -> Iterator[tuple[int, str]]:
    for token in tokens:
        for child in token.children or ():
            if child.type == "link_open":
                trouble = _dead(str(child.attrGet("href")))
                if trouble:
                    yield (token.map or [-1])[0] + 1, trouble


def _dead(target: str) -> str:
    if "://" in target:
        return "" if target.startswith("https://") else f"{target} is no https address."
    name, _, fragment = target.partition("#")
    file = FOLDER / name if name else None
    if file is not None and not file.is_file():
        return f"The link {target} leads nowhere."
    if fragment and file is not None and fragment not in read_runbook(file).anchors:
        known = read_runbook(file).anchors
        return f"{name} has no heading {fragment}. {did_you_mean(fragment, known, otherwise='')}"
    return ""


def _syntax(text: str) -> Iterator[str]:
    done = subprocess.run(
        ["bash", "-n"], input=text, capture_output=True, text=True, check=False, timeout=10
    )
    if done.returncode:
        yield done.stderr.strip().splitlines()[0]


def _assigned(page: Runbook) -> frozenset[str]:
    """What a shell holds that was prepared as the page of the shell and this one say."""
    texts = [page.text]
    if (FOLDER / f"{SHELL_PAGE}.md").is_file():
        texts.append((FOLDER / f"{SHELL_PAGE}.md").read_text(encoding="utf-8"))
    names = {one for text in texts for pair in _ASSIGNED.findall(text) for one in pair if one}
    named = names | _shell_variables() | _channel_secrets()
    return frozenset(named) | _SHELL_OWN | {name.upper() for name in Settings.model_fields}


@cache
def _shell_variables() -> frozenset[str]:
    text = (FOLDER / f"{SHELL_PAGE}.md").read_text(encoding="utf-8")
    return frozenset(re.findall(r"(?m)^- `([A-Z][A-Z0-9_]*)`", text))


def _channel_secrets() -> set[str]:
    """The variables that the catalog's channels take their secrets from."""
    return {channel.secret for channel in CATALOG.channels if channel.secret}


def _variables(piece: _Piece, outer: frozenset[str]) -> Iterator[str]:
    """A typed block runs alone: what it uses is its own, asked for, or of the prepared shell."""
    own = {one for pair in _ASSIGNED.findall(piece.text) for one in pair if one}
    known = own | _shell_variables() | _SHELL_OWN if piece.block else outer
    uses = _VARIABLE.findall(piece.text)
    known |= {name for name, asked in uses if asked}
    for name in dict.fromkeys(name for name, _ in uses):
        if name not in known:
            near = did_you_mean(name, known, otherwise=f"{SHELL_PAGE}.md names those there are.")
            yield f"Nothing sets ${name}. {near}"


def _settings(text: str, outer: frozenset[str]) -> Iterator[str]:
    name = text.partition("=")[0]
    if _CAPITALS.fullmatch(name) and name not in outer | _FOREIGN:
        yield f"There is no setting {name}. {did_you_mean(name, outer, otherwise='')}"


def _names(text: str, catalog: Catalog) -> Iterator[str]:
    policies = {policy.id for policy in catalog.policies}
    for name in _POLICY.findall(text):
        if name not in policies:
            yield f"There is no policy {name}. {did_you_mean(name, policies, otherwise='')}"
    metrics = {metric.name for metric in METRICS}
    for name in _METRIC.findall(text):
        if name not in metrics and not _is_module(name):
            yield f"There is no metric {name}. {did_you_mean(name, metrics, otherwise='')}"
    for name in _FILE.findall(text):
        if not (ROOT / name).exists():
            yield f"There is no file {name}."
    for name in _RESOURCE.findall(text):
        if not _in_estate(name):
            yield f"The production estate has no {name}."
    for name in _MAKE.findall(text):
        if name not in _make_targets():
            yield f"The Makefile has no target {name}."


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@cache
def _make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8")))


@cache
def _estate_names() -> frozenset[str]:
    plan = (ROOT / "terraform" / "plans" / "production.yaml").read_text(encoding="utf-8")
    return frozenset(_RESOURCE.findall(plan)) - _HAND_MADE


def _in_estate(name: str) -> bool:
    """A name of the plan, or what Google makes of one: a machine, a revision, a template."""
    return name in _HAND_MADE or any(
        name == one or name.startswith(f"{one}-") for one in _estate_names()
    )


def _commands(text: str) -> Iterator[str]:
    for module, rest in _PYTHON.findall(text):
        if module.split(".")[0] in {"alerts", "dashboards", "loadtest", "services", "speakfit",
                                    "speakfit_ops"}:  # fmt: skip
            trouble = parse_command(module, words(rest))
            if trouble:
                yield f"`python -m {module}{rest.rstrip()}`: {trouble}"
    for rest in _GCLOUD.findall(text):
        trouble = parse_gcloud(words(rest))
        if trouble:
            yield f"`gcloud {rest.rstrip()}`: {trouble}"


def words(text: str) -> list[str]:
    """The arguments of a command up to what ends it; a value only the shell knows is `1`."""
    reader = shlex.shlex(re.sub(r"\$\{?\w+(:\?[^}]*)?\}?", "1", text), posix=True,
                         punctuation_chars=True)  # fmt: skip
    reader.whitespace_split = True
    found: list[str] = []
    try:
        for word in reader:
            if set(word) <= set("();<>|&"):
                break
            # A word in capitals stands for what a person puts there; help is no use of a command.
            if word != "--help":
                found.append("1" if _PLACEHOLDER.fullmatch(word) else word)
    except ValueError:
        # A quote that was opened before the command closes behind it.
        pass
    return found


def parse_command(module: str, arguments: list[str]) -> str:
    """What the command's own parser says against the arguments; empty when it takes them."""
    if not _is_module(module):
        return "there is no such module."
    if module == "speakfit.database":
        return "" if arguments in (["upgrade"], ["current"]) else "it takes upgrade or current."
    command = _click_command(module)
    if command is None:
        return "its options cannot be looked up."
    try:
        if not arguments:
            return ""
        context = command.make_context(module, list(arguments))
        while hasattr(context.command, "commands"):
            rest = [*getattr(context, "_protected_args", ()), *context.args]
            if not rest:
                return ""
            name, command, rest = context.command.resolve_command(context, rest)
            if command is None:
                return f"it has no command {name}."
            if hasattr(command, "commands") and not rest:
                return ""
            context = command.make_context(name, rest, parent=context)
    except Exception as error:
        # Typer brings a parser of its own, whose errors have no public name.
        if hasattr(error, "format_message"):
            return str(error.format_message())
        raise
    return ""


@cache
def _click_command(module: str) -> Any:
    import typer

    names = (f"{module}.cli", f"{module}.__main__", module)
    for name in names:
        if _is_module(name):
            app = getattr(importlib.import_module(name), "app", None)
            if isinstance(app, typer.Typer):
                return typer.main.get_command(app)
    return None


def parse_gcloud(arguments: list[str]) -> str:
    """Whether gcloud has the command and its options, as far as our table of both goes."""
    path: list[str] = []
    while arguments and re.fullmatch(r"[a-z][a-z-]*", arguments[0]):
        path.append(arguments[0])
        if " ".join(path) in COMMANDS:
            options = COMMANDS[" ".join(path)]
            for word in arguments[1:]:
                if word == "--":
                    return ""
                option = word.partition("=")[0]
                if word.startswith("--") and option not in options:
                    near = did_you_mean(option, options, otherwise="")
                    return f"no option {option} is known. {near}"
            return ""
        arguments = arguments[1:]
    return f"the command {' '.join(path)} is not in platform/speakfit_ops/runbook/gcloud.py."


def untyped(page: Runbook) -> list[int]:
    """The lines of fences in shell or SQL that nobody can run, because they have no type."""
    typed = {block.line for block in page.blocks}
    return [
        piece.line
        for piece in _pieces(_tokens(page.text), page)
        if piece.language in {*Language} and piece.line not in typed
    ]
