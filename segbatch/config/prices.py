"""What resources cost."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from segbatch.config.section import Section

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Prices(Section):
    """What an hour costs. All that is given is added up: of machines that are paid as a whole give node_hour alone."""

    currency: str = Field(default="USD", min_length=1)
    """As in 'EUR'; it stands behind all amounts."""
    cpu_hour: Price | None = None
    """Of a CPU, as Ray counts them: hardware threads as a rule."""
    gpu_hour: Price | dict[str, Price] | None = None
    """Of a GPU; or of each kind, by Ray's names of accelerators, as {H100: 2.9, T4: 0.35}."""
    node_hour: Price | None = None
    """Of a machine, whatever it has; the head counts, too."""

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.cpu_hour is None and self.node_hour is None and self.gpu_hour in (None, {}):
            raise ValueError("give cpu_hour, gpu_hour or node_hour")
        return self
