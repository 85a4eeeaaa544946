"""What all sections of the configuration have in common."""

from typing import Annotated

from pydantic import ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]

STRICT = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
"""Unknown keys are refused, and each field's docstring is its description in the JSON schema."""
