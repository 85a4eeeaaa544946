"""The catalog: what users list becomes scenes with unique ids."""

import glob
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from segbatch.config import Scenes
from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.inference.files import cog_path, parts_path, store_path
from segbatch.redaction import redact
from segbatch.scenes.catalog import (
    SceneRef,
    expand,
    list_scenes,
    read_table,
    resolve,
    stem,
    with_known_ids,
    with_unique_ids,
)
from segbatch.storage import ObjectPath, place, write_whole


def touch(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [str(folder / name) for name in names]


def test_a_path_is_one_scene(tmp_path: Path) -> None:
    (ref,) = expand("a.tif", str(tmp_path), label="truth/a.tif", group="site1", pixel_size_um=0.5)
    assert ref == SceneRef("a", str(tmp_path / "a.tif"), str(tmp_path / "truth/a.tif"), "site1", 0.5)


def test_a_glob_is_all_it_matches_in_order(tmp_path: Path) -> None:
    b, a, deep = touch(tmp_path, "b.tif", "a.tif", "deep/er/c.tif")
    touch(tmp_path, "a.txt")
    assert [ref.image for ref in expand("*.tif", str(tmp_path))] == [a, b]
    assert [ref.image for ref in expand("**/*.tif", str(tmp_path))] == [a, b, deep]
    assert [ref.id for ref in expand("[ab].tif", str(tmp_path))] == ["a", "b"]


def test_a_glob_of_objects_is_all_it_matches_in_order(remote: str) -> None:
    for name in ("b.tif", "a.tif", "a.txt", "deep/er/c.tif", "site [1].tif"):
        write_whole(place(remote) / name, b"")
    root = "/ignored"
    assert [ref.image for ref in expand(f"{remote}/?.tif", root)] == [f"{remote}/a.tif", f"{remote}/b.tif"]
    assert [ref.id for ref in expand(f"{remote}/*/*/*.tif", root)] == ["c"]
    assert [ref.id for ref in expand(f"{remote}/**/[bc].tif", root, label="/labels/{name}.tif")] == ["b", "c"]
    assert [ref.image for ref in expand(f"{remote}/site [1].tif", root)] == [f"{remote}/site [1].tif"]
    with pytest.raises(InputError, match=re.escape(f"No image matches {remote}/*.png")):
        expand(f"{remote}/*.png", root)
    assert expand(f"{remote}/*.png", root, may_be_none=True) == []
    with pytest.raises(InputError, match="name the bucket, without"):
        expand("s3://buck*/a.tif", root)
    with pytest.raises(InputError, match=r"//\*\*\*@nowhere/\*\.tif cannot be listed") as caught:
        expand("s3://KEY:SECRET@nowhere/*.tif", root)
    assert "SECRET" not in str(caught.value)
    with pytest.raises(InputError, match=r"s3://nowhere/\*\.tif cannot be listed: no such bucket"):
        expand("s3://nowhere/*.tif", root)


@pytest.mark.parametrize(
    "pattern",
    ["*", "*.tif", "*/*", "**/*.tif", "a/**/*.tif", "**/b/*", "**/.h/*", "**/.*", "a/**", "**/b/**/*.tif", "?/*.tif"],
)
def test_objects_match_as_files_do(remote: str, tmp_path: Path, pattern: str) -> None:
    for name in ("x.tif", "y.txt", "a/z.tif", "a/b/w.tif", ".h/v.tif", "a/._z.tif", "a/.n/u.tif", "b/b/t.tif", "ab/c"):
        write_whole(place(remote) / name, b"")
        write_whole(tmp_path / name, b"")
    found = [ref.image.removeprefix(f"{remote}/") for ref in expand(f"{remote}/{pattern}", "/", may_be_none=True)]
    files = (Path(path) for path in glob.glob(str(tmp_path / pattern), recursive=True))
    assert found == sorted({path.relative_to(tmp_path).as_posix() for path in files if path.is_file()})


def test_each_image_of_a_glob_has_its_own_label(tmp_path: Path) -> None:
    touch(tmp_path, "img/s1.v2.png", "img/s2.png")
    refs = expand("img/*.png", str(tmp_path), label="truth/{name}_label.tif")
    assert [ref.label for ref in refs] == [
        str(tmp_path / "truth/s1.v2_label.tif"),
        str(tmp_path / "truth/s2_label.tif"),
    ]


def test_relative_paths_count_from_a_place_in_a_store(remote: str) -> None:
    for name in ("set/a.tif", "set/b.tif"):
        write_whole(place(remote) / name, b"")
    a, b = expand("./set/*.tif", remote, label="truth/{name}.tif")
    assert (a.image, a.label) == (f"{remote}/set/a.tif", f"{remote}/truth/a.tif")
    assert b.image == f"{remote}/set/b.tif"
    assert resolve("../c.tif", f"{remote}/set") == f"{remote}/c.tif"
    assert resolve("/abs/c.tif", remote) == "/abs/c.tif"
    with pytest.raises(InputError, match=r"^\.\./\.\./c\.tif leads out of the bucket of "):
        resolve("../../c.tif", "s3://bucket/set")


def test_many_images_cannot_share_a_label(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.tif")
    with pytest.raises(InputError, match=r"2 images match \*\.tif, .*label\.tif.*\{name\}"):
        expand("*.tif", str(tmp_path), label="label.tif")


def test_a_glob_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(f"No image matches {tmp_path / '*.tif'}")):
        expand("*.tif", str(tmp_path))


def test_a_folder_that_does_not_exist_is_none_that_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty [1]").mkdir()
    assert expand("*/*.tif", str(tmp_path / "empty [1]"), may_be_none=True) == []
    assert expand(f"{tmp_path}/**/*.tif", may_be_none=True) == []
    for image, root, gone in (("a/*.tif", tmp_path, tmp_path / "a"), ("**/*.tif", tmp_path / "b", tmp_path / "b")):
        with pytest.raises(InputError, match=re.escape(f"the folder {gone} does not exist. Mount or make it")):
            expand(image, str(root), may_be_none=True)


def test_brackets_in_names_are_no_pattern_where_they_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the image's own name nor in that of the folder from which paths count."""
    root = tmp_path / "site [1]"
    plain, other = touch(root, "scene [2].tif", "scene 3.tif")
    assert [ref.image for ref in expand("scene [2].tif", str(root))] == [plain]
    assert [ref.image for ref in expand("*.tif", str(root))] == sorted([plain, other])
    monkeypatch.chdir(root)
    assert [ref.image for ref in expand("*.tif")] == sorted([plain, other])
    assert [ref.image for ref in expand("../site [[]1]/*.tif")] == sorted([plain, other])
    with pytest.raises(InputError, match=re.escape(f"the folder {root / 'gone'} does not exist")):
        expand("gone/*.tif", may_be_none=True)


def test_a_folder_in_a_store_from_which_paths_count_is_no_pattern(remote: str) -> None:
    for name in ("tiles[1]/a.tif", "tiles[1]/b[2].tif", "tiles[1]/deep/c.tif", "tiles1/d.tif"):
        write_whole(place(remote) / name, b"")
    root = f"{remote}/tiles[1]/"
    assert [ref.id for ref in expand("*.tif", root)] == ["a", "b_2_"]
    assert [ref.id for ref in expand("**/*.tif", root)] == ["a", "b_2_", "c"]
    assert [ref.id for ref in expand("../*/*.tif", root)] == ["d", "a", "b_2_"]
    assert [ref.image for ref in expand("b[2].tif", root)] == [f"{remote}/tiles[1]/b[2].tif"]
    # Written as part of the pattern it is one, in which brackets are written as `glob.escape` writes them.
    assert [ref.id for ref in expand(f"{remote}/tiles[1]/*.tif")] == ["d"]
    assert [ref.id for ref in expand(f"{remote}/tiles[[]1]/*.tif")] == ["a", "b_2_"]
    assert [ref.id for ref in expand(f"{remote}/tiles[[]1]/b[[]2].tif")] == ["b_2_"]


def test_relative_paths_count_from_root_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve("a/../b.tif", "data") == str(tmp_path / "data/b.tif")
    assert resolve("/abs/b.tif", "data") == "/abs/b.tif"
    assert resolve("~/b.tif", "data") == resolve("b.tif", "~") == "/home/someone/b.tif"
    for url in ("s3://bucket/b.tif", "https://host/b.tif", "/vsizip/a.zip/b.tif"):
        assert resolve(url, "data") == url


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/scene 1 (x).tif", "scene_1_x_"),
        ("/a/.hidden.tif", "hidden"),
        ("/a/m_36.v2.tif", "m_36.v2"),
        ("s3://bucket/Ünï.tif", "_n_"),
        ("/", "scene"),
    ],
)
def test_stems_are_safe_file_names(path: str, expected: str) -> None:
    assert stem(path) == expected


names = st.sampled_from(["x", "x_1", "x_2", "a_x", "a_x_1", "b"])
distinct_refs = st.lists(
    st.tuples(names, names, st.sampled_from([None, (0, 0, 9, 9), (9, 0, 9, 9)])), min_size=1, max_size=12, unique=True
).map(lambda items: [SceneRef(name, f"/data/{folder}/{name}.tif", window=part) for folder, name, part in items])


@given(distinct_refs)
def test_ids_are_unique_and_safe_whatever_the_names(refs: list[SceneRef]) -> None:
    named = with_unique_ids(refs)
    ids = [ref.id for ref in named]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in ids)
    assert [(ref.image, ref.window) for ref in named] == [(ref.image, ref.window) for ref in refs]
    for before, after in zip(refs, named, strict=True):
        if [ref.id for ref in refs].count(before.id) == 1:
            assert after.id == before.id  # a name without a rival is kept


def test_repeated_names_take_their_folder_or_a_number() -> None:
    def ids(*refs: SceneRef) -> list[str]:
        return [ref.id for ref in with_unique_ids(refs)]

    one, two = SceneRef("a", "/x/a.tif"), SceneRef("a", "/y/a.tif")
    assert ids(one, two) == ["x_a", "y_a"]
    parts = [SceneRef("a", "/x/a.tif", window=(0, row, None, 10)) for row in (0, 10)]
    assert ids(*parts) == ["x_a_1", "x_a_2"]


def test_an_image_listed_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"/x/a\.tif is listed twice"):
        with_unique_ids([SceneRef("a", "/x/a.tif"), SceneRef("b", "/x/b.tif"), SceneRef("a", "/x/a.tif")])


ROWS = {
    "image": ["img/a.png", "img/b.png", "/abs/c.png"],
    "label": ["truth/a.png", None, "truth/c.png"],
    "group": ["01", "01", "02"],
    "pixel_size_um": [0.5, None, 2],
    "split": ["train", "test", "train"],
}


@pytest.fixture(params=["csv", "parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A table in a folder of its own, as a path relative to tmp_path."""
    folder = tmp_path / "set"
    folder.mkdir()
    frame = pd.DataFrame(ROWS)
    if request.param == "csv":
        frame.to_csv(folder / "scenes.csv", index=False)
    else:
        frame.to_parquet(folder / "scenes.parquet")
    return f"set/scenes.{request.param}"


def test_a_tables_paths_count_from_its_folder(tmp_path: Path, table: str) -> None:
    a, b, c = read_table(table, str(tmp_path))
    folder = tmp_path / "set"
    assert a == SceneRef("a", str(folder / "img/a.png"), str(folder / "truth/a.png"), "01", 0.5)
    assert (b.image, b.label, b.pixel_size_um) == (str(folder / "img/b.png"), None, None)
    assert (c.image, c.group, c.pixel_size_um) == ("/abs/c.png", "02", 2.0)


def test_a_table_may_be_in_a_store(remote: str, tmp_path: Path, table: str) -> None:
    url = f"{remote}/{table}"
    write_whole(place(url), (tmp_path / table).read_bytes())
    a, b, c = read_table(url, str(tmp_path))
    assert a == SceneRef("a", f"{remote}/set/img/a.png", f"{remote}/set/truth/a.png", "01", 0.5)
    assert (b.image, c.image) == (f"{remote}/set/img/b.png", "/abs/c.png")
    assert read_table(table, remote, {"split": "test"}) == [b]


def test_a_table_that_a_store_does_not_give_is_refused(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=f"^The scene table {remote}/none.csv does not exist"):
        read_table("none.csv", remote)
    with pytest.raises(InputError, match=r"in an object store: s3://\*\*\*@bucket/a\.csv") as caught:
        read_table("s3://KEY:SECRET@bucket/a.csv")
    assert "SECRET" not in str(caught.value)
    with pytest.raises(InputError, match=r"https://host/a\.csv is none of s3://"):
        read_table("https://host/a.csv")

    def refuse(self: ObjectPath) -> bool:
        raise PermissionError(13, "the store refuses it", str(self))

    monkeypatch.setattr(ObjectPath, "stat", refuse)
    with pytest.raises(InputError, match=f"^{remote}/a.csv cannot be read: the store refuses it.$"):
        read_table("a.csv", remote)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"split": "train"}, ["a", "c"]),
        ({"split": ["test", "train"]}, ["a", "b", "c"]),
        ({"split": "train", "group": "02"}, ["c"]),
        ({"pixel_size_um": 0.5}, ["a"]),
    ],
)
def test_where_selects_rows(tmp_path: Path, table: str, where: dict[str, object], expected: list[str]) -> None:
    assert [ref.id for ref in read_table(table, str(tmp_path), where)] == expected


def test_where_finds_whole_numbers_beside_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "scenes.csv"
    path.write_text("image,fold,held_out\na.tif,1,true\nb.tif,,false\nc.tif,2,true\n")
    assert [ref.id for ref in read_table(str(path), where={"fold": 2})] == ["c"]
    assert [ref.id for ref in read_table(str(path), where={"fold": [1, 2]})] == ["a", "c"]
    assert [ref.id for ref in read_table(str(path), where={"held_out": True})] == ["a", "c"]


def test_a_tables_windows_are_for_training_alone(tmp_path: Path) -> None:
    """Mapping covers whole scenes: the parts that a split lists are one."""
    text = "image,role,col_off,row_off,width,height\na.tif,train,0,0,50,40\na.tif,validate,,40,,\nb.tif,train,,,,\n"
    (tmp_path / "split.csv").write_text(text)
    a, rest, b = read_table("split.csv", str(tmp_path))
    assert (a.window, rest.window, b.window) == ((0, 0, 50, 40), (None, 40, None, None), None)
    scenes = Scenes.model_validate(
        {
            "root": str(tmp_path),
            "train": [{"table": "split.csv", "where": {"role": "train"}}],
            "predict": [{"table": "split.csv"}],
        }
    )
    assert [ref.crop(60, 70) for ref in list_scenes(scenes, "train")] == [Window(0, 0, 50, 40), Window(0, 0, 60, 70)]
    assert [(ref.id, ref.window) for ref in list_scenes(scenes, "predict")] == [("a", None), ("b", None)]


def test_where_that_leaves_nothing_is_refused(tmp_path: Path, table: str) -> None:
    with pytest.raises(InputError, match=r"No row of .*scenes.* is left where \{'split': 'validate'\}"):
        read_table(table, str(tmp_path), {"split": "validate"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,label\na.tif,b.tif\n", "no column 'image'; its columns: picture, label"),
        ("image\n", "has no rows"),
        ("", "cannot be read as a table"),
        ("image,label\na.tif,b.tif\n,c.tif\n", "row 2 has no image"),
        ("image,pixel_size_um\na.tif,1\nb.tif,-2\n", "row 2 has pixel_size_um -2"),
        ("image,pixel_size_um\na.tif,small\n", "row 1 has pixel_size_um 'small'"),
        ("image,row_off\na.tif,0\nb.tif,1.5\n", "row 2 has row_off 1.5; it must be a whole number of pixels"),
        ("image,col_off\na.tif,-1\n", "row 1 has col_off -1"),
        ("image,width\na.tif,0\n", "row 1 has width 0"),
        ("image,height\na.tif,all\n", "row 1 has height 'all'"),
        ("image,height\na.tif,inf\n", "row 1 has height inf"),
    ],
)
def test_a_malformed_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "scenes.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_table(str(path))
    assert str(path) in str(caught.value)


def test_row_numbers_are_the_tables_own(tmp_path: Path) -> None:
    """Also where rows before the faulty one are left out."""
    path = tmp_path / "scenes.csv"
    path.write_text("image,split\na.tif,train\nb.tif,test\n,test\n")
    with pytest.raises(InputError, match="row 3 has no image"):
        read_table(str(path), where={"split": "test"})


def test_a_missing_table_or_column_or_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scene table .*none\.csv does not exist"):
        read_table("none.csv", str(tmp_path))
    (tmp_path / "a.csv").write_text("image\na.tif\n")
    with pytest.raises(InputError, match="no column 'split'"):
        read_table("a.csv", str(tmp_path), {"split": "train"})
    (tmp_path / "a.parquet").write_text("image\na.tif\n")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_table("a.parquet", str(tmp_path))


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (None, Window(0, 0, 50, 40)),
        ((None, 10, None, None), Window(0, 10, 50, 30)),
        ((5, 0, None, 7), Window(5, 0, 45, 7)),
        ((0, 0, 50, 40), Window(0, 0, 50, 40)),
        ((49, 39, 1, 1), Window(49, 39, 1, 1)),
    ],
)
def test_crop_fills_in_what_is_left_open(
    window: tuple[int | None, int | None, int | None, int | None] | None, expected: Window
) -> None:
    assert SceneRef("a", "a.tif", window=window).crop(50, 40) == expected


@pytest.mark.parametrize(
    "window",
    [(0, 40, None, None), (50, 0, None, None), (0, 0, 51, None), (0, 1, None, 40), (60, 0, 5, 5), (-1, 0, 5, 5)],
)
def test_a_window_outside_the_image_is_refused(window: tuple[int, int, int | None, int | None]) -> None:
    with pytest.raises(InputError, match=r"a\.tif is 50 x 40 pixels; the window of .* is not inside it"):
        SceneRef("a", "a.tif", window=window).crop(50, 40)


def test_a_configurations_scenes_are_listed_by_role(tmp_path: Path) -> None:
    touch(tmp_path, "p/a.tif", "p/b.tif", "q/a.tif")
    (tmp_path / "t.csv").write_text("image,group\nq/a.tif,g\nq/z.tif,h\n")
    scenes = Scenes.model_validate(
        {
            "root": str(tmp_path),
            "train": [
                {"image": "p/a.tif", "label": "l.tif", "window": {"height": 5}},
                {"image": "p/a.tif", "label": "l.tif", "window": {"row_off": 5}},
                {"table": "t.csv", "where": {"group": "h"}},
            ],
            "predict": [{"image": "p/*.tif", "group": "p"}, {"table": "t.csv"}],
        }
    )
    train, predict = list_scenes(scenes, "train"), list_scenes(scenes, "predict")
    assert [ref.id for ref in train] == ["p_a_1", "p_a_2", "z"]
    assert [ref.crop(10, 10) for ref in train[:2]] == [Window(0, 0, 10, 5), Window(0, 5, 10, 5)]
    assert [(ref.id, ref.group) for ref in predict] == [("p_a", "p"), ("b", "p"), ("q_a", "g"), ("z", "h")]
    with pytest.raises(InputError, match=r"scenes\.validate is empty"):
        list_scenes(scenes, "validate")


def test_the_micrographs_table_is_read(data_dir: Path) -> None:
    folder = data_dir / "sem"
    train = read_table("scenes.csv", str(folder), {"split": "train"})
    test = read_table("scenes.csv", str(folder), {"split": "test"})
    assert (len(train), len(test)) == (8, 2)
    assert not {ref.group for ref in train} & {ref.group for ref in test}
    assert all(Path(ref.image).is_file() and Path(ref.label or "").is_file() for ref in train + test)


def test_scenes_of_growing_lists_keep_their_ids() -> None:
    known: dict[str, str] = {}
    lists = [["x/a.tif"], ["x/a.tif", "y/a.tif"], ["w/y/a.tif", "x/a.tif", "y/a.tif", "y_a.tif"], ["y/a.tif", "z.tif"]]
    for images in lists:
        before = dict(known)
        refs = with_known_ids(with_unique_ids([SceneRef(stem(image), image) for image in images]), known)
        assert [ref.image for ref in refs] == images
        known |= {ref.image: ref.id for ref in refs}
        assert before.items() <= known.items()
        assert len(set(known.values())) == len(known)
    assert (known["x/a.tif"], known["y/a.tif"], known["z.tif"]) == ("a", "y_a", "z")


_PIECES = st.sampled_from(
    ["..", ".", "/", "\\", "~", "a", "b.tif", "\0", "\n", "%2e%2e%2f", "ä", "x" * 300, "C:", "?sig=1/../2"]
)
_IMAGES = st.one_of(
    st.text(min_size=1),
    st.lists(_PIECES, min_size=1, max_size=8).map("".join),
    st.lists(_PIECES, min_size=1, max_size=8).map(lambda pieces: "https://u:geheim@h/" + "".join(pieces)),
)


@given(st.lists(_IMAGES, min_size=1, max_size=6, unique=True))
def test_whatever_is_listed_all_files_lie_in_the_run(images: list[str]) -> None:
    assume(len({redact(image) for image in images}) == len(images))
    refs = with_unique_ids([SceneRef(stem(image), image) for image in images])
    known = with_known_ids(refs, {})
    masks = "/run/masks"
    for ref in (*refs, *known):
        assert "geheim" not in ref.id
        files = [
            store_path(Path(masks), ref.id),
            *(cog_path(Path(masks), ref.id, name) for name in ("class_mask", "confidence")),
        ]
        for file in (*files, parts_path(Path(masks), ref.id), Path(masks) / f"{ref.id}.png"):
            assert os.path.normpath(file) == str(file)
            assert str(file).startswith(f"{masks}/")
            assert len(f".{file.name}.aux.xml.{'0' * 32}.partial".encode()) <= 255
        assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", ref.id)
    for named in (refs, known):
        assert len({ref.id for ref in named}) == len(images)


def test_an_address_gives_names_without_its_query(tmp_path: Path) -> None:
    first = "https://ada:geheim@h/site/a.tif?X-Amz-Credential=KEY/2026/s3/aws4.request&sig=x"
    second = "https://ada:geheim@h/other/a.tif?sig=y/z"
    refs = with_unique_ids([ref for image in (first, second) for ref in expand(image, label="labels/{name}.tif")])
    assert [ref.id for ref in refs] == ["site_a", "other_a"]
    assert [Path(ref.label or "").name for ref in refs] == ["a.tif", "a.tif"]
    assert [ref.image for ref in refs] == [first, second]
    renewed = [SceneRef("a", first.replace("sig=x", "sig=renewed"))]
    assert with_known_ids(renewed, {"https://***@h/site/a.tif?***": "kept"})[0].id == "kept"
    with pytest.raises(InputError, match=r"^https://\*\*\*@h/site/a.tif\?\*\*\* is listed twice"):
        with_unique_ids([refs[0], *renewed])
