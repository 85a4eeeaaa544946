"""What is told to be sent is what Ray packs."""

import zipfile
from pathlib import Path

import pytest

from segbatch.errors import InputError
from segbatch.submit.package import Package, pack, tell


def touch(folder: Path, *names: str, size: int = 3) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stream:
            stream.truncate(size)


def packed_by_ray(package: Package, target: Path) -> list[str]:
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    create_package(
        str(package.folder),
        target,
        include_gitignore=True,
        excludes=[*get_runtime_env_default_excludes(), *package.excludes],
    )
    with zipfile.ZipFile(target) as archive:
        return [entry.filename for entry in archive.infolist() if not entry.is_dir()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    touch(folder, "land.yaml", "segbatch/cli.py", "tables/ä b.csv", "data/small.tif")
    touch(folder, "runs/land/masks/a.tif", ".git/HEAD", ".venv/bin/python", ".mypy_cache/x", "a/__pycache__/x.pyc")
    touch(folder, "secret.txt", "notes/draft.md", "out/land/masks/a.tif", "big/x.npy")
    touch(folder, "data/large.tif", "data/odd [1]!#*.TIF", "data/trailing .tif", size=2**25 + 1)
    (folder / ".gitignore").write_text("secret.txt\n")
    (folder / "notes" / ".rayignore").write_text("draft.md\n")
    return folder


def test_the_archive_is_foretold(folder: Path, tmp_path: Path) -> None:
    package = pack(folder, ["/big/"], output=str(folder / "out" / "land"))
    assert sorted(package.files) == sorted(
        [".gitignore", "notes/.rayignore", "land.yaml", "segbatch/cli.py", "tables/ä b.csv", "data/small.tif"]
    )
    assert sorted(package.images) == ["data/large.tif", "data/odd [1]!#*.TIF", "data/trailing .tif"]
    archive = tmp_path / "packed.zip"
    assert sorted(packed_by_ray(package, archive)) == sorted(package.files)
    assert package.size == archive.stat().st_size


def test_links_that_lead_out_of_the_folder_are_not_sent(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path / "elsewhere", "id_rsa", "more/scene.tif")
    (folder / "key [1]").symlink_to(tmp_path / "elsewhere" / "id_rsa")
    (folder / "data" / "elsewhere").symlink_to(tmp_path / "elsewhere")
    (folder / "data" / "up").symlink_to("../../elsewhere/more")
    (folder / "data" / "same.tif").symlink_to("small.tif")
    package = pack(folder, ["/big/", "/out/"])
    assert package.links == ("data/elsewhere", "data/up", "key [1]")
    sent = packed_by_ray(package, tmp_path / "packed.zip")
    assert sorted(sent) == sorted(package.files)
    assert "data/same.tif" in sent
    assert not [name for name in sent if "elsewhere" in name or "up/" in name or "key" in name]
    tell(package)
    assert "these links lead out of the folder: data/elsewhere, data/up, key [1]\n" in capsys.readouterr().err


def test_what_is_sent_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(pack(folder, ["/big/", "/out/"]))
    said = capsys.readouterr().err
    assert f"Sending 6 files, 0.0 MiB, of {folder}\n" in said
    assert "Not sent, as they are large: data/large.tif (32.0 MiB), data/odd [1]!#*.TIF (32.0 MiB)" in said
    assert "That is much" not in said
    monkeypatch.setattr("segbatch.submit.package._MUCH", 100)
    tell(pack(folder))
    assert "That is much" in capsys.readouterr().err


def test_too_much_is_refused_with_the_largest_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.runtime_env.packaging.GCS_STORAGE_MAX_SIZE", 2**20)
    touch(folder, *(f"much/{number}.npy" for number in range(9)), size=200_000)
    touch(folder, "much/most.npy", size=400_000)
    with pytest.raises(InputError) as error:
        pack(folder)
    message = str(error.value)
    assert f"{folder} is too large to send: 2.1 MiB in" in message
    assert "Ray takes 1.0 MiB" in message
    assert "most.npy (0.4 MiB), much/0.npy (0.2 MiB), much/1.npy" in message
    assert "and 13 more." in message
    pack(folder, ["much/"])


def test_a_folder_is_held_where_anything_in_it_is(folder: Path) -> None:
    package = pack(folder)
    for path in (".", "land.yaml", "./segbatch/../land.yaml", "segbatch", "data/"):
        assert package.holds(path), path
    for path in ("runs", "runs/land", "seg", "secret.txt", "data/large.tif", "nothing"):
        assert not package.holds(path), path


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        pack(tmp_path / "nowhere")
