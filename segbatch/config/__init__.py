"""The run configuration that users write: one YAML for training, mapping and reports."""

from segbatch.config.load import load_config, parse_config, parse_section, read_classes, read_yaml
from segbatch.config.prices import Prices
from segbatch.config.schema import (
    Actors,
    ClassEntry,
    ClassFile,
    Cluster,
    Inference,
    LabelledSceneEntry,
    Role,
    RunConfig,
    SceneEntry,
    Scenes,
    Split,
    WindowEntry,
)
from segbatch.config.space import Settings, draw, read_setting, with_settings
from segbatch.config.training import ClassWeights, Model, Training
from segbatch.config.tune import Range, Tune

__all__ = [
    "Actors",
    "ClassEntry",
    "ClassFile",
    "ClassWeights",
    "Cluster",
    "Inference",
    "LabelledSceneEntry",
    "Model",
    "Prices",
    "Range",
    "Role",
    "RunConfig",
    "SceneEntry",
    "Scenes",
    "Settings",
    "Split",
    "Training",
    "Tune",
    "WindowEntry",
    "draw",
    "load_config",
    "parse_config",
    "parse_section",
    "read_classes",
    "read_setting",
    "read_yaml",
    "with_settings",
]
