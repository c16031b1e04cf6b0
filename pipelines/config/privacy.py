"""What is hidden on frames before any output shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.config.scene import Point
from pipelines.config.section import ClassName, Section


class PrivacyConfig(Section):
    """What is hidden on frames before any output shows them; see docs/privacy.md."""

    EXAMPLE = "mode: NAME"

    mode: Literal["none", "blur", "silhouette", "no_images"] = Field(
        "none",
        description="blur: objects in coarse blocks; silhouette: flat shapes on an empty background; "
        "no_images: grey images",
    )
    classes: list[ClassName] = Field(
        default_factory=lambda: list[str | int](["person"]),
        description="Classes that blur hides; face works even if the model lacks it",
    )
    regions: list[list[Point]] = Field(
        default_factory=list, description="Polygons in fractions of the frame that are painted black"
    )
    score_floor: float = Field(
        0.1, ge=0, le=1, description="Hide objects found with at least this score, even if they are not reported"
    )
    hold_s: float = Field(1.0, ge=0, le=60, description="How long an object stays hidden after it was last found")
    delay_s: float = Field(
        0.0, ge=0, le=1, description="Delay all results by this time, to also hide objects found only later"
    )
    raw: Literal["refuse", "allow"] = Field(
        "refuse", description="Outputs that copy the camera's own stream, such as record, and so hide nothing"
    )

    @model_validator(mode="after")
    def _has_mode(self) -> PrivacyConfig:
        """Reject settings that hide nothing because the mode, which is `none` by default, was forgotten."""
        given = sorted(self.model_fields_set - {"raw"})
        if given and "mode" not in self.model_fields_set:
            raise ValueError(f"{' and '.join(given)} without a mode hide nothing: add mode: blur, or mode: none")
        return self
