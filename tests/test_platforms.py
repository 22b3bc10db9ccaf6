"""What can be said here of other systems: folders, devices, and calls that only POSIX has."""

import ast
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest
import torch
from platformdirs.macos import MacOS

from robustbench_ft import cache, environment
from robustbench_ft.errors import RbftError
from robustbench_ft.images import archives, roots

ROOT = Path(__file__).resolve().parent.parent
POSIX_MODULES = {"fcntl", "pwd", "grp", "termios", "pty", "posix"}
POSIX_CALLS = {
    "chown", "fork", "getegid", "geteuid", "getgid", "getpgid", "getuid", "killpg", "mkfifo", "nice", "pread", "preadv",
    "pwrite", "setsid", "statvfs", "sysconf", "uname", "wait3", "wait4",
}  # fmt: skip
GUARDED = {"resource": "environment.py"}  # imported where the system was asked before


def uses(path: Path) -> Iterator[str]:
    """What a file imports or calls that Windows lacks."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in POSIX_MODULES | set(GUARDED))
        elif isinstance(node, ast.ImportFrom) and node.module in POSIX_MODULES | set(GUARDED):
            yield node.module
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            yield from ([f"os.{node.attr}"] if node.attr in POSIX_CALLS else [])


def test_no_call_that_only_posix_has() -> None:
    found = {
        (name, path.name)
        for folder in ("robustbench_ft", "methods", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for name in uses(path)
    }
    assert found == set(GUARDED.items())


def test_such_a_call_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("import fcntl\nimport os\nos.pread(0, 1, 2)\n")
    assert list(uses(tmp_path / "x.py")) == ["fcntl", "os.pread"]


def test_a_member_of_a_tar_is_read_from_its_place(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "part-0.tar", "w") as file:
        for key, content in (("a", b"first\r\nimage"), ("b", b"second")):
            for suffix, data in (("png", content), ("cls", b"1")):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    packed = archives.tars([tmp_path / "part-0.tar"])
    assert [packed.images.raw(k) for k in range(2)] == [b"first\r\nimage", b"second"]  # no newline is translated
    assert packed.images.part(0, 2, 4) == b"rst\r"
    assert packed.images.part(1, 4, 99) == b"nd"  # not into the next member


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without settings, on a system that keeps caches as macOS does."""
    for name in ("RBFT_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name, **_: MacOS(name).user_cache_path)
    monkeypatch.setattr(platformdirs, "user_config_path", lambda name, **_: MacOS(name).user_config_path)
    return tmp_path


def test_the_cache_lies_where_the_system_keeps_caches_and_an_earlier_one_stays(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.root() == home / "Library" / "Caches" / "rbft"
    (home / ".cache" / "rbft").mkdir(parents=True)
    assert cache.root() == home / ".cache" / "rbft"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache.root() == home / "xdg" / "rbft"
    monkeypatch.setenv("RBFT_CACHE", str(home / "own"))
    assert cache.root() == home / "own"


def test_settings_likewise(home: Path) -> None:
    assert roots.config_path({}) == home / "Library" / "Application Support" / "rbft" / "config.toml"
    earlier = home / ".config" / "rbft" / "config.toml"
    earlier.parent.mkdir(parents=True)
    assert roots.config_path({}) != earlier  # an empty folder is no file of settings
    earlier.write_text("")
    assert roots.config_path({}) == earlier
    assert roots.config_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/rbft/config.toml")
    assert roots.config_path({"RBFT_CONFIG": "/y.toml"}) == Path("/y.toml")


def test_on_this_system_nothing_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RBFT_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if platformdirs.PlatformDirs.__name__ != "Unix":
        pytest.skip("caches lie elsewhere on this system")
    assert cache.root() == tmp_path / ".cache" / "rbft"
    assert roots.config_path({}) == tmp_path / ".config" / "rbft" / "config.toml"


def test_an_apple_gpu_is_taken_when_it_is_named_and_in_float32_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RbftError, match="device 'mps' asked for, but torch sees no Apple GPU here; use --device cpu"):
        environment.choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device = environment.choose_device("mps")
    assert device.type == "mps"
    assert environment.choose_device("auto").type == "cpu"  # nothing was tested there
    assert environment.choose_precision("auto", device) == "fp32"
    with pytest.raises(RbftError, match="precision 'bf16' is not offered on an Apple GPU"):
        environment.choose_precision("bf16", device)
