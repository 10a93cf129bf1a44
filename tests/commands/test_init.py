"""`stresstest init`: what it writes runs, overwrites nothing, and installs nothing but this project."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stresstest import installation
from stresstest.cli.commands import cli
from stresstest.cli.main import run
from stresstest.errors import ConfigError
from stresstest.installation import install_command, install_hint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "ab" * 32
SPEC = f"git+https://example.org/you/fork@{COMMIT}"
WORKFLOWS = {"github": ".github/workflows/stresstest.yml", "gitlab": "stresstest.gitlab-ci.yml"}
TINY = "--depth 1 --width 16 --batch-size 2 --seeds 1 --num-steps 20 --hold-steps 20 --no-theory -q -j 1".split()
METADATA = """Metadata-Version: 2.4
Name: train-stresstest
Version: 0.1.0
Requires-Dist: torch>=2.7
Provides-Extra: hf
Requires-Dist: transformers>=5; extra == 'hf'
Provides-Extra: postgres
Requires-Dist: psycopg[binary]>=3.2; python_version >= "3.11" and extra == "postgres"
"""
Install = Callable[[dict[str, Any] | str | None], None]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, and no settings from outside."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    for name in [name for name in os.environ if name.startswith("STRESSTEST_")]:
        monkeypatch.delenv(name)
    return tmp_path / "project"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make this copy look as if it was installed as a direct_url.json says; `None` is from an index."""

    def install(record: dict[str, Any] | str | None) -> None:
        folder = tmp_path / "site" / "train_stresstest-0.1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(METADATA)
        if record is not None:
            (folder / "direct_url.json").write_text(record if isinstance(record, str) else json.dumps(record))
        monkeypatch.syspath_prepend(str(folder.parent))
        monkeypatch.setattr(installation, "_checkout", lambda: None)

    return install


def git(folder: Path, *words: str) -> str:
    author = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    done = subprocess.run(["git", *author, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def checkout(folder: Path, remote: str | None) -> str:
    """A git checkout with one commit, which is pushed where there is a remote; returns the commit."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text("[project]\nname = 'train-stresstest'\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    commit = git(folder, "rev-parse", "HEAD")
    if remote is not None:
        git(folder, "remote", "add", "origin", remote)
        git(folder, "update-ref", "refs/remotes/origin/main", commit)
    return commit


def install_lines(ci: str) -> list[str]:
    """The lines of a workflow that call pip, as a YAML reader gives them to the shell."""
    workflow = yaml.safe_load(Path(WORKFLOWS[ci]).read_text())
    if ci == "gitlab":
        lines = workflow["stresstest"]["script"]
    else:
        lines = [step.get("run", "") for step in workflow["jobs"]["stability"]["steps"]]
    return [line for line in lines if line.startswith("pip ")]


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command printed on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


def git_record(url: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "vcs_info": {"vcs": "git", "commit_id": COMMIT, "requested_revision": "main"}, **more}


FROM_A_REPOSITORY = {
    "https": (git_record("https://example.org/you/fork.git"), f"git+https://example.org/you/fork.git@{COMMIT}"),
    "a user and a token": (
        git_record("https://user:SECRET@example.org:8443/you/fork"),
        f"git+https://example.org:8443/you/fork@{COMMIT}",
    ),
    "a token alone": (git_record("https://SECRET@example.org/fork"), f"git+https://example.org/fork@{COMMIT}"),
    "a variable": (git_record("https://${SECRET}@example.org/fork"), f"git+https://example.org/fork@{COMMIT}"),
    "a token in the query": (
        git_record("https://example.org/fork?private_token=SECRET#x=SECRET"),
        f"git+https://example.org/fork@{COMMIT}",
    ),
    "ssh": (git_record("ssh://git@example.org:22/fork.git"), f"git+ssh://git@example.org:22/fork.git@{COMMIT}"),
    "ssh with a password": (
        git_record("ssh://git:SECRET@example.org/fork.git"),
        f"git+ssh://git@example.org/fork.git@{COMMIT}",
    ),
    "a subdirectory": (
        git_record("https://example.org/mono", subdirectory="tools/stresstest"),
        f"git+https://example.org/mono@{COMMIT}#subdirectory=tools/stresstest",
    ),
    "an archive": (
        {"url": "https://u:SECRET@example.org/s.whl?sig=SECRET", "archive_info": {"hashes": {"sha256": DIGEST}}},
        f"https://example.org/s.whl#sha256={DIGEST}",
    ),
    "an archive in the older form": (
        {"url": "https://example.org/s.tar.gz", "archive_info": {"hash": f"sha256={DIGEST}"}, "subdirectory": "sub"},
        f"https://example.org/s.tar.gz#sha256={DIGEST}&subdirectory=sub",
    ),
}


@pytest.mark.parametrize("ci", WORKFLOWS)
@pytest.mark.parametrize("case", FROM_A_REPOSITORY)
def test_a_workflow_installs_what_is_installed_here_without_its_secrets(
    ci: str, case: str, installed: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    record, source = FROM_A_REPOSITORY[case]
    installed(record)
    assert run(["init", "--ci", ci]) == 0
    torch, stresstest = install_lines(ci)
    assert torch.startswith("pip install torch --index-url https://download.pytorch.org/whl/cpu")
    assert shlex.split(stresstest) == ["pip", "install", f"train-stresstest @ {source}"]
    out, err = capsys.readouterr()
    assert "SECRET" not in Path(WORKFLOWS[ci]).read_text() + out + err
    assert source in out


UNKNOWN: dict[str, tuple[dict[str, Any] | str | None, str]] = {
    "an index": (None, "came from a package index, where its name may be another project's"),
    "a broken record": ("{", "cannot be read"),
    "a record of another form": ("[]", "cannot be read"),
    "a record that says nothing": ({"url": "https://example.org/x"}, "is not recorded"),
    "no commit": ({"url": "https://example.org/x", "vcs_info": {"vcs": "git"}}, "names no commit"),
    "a folder that is gone": ({"url": "file:///nowhere/stresstest", "dir_info": {}}, "cannot be read with git"),
    "a wheel elsewhere": ({"url": "file:///nowhere/s.whl", "archive_info": {}}, "which a CI job does not have"),
    "a URL that would break out of the line": (git_record("https://example.org/a';id;'"), "cannot stand in"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_where_that_is_not_known_it_asks_for_a_source_and_writes_nothing(
    case: str, installed: Install, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, why = UNKNOWN[case]
    installed(record)
    assert run(["init", "--ci", "github"]) == 2
    line = complaint(capsys)
    assert line.startswith("stresstest: give --install SPEC, for example --install 'git+https://")
    assert why in line
    assert not list(project.iterdir())
    assert run(["init", "--ci", "github", "--install", SPEC]) == 0
    assert install_lines("github")[1] == f"pip install {SPEC}"


@pytest.mark.parametrize("editable", [True, False])
def test_a_directory_in_the_repository_is_installed_by_its_path(
    editable: bool, installed: Install, project: Path
) -> None:
    git(project, "init", "-q")
    (project / "third party" / "stresstest").mkdir(parents=True)
    url = (project / "third party" / "stresstest").as_uri()
    installed({"url": url, "dir_info": {"editable": editable}})
    assert install_command(project) == "pip install './third party/stresstest'"


def test_a_wheel_in_the_repository_is_installed_by_its_path(installed: Install, project: Path) -> None:
    (project / "train_stresstest-0.1.0-py3-none-any.whl").touch()
    installed({"url": (project / "train_stresstest-0.1.0-py3-none-any.whl").as_uri(), "archive_info": {}})
    assert install_command(project) == "pip install ./train_stresstest-0.1.0-py3-none-any.whl"


def test_in_its_own_checkout_it_is_installed_from_there(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.setattr(installation, "_checkout", lambda: project)
    assert install_command(project) == "pip install ."


def test_a_directory_that_git_ignores_is_not_in_the_repository(installed: Install, project: Path) -> None:
    git(project, "init", "-q")
    (project / ".gitignore").write_text(".venv/\n")
    (project / ".venv" / "src").mkdir(parents=True)
    installed({"url": (project / ".venv" / "src").as_uri(), "dir_info": {"editable": True}})
    with pytest.raises(ConfigError, match="give --install SPEC"):
        install_command(project)


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://user:SECRET@example.org/you/fork.git", "https://example.org/you/fork.git"),
        ("git@example.org:you/fork.git", "ssh://git@example.org/you/fork.git"),
        ("ssh://git@example.org/you/fork.git", "ssh://git@example.org/you/fork.git"),
    ],
)
@pytest.mark.parametrize(("inside", "in_git"), [(True, True), (True, False), (False, True)])
def test_a_clean_checkout_of_its_own_is_installed_by_its_remote_and_commit(
    remote: str, url: str, inside: bool, in_git: bool, installed: Install, project: Path
) -> None:
    if in_git:
        git(project, "init", "-q")
    source = (project if inside else project.parent) / "clone"
    commit = checkout(source, remote)
    installed({"url": source.as_uri(), "dir_info": {"editable": True}})
    assert shlex.split(install_command(project)) == ["pip", "install", f"train-stresstest @ git+{url}@{commit}"]


def test_a_checkout_that_nobody_else_can_have_is_refused_with_the_reason(installed: Install, project: Path) -> None:
    source = project.parent / "clone"
    checkout(source, None)
    installed({"url": source.as_uri(), "dir_info": {}})
    with pytest.raises(ConfigError, match="it has no git remote 'origin'"):
        install_command(project)
    git(source, "remote", "add", "origin", str(project.parent / "bare"))
    with pytest.raises(ConfigError, match="whose git remote 'origin' is a local path"):
        install_command(project)
    git(source, "remote", "set-url", "origin", "https://example.org/fork")
    with pytest.raises(ConfigError, match="is not pushed"):
        install_command(project)
    git(source, "update-ref", "refs/remotes/origin/main", "HEAD")
    (source / "pyproject.toml").write_text("# changed\n")
    with pytest.raises(ConfigError, match="changes that are not committed"):
        install_command(project)


def test_a_repository_on_this_machine_is_installed_by_its_remote(installed: Install, project: Path) -> None:
    commit = checkout(project.parent / "clone", "https://example.org/fork")
    record = git_record((project.parent / "clone").as_uri(), subdirectory="sub")
    record["vcs_info"]["commit_id"] = commit
    installed(record)
    spec = f"train-stresstest @ git+https://example.org/fork@{commit}#subdirectory=sub"
    assert shlex.split(install_command(project)) == ["pip", "install", spec]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (SPEC, [SPEC]),
        (f"train-stresstest @ {SPEC}", [f"train-stresstest @ {SPEC}"]),
        ("./tools/stresstest[hf]", ["./tools/stresstest[hf]"]),
        ("git+ssh://git@example.org/fork@main", ["git+ssh://git@example.org/fork@main"]),
        ("train-stresstest>=0.1,<1", ["train-stresstest>=0.1,<1"]),
        ("-e ./stresstest", ["-e", "./stresstest"]),
        (
            "--index-url https://packages.example.org/simple train-stresstest==0.1.0",
            ["--index-url", "https://packages.example.org/simple", "train-stresstest==0.1.0"],
        ),
    ],
)
@pytest.mark.parametrize("ci", WORKFLOWS)
def test_a_source_that_is_given_is_written_as_given(ci: str, spec: str, words: list[str]) -> None:
    assert run(["init", "--ci", ci, "--install", spec]) == 0
    assert shlex.split(install_lines(ci)[1]) == ["pip", "install", *words]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("", "cannot stand in a workflow's line"),
        ("git+https://token@example.org/fork@main", "holds credentials"),
        ("git+https://user:token@example.org/fork", "holds credentials"),
        ("git+ssh://git:token@example.org/fork", "holds credentials"),
        ("--index-url https://user:token@example.org/simple x", "holds credentials"),
        ("https://example.org/s.whl?token=1", "which may hold a token"),
        ("./x\nrm -rf .", "cannot stand in a workflow's line"),
        ("./x'; id; '", "cannot stand in a workflow's line"),
        ("./x${{ secrets.TOKEN }}", "cannot stand in a workflow's line"),
        ("$(id)", "cannot stand in a workflow's line"),
        ("`id`", "cannot stand in a workflow's line"),
        ("x && id | sh", "cannot stand in a workflow's line"),
        ("./x #", "cannot stand in a workflow's line"),
        ("./x:", "cannot stand in a workflow's line"),
        ("stresstest", "another project on the package index"),
        ("StressTest[hf]==0.1", "another project on the package index"),
        ("stresstest >= 1", "another project on the package index"),
        ("--pre stresstest", "another project on the package index"),
    ],
)
def test_a_source_that_is_unsafe_or_another_project_is_refused(
    spec: str, why: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", "--ci", "gitlab", "--install", spec]) == 2
    line = complaint(capsys)
    assert line.startswith("stresstest: --install: ")
    assert why in line
    assert not list(project.iterdir())


def test_a_source_without_a_workflow_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--install", SPEC]) == 2
    assert "give --ci github or --ci gitlab" in complaint(capsys)


def test_a_hint_names_the_packages_of_an_extra_and_never_the_index_name(installed: Install) -> None:
    installed(None)
    assert install_hint("hf") == "pip install 'transformers>=5'"
    assert install_hint("postgres") == "pip install 'psycopg[binary]>=3.2'"
    assert install_hint("nothing") == "install the packages of its extra 'nothing'"


def test_a_hint_in_a_checkout_where_nothing_is_installed_reads_its_pyproject(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installation, "DISTRIBUTION", "no-such-distribution")
    monkeypatch.setattr(installation, "_checkout", lambda: tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project.optional-dependencies]\nhf = ['transformers>=5', 'tokenizers']")
    assert install_hint("hf") == "pip install 'transformers>=5' tokenizers"


@pytest.mark.parametrize(
    ("module", "words", "hint"),
    [
        ("transformers", "--model hf:gpt2", "needs transformers; pip install"),
        ("sacrebleu", "--model encoder-decoder", "needs sacrebleu, for BLEU; pip install 'sacrebleu>=2.4'"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_installs_it(
    module: str, words: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert run(["lr-range", *words.split(), "--dry-run"]) == 2
    assert hint in complaint(capsys)


def test_init_writes_a_model_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "new"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "  cd new && stresstest lr-range --model model.py:build --variant pre-ln,post-ln"
    os.chdir("new")
    assert len(Path("model.py").read_text().splitlines()) <= 30
    assert run(["validate", "stresstest.yaml"]) == 0
    assert run([*line.partition("stresstest ")[2].split(), *TINY]) == 0
    shutil.rmtree(".stresstest")


@pytest.mark.parametrize("words", [["init"], ["init", "--ci", "github"], ["init", "--ci", "gitlab"]])
def test_the_same_command_again_changes_nothing(
    words: list[str], installed: Install, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(git_record("https://example.org/fork"))
    assert run(words) == 0
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in project.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run(words) == 2
    assert "were left as they are" in complaint(capsys)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in project.rglob("*") if path.is_file()}
    assert before == after


def test_each_later_init_writes_what_is_missing_and_names_what_it_kept(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("model.py").write_text(mine := "# mine\n")
    assert run(["init"]) == 0
    assert capsys.readouterr().out.startswith("kept model.py as before\nwrote stresstest.yaml; next:")
    assert run(["init", "--ci", "github", "--install", SPEC]) == 0
    out = capsys.readouterr().out
    assert out.startswith("kept model.py as before\n")
    assert "wrote gate.yaml, .github/workflows/stresstest.yml; next:" in out
    Path("gate.yaml").write_text(mine)
    assert run(["init", "--ci", "gitlab", "--install", SPEC]) == 0
    out = capsys.readouterr().out
    assert out.startswith("kept model.py, gate.yaml as before\n")
    assert "wrote stresstest.gitlab-ci.yml; next:" in out
    assert Path("model.py").read_text() == Path("gate.yaml").read_text() == mine


def test_a_link_that_leads_nowhere_is_not_written_through(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.py").symlink_to(project.parent / "elsewhere.py")
    assert run(["init"]) == 2
    assert "cannot be written (File exists)" in complaint(capsys)
    assert not (project.parent / "elsewhere.py").exists()


def test_the_workflow_is_kept_where_it_is_there_and_its_source_is_not_asked_for(
    installed: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(None)
    assert run(["init", "--ci", "gitlab", "--install", SPEC]) == 0
    Path("gate.yaml").unlink()
    assert run(["init", "--ci", "gitlab"]) == 0
    assert "kept model.py, stresstest.gitlab-ci.yml as before" in capsys.readouterr().out
    assert install_lines("gitlab")[1] == f"pip install {SPEC}"


@pytest.mark.parametrize("ci", WORKFLOWS)
def test_the_workflow_calls_the_gate_that_is_written_beside_it(ci: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--ci", ci, "--install", SPEC]) == 0
    text = Path(WORKFLOWS[ci]).read_text()
    (line,) = [line for line in text.splitlines() if "stresstest check" in line]
    _, name, *args = shlex.split(line[line.index("stresstest check") :])
    assert cli.commands[name].make_context(name, args).params["base"] in ("origin/$BASE", "FETCH_HEAD")
    assert run(["validate", "gate.yaml"]) == 0
    assert "gate: 1 line against a base, 1 limits; looks at 8 and 16 seeds" in capsys.readouterr().out


def test_the_github_workflow_sees_the_history_may_only_read_and_keeps_the_report() -> None:
    assert run(["init", "--ci", "github", "--install", SPEC]) == 0
    workflow = yaml.load(Path(WORKFLOWS["github"]).read_text(), yaml.BaseLoader)
    assert workflow["on"] == "pull_request"
    assert workflow["permissions"] == {"contents": "read"}
    steps = workflow["jobs"]["stability"]["steps"]
    used = {step["uses"].partition("@")[0]: step for step in steps if "uses" in step}
    assert all(step["uses"].rpartition("@v")[2].isdecimal() for step in used.values())
    assert used["actions/checkout"]["with"]["fetch-depth"] == "0"
    assert used["actions/upload-artifact"]["if"] == "always()"
    (check,) = [step["run"] for step in steps if "stresstest check" in step.get("run", "")]
    written = [word.partition(":")[2] for word in shlex.split(check) if word.startswith(("junit:", "md:"))]
    assert sorted(used["actions/upload-artifact"]["with"]["path"].split()) == sorted(written)


def test_the_gitlab_job_sees_the_history_and_keeps_the_report() -> None:
    assert run(["init", "--ci", "gitlab", "--install", SPEC]) == 0
    job = yaml.safe_load(Path(WORKFLOWS["gitlab"]).read_text())["stresstest"]
    assert job["variables"]["GIT_DEPTH"] == "0"
    assert job["artifacts"] == {"when": "always", "paths": ["stresstest.md"], "reports": {"junit": "stresstest.xml"}}


@pytest.mark.parametrize(
    "spec",
    ["../other", "/etc/other", "./x/../../y", "file:///etc/other", "-e ../other", "--find-links=/etc other", "~/other"],
)
def test_a_path_outside_the_repository_is_refused(spec: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", ".", "--ci", "github", "--install", spec]) == 2
    assert "lies outside" in complaint(capsys)
    assert not (project / ".github").exists()
