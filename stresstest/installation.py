"""What `pip install` takes to get this copy of stresstest again, and what an extra of it needs.

No package index is asked: `stresstest` is another project there, and anybody can take a name that is free. How this
copy was installed stands beside it (direct_url.json, PEP 610).
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from stresstest.errors import ConfigError
from stresstest.json_text import parse_json

DISTRIBUTION = "train-stresstest"
_OF_ANOTHER_PROJECT = "stresstest"
_EXAMPLE = "'git+https://github.com/YOU/REPOSITORY@COMMIT'"
_MAY_STAND_IN_A_LINE = re.compile(r"[\w .~+\-:/@\[\],=<>!#&%]+")
_SCP_STYLE = re.compile(r"(?P<host>[\w.-]+@[\w.-]+):(?P<path>(?!//).+)")


class _UnknownOriginError(Exception):
    """Why nobody else can install what is installed here."""


def install_command(folder: Path, spec: str | None = None) -> str:
    """The line that installs stresstest in a CI job which runs in a checkout of `folder`.

    `spec` is what pip takes behind `install`; without one, the line says how this copy was installed: a repository
    and commit, an archive and its hash, or a path inside `folder`. Credentials are never part of it. What cannot be
    written is a `ConfigError`.
    """
    if spec is None:
        try:
            return _line(_spec_of_this_copy(folder.resolve()))
        except (_UnknownOriginError, ConfigError) as error:
            raise ConfigError(f"give --install SPEC, for example --install {_EXAMPLE}: {error}") from None
    try:
        _check_path(spec, folder.resolve())
        return _line(spec)
    except ConfigError as error:
        raise ConfigError(f"--install: {error}") from None


def install_hint(extra: str) -> str:
    """The command that installs what an extra needs, by the packages' own names."""
    needed = _requirements(extra)
    if not needed:
        return f"install the packages of its extra '{extra}'"
    return f"pip install {' '.join(shlex.quote(requirement) for requirement in needed)}"


def _check_path(spec: str, folder: Path) -> None:
    """Whether what is a path lies in what CI checks out."""
    for word in re.split(r"[\s=]", spec) if spec.startswith("-") else [spec]:
        is_path = word.startswith((".", "/", "~")) or "file:" in word
        place = Path(word.partition("file:")[2].removeprefix("//") or word).expanduser()
        if is_path and not (folder / place).resolve().is_relative_to(folder):
            raise ConfigError(
                f"{word} lies outside {folder}, which is all that a CI job has; give git+URL@COMMIT or ./PATH"
            )


def _line(spec: str) -> str:
    """`pip install SPEC`, quoted for a shell."""
    if re.search(r"https?://[^/\s]*@|://[^/\s@]*:[^/\s@]*@", spec):
        raise ConfigError("the URL holds credentials; leave them out and give them to CI as a secret")
    if "?" in spec:
        raise ConfigError("the URL has a query, which may hold a token; leave out ? and what follows")
    # Neither a shell, nor YAML, nor GitHub's ${{ }} may read anything else into it.
    if not spec.strip() or not _MAY_STAND_IN_A_LINE.fullmatch(spec) or re.search(r"\s#|:(\s|$)", spec):
        raise ConfigError(f"{spec!r} cannot stand in a workflow's line; give one requirement, path or git+URL@COMMIT")
    words = spec.split() if spec.strip().startswith("-") else [spec.strip()]
    if any(_name(word) == _OF_ANOTHER_PROJECT for word in words):
        raise ConfigError(f"'{_OF_ANOTHER_PROJECT}' is another project on the package index; give git+URL@COMMIT")
    return f"pip install {' '.join(shlex.quote(word) for word in words)}"


def _name(requirement: str) -> str:
    """The name that pip would look up on an index, as indexes compare names."""
    name = re.split(r"[\s\[=<>!~@]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def _spec_of_this_copy(folder: Path) -> str:
    source = _checkout()
    if source is not None:
        return _directory(source, folder)
    record = _direct_url()
    parts = urlsplit(str(record.get("url", "")))
    subdirectory = str(record.get("subdirectory", ""))
    if isinstance(vcs := record.get("vcs_info"), Mapping):
        commit = str(vcs.get("commit_id", ""))
        if not commit:
            raise _UnknownOriginError("the record of how this copy was installed names no commit")
        if parts.scheme == "file":
            return _pushed(Path(unquote(parts.path)), commit, subdirectory)
        return _repository(f"{vcs.get('vcs', 'git')}+", parts.geturl(), commit, subdirectory)
    if isinstance(archive := record.get("archive_info"), Mapping):
        if parts.scheme == "file":
            return _inside(Path(unquote(parts.path)), folder)
        return f"{DISTRIBUTION} @ {_public(parts.geturl())}{_fragment(_hash(archive), subdirectory)}"
    if parts.scheme == "file":
        return _directory(Path(unquote(parts.path)) / subdirectory, folder)
    raise _UnknownOriginError("how this copy was installed is not recorded")


def _checkout() -> Path | None:
    """The checkout that this module runs from: of an editable install, or of none."""
    root = Path(str(files("stresstest"))).resolve().parent
    return root if _project(root).get("name") == DISTRIBUTION else None


def _project(root: Path) -> dict[str, Any]:
    """The [project] table of a pyproject.toml; empty where there is none."""
    try:
        table: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError, RecursionError):
        return {}
    return table


def _direct_url() -> dict[str, Any]:
    try:
        text = distribution(DISTRIBUTION).read_text("direct_url.json")
    except PackageNotFoundError:
        raise _UnknownOriginError("this copy is not installed by pip") from None
    if text is None:
        raise _UnknownOriginError("this copy came from a package index, where its name may be another project's")
    try:
        record = parse_json(text)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise _UnknownOriginError("the record of how this copy was installed (direct_url.json) cannot be read")
    return record


def _directory(source: Path, folder: Path) -> str:
    """A path in the repository of `folder`, or else the repository and commit that the directory is a checkout of."""
    try:
        return _inside(source, folder)
    except _UnknownOriginError:
        pass
    subdirectory = _git(source, "rev-parse", "--show-prefix").rstrip("/")
    spec = _pushed(source, _git(source, "rev-parse", "HEAD"), subdirectory)
    if _git(source, "status", "--porcelain"):
        raise _UnknownOriginError(f"this copy comes from {source}, which has changes that are not committed")
    return spec


def _inside(source: Path, folder: Path) -> str:
    """A path relative to `folder`, where it is part of the same repository."""
    source = source.resolve()
    if not source.is_relative_to(folder):
        raise _UnknownOriginError(f"this copy comes from {source}, which a CI job does not have")
    if _is_left_out(source, folder):
        raise _UnknownOriginError(f"this copy comes from {source}, which is not part of the repository")
    return f"./{source.relative_to(folder).as_posix()}" if source != folder else "."


def _is_left_out(source: Path, folder: Path) -> bool:
    """Whether git ignores the path, or it belongs to another repository than `folder`."""
    if _repository_around(source if source.is_dir() else source.parent) != _repository_around(folder):
        return True
    try:
        return bool(_git(folder, "check-ignore", str(source)))
    except _UnknownOriginError:
        return False


def _repository_around(folder: Path) -> str | None:
    try:
        return _git(folder, "rev-parse", "--show-toplevel")
    except _UnknownOriginError:
        return None


def _pushed(source: Path, commit: str, subdirectory: str) -> str:
    """A commit of a local repository, by the URL of its remote, where the remote has it."""
    comes = f"this copy comes from {source}, "
    try:
        url = _git(source, "remote", "get-url", "origin")
    except _UnknownOriginError:
        raise _UnknownOriginError(f"{comes}which a CI job does not have, and it has no git remote 'origin'") from None
    if scp := _SCP_STYLE.fullmatch(url):
        url = f"ssh://{scp['host']}/{scp['path'].lstrip('/')}"
    if urlsplit(url).scheme not in ("https", "http", "ssh", "git"):
        raise _UnknownOriginError(f"{comes}whose git remote 'origin' is a local path")
    if not _git(source, "for-each-ref", "--contains", commit, "refs/remotes/origin"):
        raise _UnknownOriginError(f"{comes}whose commit {commit[:10]} is not pushed")
    return _repository("git+", url, commit, subdirectory)


def _repository(vcs: str, url: str, commit: str, subdirectory: str) -> str:
    return f"{DISTRIBUTION} @ {vcs}{_public(url)}@{commit}{_fragment('', subdirectory)}"


def _public(url: str) -> str:
    """A URL without password, token, query and fragment; ssh keeps its user."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    user = user.partition(":")[0]
    keeps_user = user and parts.scheme.rpartition("+")[2] == "ssh"
    return parts._replace(netloc=f"{user}@{host}" if keeps_user else host, query="", fragment="").geturl()


def _hash(archive: Mapping[str, Any]) -> str:
    """`sha256=...` of an archive, in the form of today or that of PEP 610's first version."""
    hashes = archive.get("hashes")
    if isinstance(hashes, Mapping) and hashes:
        name = "sha256" if "sha256" in hashes else next(iter(hashes))
        return f"{name}={hashes[name]}"
    return str(archive.get("hash", ""))


def _fragment(digest: str, subdirectory: str) -> str:
    parts = [digest, f"subdirectory={subdirectory}" if subdirectory else ""]
    return "#" * any(parts) + "&".join(part for part in parts if part)


def _requirements(extra: str) -> list[str]:
    """What an extra requires, as the installed copy says it, or the checkout where nothing is installed."""
    try:
        declared = distribution(DISTRIBUTION).requires or []
    except PackageNotFoundError:
        root = _checkout()
        listed = _project(root).get("optional-dependencies", {}) if root else {}
        return [str(requirement) for requirement in listed.get(extra, [])]
    split = [requirement.partition(";") for requirement in declared]
    wanted = re.compile(rf"extra\s*==\s*(['\"]){re.escape(extra)}\1")
    return [requirement.strip() for requirement, _, marker in split if wanted.search(marker)]


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        raise _UnknownOriginError(f"{folder} cannot be read with git") from None
    if done.returncode:
        raise _UnknownOriginError(f"this copy comes from {folder}, which a CI job does not have")
    return done.stdout.strip()
