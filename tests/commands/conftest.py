"""A request to map scenes, and what a run left on the disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segbatch.commands.folder import RunFolder
from segbatch.commands.request import Request
from segbatch.config import Inference
from segbatch.scenes import SceneRef

MakeRequest = Callable[..., Request]


@pytest.fixture
def make_request(tiny_bundle: Path) -> MakeRequest:
    """A function (folder, images, **changes) that makes a request for the inline engine."""

    def make(folder: Path, images: dict[str, str], labels: dict[str, str] | None = None, **changes: Any) -> Request:
        inference = Inference.model_validate({"engine": "inline", "core": 64, **changes.pop("inference", {})})
        known: dict[str, Any] = {
            "name": "test",
            "folder": RunFolder(folder),
            "bundle": tiny_bundle,
            "refs": [SceneRef(name, path, label=(labels or {}).get(name)) for name, path in images.items()],
            "bands": None,
            "nodata": None,
            "label_map": None,
            "inference": inference,
            "address": "auto",
            "overwrite": False,
            "config": {"inference": inference.model_dump(mode="json")},
        }
        return Request(**(known | changes))

    return make


@pytest.fixture(scope="session")
def files_in() -> Callable[[Path], dict[str, bytes]]:
    """A function that gives the content of all files of a folder by their path in it."""

    def read(folder: Path) -> dict[str, bytes]:
        found = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    return read


@pytest.fixture(scope="session")
def leftovers() -> Callable[[Path], list[Path]]:
    """A function that lists the temporary files and folders in a folder."""
    return lambda folder: [path for path in folder.rglob("*") if "partial" in path.name or "tmp" in path.name]
