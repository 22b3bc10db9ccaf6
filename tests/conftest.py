"""Fixtures: a cache of the test run's own, the tiny model, and the tests' shelves as an installed plugin would be."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import clinic
import pytest
import tiny

from robustbench_ft import registry


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing is read from or left in the user's cache; subprocesses inherit it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RBFT_CACHE", str(folder))
        patch.delenv("RBFT_DATA", raising=False)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`--model` argument of a random CLIP."""
    return f"local-dir:{tiny.write_model(tmp_path_factory.mktemp('models') / 'tiny')}"


@pytest.fixture(scope="session")
def shelf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_shelves(tmp_path_factory.mktemp("site"))


@pytest.fixture
def shelves(shelf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The suite `tiny` and the odd methods are registered, here and in subprocesses."""
    tests = Path(__file__).parent
    monkeypatch.syspath_prepend(shelf_folder)
    earlier = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(shelf_folder), str(tests), *filter(None, earlier))))
    registry.entries.cache_clear()
    yield
    registry.entries.cache_clear()


@pytest.fixture(scope="session")
def clinic_shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On the path, the suite `clinic` is registered."""
    return clinic.write_shelf(tmp_path_factory.mktemp("clinic-site"))


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of the suite `clinic`, without a fault."""
    return clinic.write_tree(tmp_path_factory.mktemp("healthy"))


@pytest.fixture
def tree(healthy: Path, tmp_path: Path) -> Path:
    """A copy to hurt."""
    return Path(shutil.copytree(healthy, tmp_path / "data"))
