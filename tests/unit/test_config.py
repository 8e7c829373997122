"""Settings and paths: what files say, in which order, and sentences for what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlmd.config import Paths, Settings, check_settings, load_settings
from rlmd.errors import ConfigInvalid


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})


def write(paths: Paths, text: str, name: str = "config.toml") -> Path:
    file = paths.config / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def problems(paths: Paths) -> str:
    settings, found = check_settings(paths)
    assert settings is None
    return "\n".join(map(str, found))


# ── paths ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_folders_without_any_variable() -> None:
    paths = Paths.from_environment({"HOME": "/home/u"})
    assert (str(paths.config), str(paths.state), str(paths.cache)) == (
        "/home/u/.config/rlmd",
        "/home/u/.local/state/rlmd",
        "/home/u/.cache/rlmd",
    )
    assert str(paths.socket) == f"/tmp/rlmd-{os.getuid()}/rlmd.sock"


def test_folders_by_xdg_variables() -> None:
    variables = {f"XDG_{name}": f"/x/{name}" for name in ("CONFIG_HOME", "STATE_HOME", "CACHE_HOME", "RUNTIME_DIR")}
    paths = Paths.from_environment({"HOME": "/home/u", **variables})
    assert str(paths.config) == "/x/CONFIG_HOME/rlmd"
    assert str(paths.state) == "/x/STATE_HOME/rlmd"
    assert str(paths.cache) == "/x/CACHE_HOME/rlmd"
    assert str(paths.socket) == "/x/RUNTIME_DIR/rlmd/rlmd.sock"
    assert str(paths.spool) == "/x/RUNTIME_DIR/rlmd/spool"


def test_a_relative_variable_is_ignored() -> None:
    """As the XDG specification says; else the folders would depend on where the daemon was started."""
    variables = {"HOME": "/home/u", "XDG_STATE_HOME": "state", "XDG_RUNTIME_DIR": ""}
    paths = Paths.from_environment(variables)
    assert str(paths.state) == "/home/u/.local/state/rlmd"
    assert str(paths.runtime).startswith("/tmp/rlmd-")


def test_another_socket_leaves_the_folders(paths: Paths, tmp_path: Path) -> None:
    other = Paths.from_environment({"HOME": str(tmp_path)}, socket=Path("/x/a.sock"))
    assert str(other.socket) == "/x/a.sock"
    assert other.state == paths.state


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_files_everything_has_its_default(paths: Paths) -> None:
    assert load_settings(paths) == Settings()
    assert paths.config_files == ()


def test_later_files_win_key_by_key(paths: Paths) -> None:
    write(paths, '[limits]\nturns = 3\nseconds = 9\n[hosts.a]\nurl = "http://a"\nprovider = "ollama"\n')
    write(paths, "[limits]\nturns = 5\n", "config.d/20.toml")
    write(paths, "[limits]\nturns = 4\n[hosts.a]\nslots = 7\n", "config.d/10.toml")
    write(paths, "nonsense", "config.d/note.txt")
    settings = load_settings(paths)
    assert (settings.limits.turns, settings.limits.seconds) == (5, 9)
    assert (settings.hosts["a"].url, settings.hosts["a"].slots) == ("http://a", 7)


def test_an_array_is_replaced_not_merged(paths: Paths) -> None:
    hosts = "".join(f'[hosts.{n}]\nurl = "http://{n}"\nprovider = "ollama"\n' for n in "ab")
    write(paths, f'[roles]\nroot = ["a/m", "b/m"]\n{hosts}')
    write(paths, '[roles]\nroot = ["b/m"]\n', "config.d/1.toml")
    assert load_settings(paths).roles.root == ("b/m",)


@pytest.mark.parametrize(
    ("text", "named", "nearest"),
    [
        ("[limit]\nturns = 3", "limit is not known", "Did you mean limits?"),
        ("[limits]\nturn = 3", "limits.turn is not known", "Did you mean turns?"),
        (
            '[hosts.a]\nurl="u"\nprovider="ollama"\n[hosts.a.models."q:7b"]\nwindwo=1',
            "hosts.a.models.q:7b.windwo is not known",
            "Did you mean window?",
        ),
        ("[repl]\nzzzzzz = 1", "repl.zzzzzz is not known", "Valid here: cell_seconds"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(paths: Paths, text: str, named: str, nearest: str) -> None:
    file = write(paths, text)
    found = problems(paths)
    assert str(file) in found
    assert named in found
    assert nearest in found


def test_the_file_that_is_wrong_is_named(paths: Paths) -> None:
    good = write(paths, "[limits]\nturns = 3\n")
    bad = write(paths, "[limits]\nturns = 0\n", "config.d/bad.toml")
    found = problems(paths)
    assert str(bad) in found
    assert str(good) not in found
    assert "limits.turns" in found


def test_a_host_may_be_told_in_two_files_but_not_in_half(paths: Paths) -> None:
    write(paths, '[hosts.a]\nurl = "http://a"\n')
    assert "hosts.a.provider is missing" in problems(paths)
    write(paths, '[hosts.a]\nprovider = "ollama"\n', "config.d/1.toml")
    assert load_settings(paths).hosts["a"].provider == "ollama"


def test_every_problem_is_told(paths: Paths) -> None:
    write(paths, "[limits]\nturns = 0\nsecond = 1\n")
    write(paths, "a = \n", "config.d/1.toml")
    found = problems(paths)
    assert found.count("\n") == 2
    assert "Not valid TOML" in found


def test_a_role_that_names_no_host_or_model(paths: Paths) -> None:
    host = '[hosts.m40]\nurl = "u"\nprovider = "ollama"\n[hosts.m40.models.qwen]\n'
    write(paths, f'[roles]\nroot = ["m4/qwen"]\nsub = ["m40/llama"]\n{host}')
    found = problems(paths)
    assert "roles.root: m4/qwen names no configured host. Hosts: m40." in found
    assert "roles.sub: host m40 lists no model llama. Models: qwen." in found


def test_bytes_that_are_no_text(paths: Paths) -> None:
    write(paths, "")
    (paths.config / "config.toml").write_bytes(b"[limits]\n# \xff\xfe\n")
    assert "Not valid UTF-8" in problems(paths)


def test_load_tells_what_check_finds(paths: Paths) -> None:
    write(paths, "[limits]\nturn = 3\nseconds = -1\n")
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(paths)
    assert "limits.turn is not known" in caught.value.message
    assert "limits.seconds" in caught.value.message
    assert caught.value.details["problems"] == 2


def test_values_are_not_repeated(paths: Paths) -> None:
    """Somebody will put a key where its variable's name belongs."""
    write(paths, '[hosts.a]\nurl = "u"\nprovider = "sk-secret"\napi_key = "sk-secret"\napi_key_env = ["sk-secret"]\n')
    assert "sk-secret" not in problems(paths)
