"""Configuration of a source: address, reading, gate, recording."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, WrapValidator

from engine.video.options import SourceOptions
from pipelines.config.privacy import PrivacyConfig
from pipelines.config.scene import LineConfig, PictureConfig, PlaceName, ZoneConfig
from pipelines.config.section import ClassName, FilePath, Section, any_file_name

DEFAULT_PUBLISH = "tcp://127.0.0.1:5555"

_DEFAULT = SourceOptions()


class MotionGateConfig(Section):
    """When to skip the detector because there is no motion."""

    min_share: float = Field(0.0005, gt=0, le=1, description="Share of the frame that must change")
    min_difference: int = Field(
        16, ge=1, le=255, description="Grey levels that count as change; raise for noisy cameras"
    )
    max_hold_s: float = Field(2.0, gt=0, le=3600, description="Detect at least this often, even without motion")


class WindowsConfig(Section):
    """When the detector may look at parts of the frames only; for cameras where little happens at a time."""

    whole_s: float = Field(5.0, gt=0, le=3600, description="Detect on the whole frame at least this often")
    whole_quiet_s: float = Field(10.0, gt=0, le=3600, description="The same while no object is known")
    min_difference: float = Field(
        10.0, ge=1, le=255, description="Grey levels that count as change; raise for noisy cameras"
    )
    margin: float = Field(24.0, ge=0, le=320, description="Pixels of the model's frame around a change or an object")
    max_hz: float | None = Field(
        7.5,
        gt=0,
        le=1000,
        description="Whole frames per second while windows do not pay off; tracks are predicted in between; "
        "null: every frame",
    )
    ignore: list[list[tuple[float, float]]] = Field(
        default_factory=list, description="Polygons in pixels where changes do not count: trees, a clock in the image"
    )


class RecordConfig(Section):
    """Record a camera without decoding: usually its main stream, while detection runs on the sub-stream."""

    EXAMPLE = "folder: FOLDER"

    uri: str | None = Field(
        None, min_length=1, description="Address to record; null: the source's own, on a second connection"
    )
    folder: FilePath = Field("recordings", min_length=1, description="Files are folder/<source_id>/<UTC time>.mp4")
    mode: Literal["continuous", "events"] = Field(
        "continuous",
        description="continuous: write all the time; events: keep the newest video in memory, write it around events",
    )
    before_s: float = Field(
        8.0, gt=0, le=120, description="mode events: seconds kept in memory, from a keyframe on (64 MB at most)"
    )
    after_s: float = Field(5.0, ge=0, le=600, description="mode events: seconds written after the last event has ended")
    container: Literal["mp4", "mkv"] = Field("mp4", description="File format; both remain playable after a crash")
    sound: bool = Field(
        True, description="Copy the camera's sound too, if it is AAC or Opus, not G.711; mode events: from the event on"
    )
    segment_s: float = Field(
        60.0, ge=1, le=86400, description="Length of a file; a new one begins at the next keyframe"
    )
    max_mb: float | None = Field(
        None,
        ge=1,
        le=1e9,
        description="Space for this camera; the oldest files are deleted to stay below it; null: no limit",
    )
    keep_h: float | None = Field(None, gt=0, le=1e6, description="Delete files after this many hours; null: never")


class LensConfig(Section):
    """Distortion of the lens, as `cv2.calibrateCamera` returns it, in fractions of the image size."""

    focal: float = Field(1.0, gt=0, le=100, description="Focal length, as a fraction of the image width")
    centre: tuple[float, float] = Field(
        (0.5, 0.5), description="Where the optical axis meets the image, as shares of width and height"
    )
    k1: float = Field(0.0, ge=-10, le=10, description="Radial distortion, 2nd order; negative: a barrel")
    k2: float = Field(0.0, ge=-10, le=10, description="Radial distortion, 4th order")
    k3: float = Field(0.0, ge=-10, le=10, description="Radial distortion, 6th order")
    p1: float = Field(0.0, ge=-1, le=1, description="Tangential distortion")
    p2: float = Field(0.0, ge=-1, le=1, description="Tangential distortion")


class PrepareConfig(Section):
    """Preparation of each image; boxes and zones are in pixels of the prepared frame."""

    lens: LensConfig | None = Field(None, description="Distortion to remove; null: none")
    region: tuple[float, float, float, float] | None = Field(
        None, description="Left, top, right, bottom as fractions of the image: the frame is cropped to it; null: whole"
    )
    denoise: Literal["none", "median", "bilateral"] = Field(
        "none", description="median: against single wrong pixels; bilateral: against sensor noise"
    )
    contrast: float = Field(1.0, gt=0, le=10, description="Factor around middle grey")
    brightness: float = Field(0.0, ge=-1, le=1, description="Added, as a share of the range from black to white")
    gamma: float = Field(1.0, ge=0.1, le=10, description="Below 1 brightens dark parts, above 1 darkens them")
    equalise: bool = Field(False, description="Spread the brightness within tiles of the image (CLAHE)")


class TlsConfig(Section):
    """How to verify a camera's certificate."""

    EXAMPLE = "ca: FILE"

    ca: FilePath = Field(description="File of the authority, or of the camera's own certificate, to trust (PEM)")


class SourceConfig(Section):
    """One camera, stream or file."""

    EXAMPLE = "uri: ADDRESS"

    uri: Annotated[str, WrapValidator(any_file_name)] = Field(
        min_length=1,
        description="Camera number, /dev/video0, rtsp://, http(s)://, a file, a folder of images, synthetic://",
    )
    source_id: str | None = Field(
        None, pattern=r"^[^/\s]+$", description="Name on the wire; null: the file stem, host or cameraN"
    )
    live: bool | None = Field(
        _DEFAULT.live, description="Whether a network source is a camera; null: decide by its address"
    )
    realtime: bool = Field(_DEFAULT.realtime, description="Play a file at its own rate, as if it were a camera")
    loop: bool = Field(_DEFAULT.loop, description="Restart a file at its end")
    reader: Literal["process", "thread"] = Field(
        _DEFAULT.reader, description="Where a live source is read; a process can be killed while FFmpeg hangs"
    )
    transport: Literal["tcp", "udp"] = Field(_DEFAULT.transport, description="Transport of RTP")
    connect_timeout_s: float = Field(
        _DEFAULT.connect_timeout_s, gt=0, le=600, description="Time limit for reaching the host of an RTSP camera"
    )
    open_timeout_s: float = Field(
        _DEFAULT.open_timeout_s, gt=0, le=600, description="Time limit for opening a live source"
    )
    read_timeout_s: float = Field(
        _DEFAULT.read_timeout_s,
        gt=0,
        le=600,
        description="Time limit for the next frame; after it the connection counts as dead",
    )
    stall_s: float = Field(
        _DEFAULT.stall_s, gt=0, le=600, description="The source is stalled after this time without a frame"
    )
    reconnect: bool = Field(_DEFAULT.reconnect, description="Reconnect after a live source fails")
    max_attempts: int | None = Field(
        _DEFAULT.max_attempts, ge=1, description="Consecutive failures before giving up; null: never give up"
    )
    backoff_s: float = Field(
        _DEFAULT.backoff_s,
        gt=0,
        le=600,
        description="Wait before the second attempt; it doubles each time, with jitter",
    )
    backoff_max_s: float = Field(_DEFAULT.backoff_max_s, gt=0, le=3600, description="Longest wait between attempts")
    refused_backoff_s: float = Field(
        _DEFAULT.refused_backoff_s, gt=0, le=86400, description="Wait after the camera has refused the password"
    )
    damage: Literal["until_keyframe", "frame", "keep"] = Field(
        _DEFAULT.damage, description="What to drop after a damaged frame of a live source"
    )
    keyframes_only: bool = Field(_DEFAULT.keyframes_only, description="Decode only keyframes, to save work")
    decoder: Literal["auto", "cpu", "nvdec", "vaapi", "jetson"] = Field(
        _DEFAULT.decoder, description="Decoder; auto takes the first one that works on this machine"
    )
    size_wh: tuple[int, int] | None = Field(
        _DEFAULT.size_wh, description="Frame size requested from a USB camera: [width, height]"
    )
    fps: float | None = Field(
        _DEFAULT.fps, gt=0, description="Frame rate of a USB camera or image folder; images per s of a snapshot"
    )
    snapshot: bool | None = Field(
        None, description="Request images repeatedly; null: if the address returns one per request"
    )
    pixel_format: str | None = Field(
        _DEFAULT.pixel_format, description="Pixel format requested from a USB camera: mjpeg, yuyv422"
    )
    slots: int = Field(_DEFAULT.slots, ge=4, le=256, description="Frames in the shared memory of a process reader")
    max_pixels: int = Field(
        _DEFAULT.max_pixels,
        ge=1,
        le=1_000_000_000,
        description="Maximum width times height of a frame; larger ones are refused before they take memory",
    )
    tls: Literal["verify", "insecure"] | TlsConfig = Field(
        "verify", description="Certificate of an rtsps or https camera; insecure sends the password to any server"
    )
    grow_s: float | None = Field(
        _DEFAULT.grow_s, gt=0, description="Watch a folder until no image has arrived for this time; null: read it once"
    )
    regions: list[list[tuple[float, float]]] = Field(
        default_factory=list,
        description="Polygons in pixels: keep objects whose lower middle is inside one; empty: keep all",
    )
    ignore: list[list[tuple[float, float]]] = Field(
        default_factory=list, description="Polygons in pixels: drop objects whose lower middle is inside one"
    )
    model: str | None = Field(None, description="Name of its model in models; null: detector")
    type: str | None = Field(
        None, description="Your own source, module:attribute or the name of its entry point; null: by the address"
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="Arguments of your own source")
    classes: list[ClassName] | None = Field(
        None, description="Names or numbers of the classes to keep of this source; null: those of its model"
    )
    score_threshold: float | None = Field(
        None, ge=0, le=1, description="Minimum score for this source, at or above that of its model; null: its model's"
    )
    min_area: float = Field(0.0, ge=0, description="Smallest area of a box in square pixels; smaller ones are dropped")
    max_fps: float | None = Field(
        None, gt=0, le=1000, description="Frames above this rate are dropped before detection; null: no limit"
    )
    detect_hz: Annotated[float, Field(gt=0, le=1000)] | Literal["auto"] | None = Field(
        None,
        description="Detections per second, tracks are predicted in between; auto: 7.5 to 12.5, or each frame, "
        "by how the tracks move; null: as set by pipeline.detect_every",
    )
    motion_gate: MotionGateConfig | None = Field(
        None, description="Skip the detector while nothing moves; null: never skip"
    )
    windows: WindowsConfig | None = Field(
        None,
        description="Detect on parts of the frames where little happens, not with motion_gate; null: on whole frames",
    )
    prepare: PrepareConfig | None = Field(
        None, description="Lens, region, noise and light, corrected before a frame is used; null: nothing"
    )
    record: RecordConfig | None = Field(None, description="Record the camera, or its main stream; null: do not record")
    privacy: PrivacyConfig | None = Field(
        None, description="What is hidden on its frames; null: as in the run's privacy section"
    )
    picture: PictureConfig | None = Field(
        None, description="The frame to whose pixels the points of zones and lines refer; null: points are fractions"
    )
    zones: dict[PlaceName, ZoneConfig] = Field(default_factory=dict, description="Areas by name: visits and dwell")
    lines: dict[PlaceName, LineConfig] = Field(default_factory=dict, description="Lines by name: crossings")
    ffmpeg: dict[str, str] = Field(
        default_factory=dict, description="Further FFmpeg options by name; they override the others"
    )
