"""The two trees that are compared: the working tree, and a worktree of the merge-base."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stresstest.errors import ConfigError
from stresstest.user_code import meaning

_MOST_COMMITS = 5000  # that are looked at for their order
_MOST_VERSIONS = 100  # of a file that are read
_OURS = ".stresstest"  # what runs leave in a working tree is not part of its code


@dataclass(frozen=True)
class Tree:
    """Code at one state. `tree` names its content, whichever commit has it; `root` is where it is checked out."""

    commit: str
    tree: str
    dirty: bool
    root: Path

    @property
    def short(self) -> str:
        """The commit as people write it; + where there are changes on top."""
        return self.commit[:10] + "+" * self.dirty


def head_tree(folder: Path) -> Tree:
    """The working tree around a folder, with what is not committed; a `ConfigError` outside of a repository."""
    root = Path(_git(folder, "rev-parse", "--show-toplevel"))
    commit = _git(root, "rev-parse", "HEAD")
    dirty = bool(_git(root, "status", "--porcelain", "--", ".", f":(exclude,glob)**/{_OURS}/**"))
    tree = _working_tree(root) if dirty else _git(root, "rev-parse", "HEAD^{tree}")
    return Tree(commit, tree, dirty, root.resolve())


def _working_tree(root: Path) -> str:
    """The tree that a commit of everything would have; neither the index nor the repository's objects change."""
    objects = _git(root, "rev-parse", "--path-format=absolute", "--git-path", "objects")
    with tempfile.TemporaryDirectory() as scratch:
        env = {
            "GIT_INDEX_FILE": str(Path(scratch, "index")),
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects,
        }
        _git(root, "read-tree", "HEAD", env=env)
        _git(root, "add", "-A", "--", ".", f":(exclude,glob)**/{_OURS}/**", env=env)
        return _git(root, "write-tree", env=env)


def merge_base(head: Tree, ref: str) -> str:
    """The commit at which HEAD left `ref`; a `ConfigError` where there is none."""
    try:
        _git(head.root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    except ConfigError:
        raise ConfigError(
            f"--base: commit {ref} not found; fetch it (in GitHub's checkout action: fetch-depth: 0)"
        ) from None
    try:
        return _git(head.root, "merge-base", "HEAD", ref)
    except ConfigError:
        raise ConfigError(
            f"--base: HEAD and {ref} share no commit here; fetch the whole history (fetch-depth: 0)"
        ) from None


@contextlib.contextmanager
def worktree(head: Tree, commit: str) -> Iterator[Tree]:
    """A checkout of a commit, for as long as this lasts; those that a killed check left are removed."""
    _git(head.root, "worktree", "prune")
    scratch = Path(tempfile.mkdtemp(prefix="stresstest-base-")).resolve()
    path = scratch / head.root.name
    try:
        _git(head.root, "worktree", "add", "--detach", "--force", str(path), commit)
        yield Tree(commit, _git(head.root, "rev-parse", f"{commit}^{{tree}}"), False, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        _git(head.root, "worktree", "prune")


def same_but_for_comments(head: Tree, base: Tree) -> bool:
    """Whether two trees differ in nothing but the comments and the layout of Python files."""
    return all(
        path.suffix == ".py"
        and all((tree.root / path).is_file() for tree in (head, base))
        and meaning(head.root / path) == meaning(base.root / path)
        for path in _changed(head, base)
    )


def _changed(head: Tree, base: Tree) -> list[Path]:
    """Files that are not the same on both sides, or on one alone, but for those that git ignores."""
    tracked = _git(head.root, "diff", "--name-only", "--no-renames", "-z", base.commit, "--").split("\0")
    new = _git(head.root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    paths = [Path(name) for name in {*tracked, *new} if name]
    return [path for path in paths if _OURS not in path.parts]


def commits_of(folder: Path) -> dict[str, str]:
    """Subjects by the first ten digits of the commit, the oldest first; none outside of a repository."""
    try:
        said = _git(folder, "log", "--all", "--topo-order", f"--max-count={_MOST_COMMITS}", "--format=%H %s")
    except ConfigError:
        return {}
    lines = [line.partition(" ") for line in reversed(said.splitlines())]
    return {commit[:10]: subject for commit, _, subject in lines}


def versions_of(folder: Path, path: str) -> list[str]:
    """The texts that the files below a path have had in the commits of HEAD, the oldest first; the last so many."""
    try:
        said = _git(folder, "log", "--topo-order", "--raw", "--no-abbrev", "--format=", "--", path)
    except ConfigError:
        return []
    blobs = [line.split()[3] for line in said.splitlines() if line.startswith(":")]
    written = [blob for blob in blobs if set(blob) != {"0"}]
    return [_git(folder, "cat-file", "blob", blob) for blob in reversed(written[:_MOST_VERSIONS])]


def _git(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise ConfigError("--base needs git, which is not installed; install it, or use --baseline") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it failed"])[-1]
        raise ConfigError(f"git {words[0]}: {said}")
    return done.stdout.strip()
