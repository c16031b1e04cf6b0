"""The keys of the event log."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.config.section import FilePath, Section

Severity = Literal["info", "notice", "alert"]


class SnapshotsConfig(Section):
    """Images of events."""

    severities: list[Severity] = Field(["info", "notice", "alert"], description="Events that get images; []: none")
    max_side: int = Field(1280, ge=64, le=8192, description="Longer side in pixels; larger frames are scaled down")
    quality: int = Field(85, ge=1, le=100, description="JPEG quality")
    from_recording: bool = Field(
        True,
        description="Replace the best image with the same moment of the recorded main stream",
    )


class ClipsConfig(Section):
    """Clips of events, cut from the recordings of their source."""

    before_s: float = Field(5.0, ge=0, le=120, description="Seconds before the event begins")
    after_s: float = Field(5.0, ge=0, le=600, description="Seconds after it ends")
    max_s: float = Field(300.0, gt=0, le=3600, description="Longest clip")
    severities: list[Severity] = Field(["notice", "alert"], description="Events that get a clip; []: none")


class KeepConfig(Section):
    """What is deleted, and when."""

    info_d: float = Field(3.0, ge=0, le=36500, description="Days for which events of severity info are kept")
    notice_d: float = Field(14.0, ge=0, le=36500, description="Days for events of severity notice")
    alert_d: float = Field(60.0, ge=0, le=36500, description="Days for events of severity alert")
    tracks_d: float = Field(14.0, ge=0, le=36500, description="Days for paths of tracks; 0: store none")
    max_gb: float | None = Field(100.0, gt=0, description="Limit of images, clips and recordings together; null: none")
    min_free_gb: float = Field(5.0, ge=0, description="Free space that must remain on the disk")


class EventsConfig(Section):
    """The event log."""

    EXAMPLE = "folder: FOLDER"

    folder: FilePath | None = Field(None, description="Folder of the log, its images and clips; null: no log")
    store: str | None = Field(
        None,
        description="postgresql://user:password@host/database for several engines; null: in the folder",
    )
    snapshots: SnapshotsConfig = Field(default_factory=SnapshotsConfig, description="Images of events")
    clips: ClipsConfig = Field(default_factory=ClipsConfig, description="Clips of events")
    keep: KeepConfig = Field(default_factory=KeepConfig, description="What is deleted, and when")

    @model_validator(mode="after")
    def _has_folder(self) -> EventsConfig:
        """Reject settings that have no effect because the folder was forgotten."""
        given = sorted(self.model_fields_set - {"folder", "store"})
        if given and not self.model_fields_set & {"folder", "store"}:
            raise ValueError(f"{' and '.join(given)} without a folder keep nothing: add folder: PATH, or folder: null")
        return self
