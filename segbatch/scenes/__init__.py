"""Reading scenes and labels: one driver a format, and the catalog that lists them."""

from segbatch.scenes.catalog import SceneRef
from segbatch.scenes.labels import LabelReader, check_label
from segbatch.scenes.scene import Pixels, SceneInfo, SceneReader, open_scene

__all__ = ["LabelReader", "Pixels", "SceneInfo", "SceneReader", "SceneRef", "check_label", "open_scene"]
