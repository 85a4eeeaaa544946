"""Networks and the bundles that hold trained ones."""

from segbatch.models.bundle import Bundle, Card, load_bundle, read_card, save_bundle
from segbatch.models.build import build_model

__all__ = ["Bundle", "Card", "build_model", "load_bundle", "read_card", "save_bundle"]
