"""The run configuration that users write: one YAML for training, mapping and reports."""

import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from segbatch.classes import ClassTable, LabelMap, check_label_value, label_key
from segbatch.config.prices import Prices
from segbatch.config.section import PositiveInt, Section
from segbatch.config.training import Model, Training
from segbatch.config.tune import Tune
from segbatch.errors import InputError
from segbatch.storage import place

Role = Literal["train", "validate", "predict"]


class ClassEntry(Section):
    """A class. Its id is its position in the list."""

    name: str
    """Unique name."""
    color: str | None = None
    """Colour in class masks and reports, as '#1f78b4'; chosen by segbatch when absent."""


class WindowEntry(Section):
    """A part of a scene, in pixels."""

    col_off: int = Field(default=0, ge=0)
    """First column."""
    row_off: int = Field(default=0, ge=0)
    """First row."""
    width: PositiveInt | None = None
    """Columns; to the right border when absent."""
    height: PositiveInt | None = None
    """Rows; to the lower border when absent."""


class SceneEntry(Section):
    """Scenes: one image, a glob of images, or a table."""

    image: str | None = None
    """Path or glob of images. Relative paths count from scenes.root."""
    label: str | None = None
    """The label of the image; '{name}' stands for the image's file name without its ending."""
    group: str | None = None
    """What the scenes belong to (a patient, an animal, a flight): reports have a line for each group."""
    pixel_size_um: float | None = Field(default=None, gt=0)
    """Micrometres a pixel, for scenes without a map."""
    table: str | None = None
    """CSV or Parquet table with the columns image, label, group, pixel_size_um, in place of 'image'; for training and
    validation also col_off, row_off, width, height of a window. Relative paths in it count from the table's folder."""
    where: dict[str, Any] | None = None
    """Only the table's rows that have these values, as {split: train}."""

    @model_validator(mode="after")
    def _one_source(self) -> "SceneEntry":
        if (self.image is None) == (self.table is None):
            raise ValueError("give either 'image' or 'table'")
        if self.table is None and self.where is not None:
            raise ValueError("'where' belongs to 'table'")
        if self.table is not None and (self.label or self.group or self.pixel_size_um):
            raise ValueError("label, group and pixel_size_um are columns of the table")
        return self


class LabelledSceneEntry(SceneEntry):
    """Scenes for training and validation, which may be parts of an image."""

    window: WindowEntry | None = None
    """Use this part of the image only."""

    @model_validator(mode="after")
    def _window_of_an_image(self) -> "LabelledSceneEntry":
        if self.table is not None and self.window is not None:
            raise ValueError("'window' belongs to 'image', not to 'table'")
        return self


class Split(Section):
    """A rule that keeps a part of scenes.train back for validation."""

    by: Literal["scene", "group", "block"]
    """What stays together. scene: whole images; group: whole groups (animals, patients, flights). Both with all images
    that overlap on the map. block: square blocks of the images, for few large ones."""
    validate_: float = Field(default=0.2, gt=0, lt=1, alias="validate")
    """Share of the labelled pixels that validates. Scenes, groups or blocks are drawn so that it is met as nearly as
    they allow, with each class on both sides where that can be."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draw: the same scenes and seed give the same split."""
    block: PositiveInt | None = None
    """Of the split by block: side of a block in pixels, counted from the upper left corner of the scene (or of its
    window); 2048 when absent."""

    @model_validator(mode="after")
    def _block_of_blocks(self) -> Self:
        if self.block is not None and self.by != "block":
            raise ValueError(f"'block' belongs to 'by: block', not to 'by: {self.by}'")
        return self


class Scenes(Section):
    """Which images are for what."""

    root: str = "."
    """Folder from which relative paths count; itself relative to the working directory, or in an object store."""
    bands: list[int | str] | None = None
    """Bands to use, by number (from 1) or name; all but an alpha band when absent."""
    nodata: float | None = None
    """Fill value of the images, in place of what the files say."""
    train: list[LabelledSceneEntry] = Field(default=[])
    """Scenes that the model learns from."""
    validate_: list[LabelledSceneEntry] = Field(default=[], alias="validate")
    """Scenes that choose the best epoch. Either this or 'split'."""
    split: Split | None = None
    """A rule that chooses them among the scenes in 'train'."""
    buffer: int | None = Field(default=None, ge=0)
    """Fewest pixels between what is trained on and what validates, also of images that overlap or adjoin on the map.
    A split keeps it; lists that do not are refused. When absent: half a tile for the split by block, else 0 within an
    image, and a warning where images overlap."""
    predict: list[SceneEntry] = Field(default=[])
    """Scenes to map. Those with a label are evaluated."""

    @model_validator(mode="after")
    def _one_way_to_validate(self) -> Self:
        if self.split is not None and self.validate_:
            raise ValueError("'validate' and 'split' cannot both be given: a split chooses the scenes that validate")
        return self

    def of(self, role: Role) -> Sequence[SceneEntry]:
        """The entries of a role."""
        entries: dict[Role, Sequence[SceneEntry]] = {
            "train": self.train,
            "validate": self.validate_,
            "predict": self.predict,
        }
        return entries[role]


class Actors(Section):
    """The pool of predicting actors."""

    min: PositiveInt = 1
    """Actors kept at all times."""
    max: PositiveInt | None = None
    """Most actors at a time; as many as the cluster has room for when absent."""
    gpus: float = Field(default=1.0, gt=0, le=1)
    """Share of a GPU that each takes where it has one: 0.5 puts two on each, which keeps one busy that small windows
    leave idle."""
    accelerator: str | None = None
    """Kind of GPU that they run on, by Ray's name for it, as H100; any when absent."""


class Inference(Section):
    """How scenes are mapped."""

    core: PositiveInt | Literal["auto"] = "auto"
    """Side in pixels of the part of a window that is kept; a multiple of the model's stride.
    auto: the core that wastes least on halos and fits the memory; it may be rectangular."""
    halo: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Context pixels around a core; a multiple of the model's stride. auto: the smallest that halo_tolerance
    allows, by the curve on the bundle's card."""
    halo_tolerance: float = Field(default=1e-4, gt=0, lt=1)
    """Share of pixels that may differ from a prediction of the whole image at once."""
    blend: Literal["crop", "hann", "gaussian"] = "crop"
    """How windows meet. crop: each keeps its core; hann, gaussian: they overlap by twice the halo, and their
    probabilities are averaged with these weights."""
    tta: Literal["none", "flips", "d4"] = "none"
    """Test-time augmentation: averages over mirrored windows (flips, 4 passes) or turned ones too (d4, 8)."""
    backend: Literal["auto", "eager", "compile", "openvino", "onnx", "tensorrt"] = "auto"
    """What runs the model. auto: the fastest for this run's size whose class masks agree with eager float32."""
    precision: Literal["auto", "float32", "bf16", "int8"] = "auto"
    """Of the model's arithmetic. auto: as for the backend; int8 only where it is asked for."""
    min_agreement: float = Field(default=0.999, ge=0, le=1)
    """Share of pixels of real windows whose class must be that of eager float32 for auto to take a backend."""
    batch_size: PositiveInt | Literal["auto"] = "auto"
    """Windows a forward pass. auto: 1 on a CPU, as many as make it busy on a GPU."""
    block_mb: PositiveInt | Literal["auto"] = "auto"
    """Most megabytes of pixels, as stored, in a block: the unit of work, of writing and of resuming.
    auto: 32 on a CPU, 128 on a GPU."""
    format: list[Literal["cog", "zarr"]] = Field(default=["cog", "zarr"], min_length=1)
    """Files to write for each scene."""
    confidence: bool = False
    """Write the largest probability of each pixel too."""
    probabilities: bool = False
    """Write the probability of each class too."""
    aoi: str | None = None
    """Polygons (GeoJSON, GeoPackage, Shapefile) outside of which nothing is read or mapped."""
    overviews: Literal["mode", "nearest"] = "mode"
    """How a COG's overviews are made."""
    use_gpu: Literal["auto"] | bool = "auto"
    """A GPU for each actor; auto: where the cluster has one."""
    actors: Actors = Actors()
    """Bounds of the pool of predicting actors."""
    engine: Literal["ray", "inline"] = "ray"
    """ray: Ray Data; inline: this process alone."""

    @model_validator(mode="after")
    def _int8_has_a_backend(self) -> Self:
        if self.precision == "int8" and self.backend not in ("auto", "openvino", "onnx"):
            raise ValueError(f"precision int8 is for the backends openvino and onnx, not for {self.backend}")
        return self


class Cluster(Section):
    """Where the work is done."""

    address: str = "auto"
    """auto: the cluster this runs on (RAY_ADDRESS), else Ray on this machine; local: this machine;
    or the address of a cluster."""
    prices: Prices | None = None
    """With them, plan tells what mapping will cost, and the report what the run has cost. They decide no result."""


class ClassFile(Section):
    """Classes and how labels name them."""

    classes: list[ClassEntry] = Field(min_length=2)
    """The classes in the order of their ids."""
    label_values: dict[int | str, str] | None = None
    """Label value to class name; other values are ignored. Whole numbers are values of rasters (or of an attribute),
    colours as '#1f78b4' (in quotes) those of coloured masks, other text the values of a vector label's attribute.
    Absent: rasters hold class ids, coloured masks the classes' colours, vectors the classes' names."""
    label_attribute: str | None = None
    """Attribute of vector labels that holds the class; absent: the one whose values are known, or QuPath's
    classification."""
    label_background: str | None = None
    """Class of what no polygon of a vector label covers; it has no label when absent."""

    @field_validator("label_values", mode="before")
    @classmethod
    def _keys(cls, values: Any) -> Any:
        """Whole numbers are numbers though JSON and --set have text for keys; what YAML makes of 'no' is neither."""
        if not isinstance(values, dict):
            return values
        try:
            for key in values:
                check_label_value(key)
        except InputError as error:
            raise ValueError(str(error).removeprefix("label_values: ")) from error
        numbers = {key: label_key(key) for key in values if isinstance(key, str)}
        return {number if isinstance(number := numbers.get(key), int) else key: name for key, name in values.items()}

    @model_validator(mode="after")
    def _classes_agree(self) -> Self:
        try:
            self.label_map()
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    def class_table(self) -> ClassTable:
        """Names and colours by class id."""
        return ClassTable.from_items([(entry.name, entry.color) for entry in self.classes])

    def label_map(self) -> LabelMap:
        """From what labels hold to class ids."""
        return LabelMap.from_names(self.label_values, self.class_table(), self.label_attribute, self.label_background)


class RunConfig(ClassFile):
    """A segbatch run."""

    name: str
    """Name of the run, for titles and messages."""
    output: str
    """Folder of the run's files."""
    scenes: Scenes
    """Which images are for what."""
    model: Model = Model()
    """The network."""
    training: Training = Training()
    """How the model is fitted."""
    tune: Tune = Tune()
    """How `segbatch tune` looks for better settings."""
    inference: Inference = Inference()
    """How scenes are mapped."""
    cluster: Cluster = Cluster()
    """Where the work is done."""

    @field_validator("output")
    @classmethod
    def _place_output(cls, output: str) -> str:
        return str(place(os.path.expanduser(output)))
