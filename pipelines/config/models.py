"""Configuration: every key, its bounds and its meaning, as pydantic models that reject unknown keys.

`pipelines/config/file.py` reads them from YAML. `configs/reference.yaml` lists every key.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from engine.backends.choose_device import PATTERN
from engine.data import DEFAULT_MODEL
from engine.video.options import SourceOptions
from pipelines.config.actions import ActionConfig
from pipelines.config.events import EventsConfig
from pipelines.config.hints import did_you_mean
from pipelines.config.metrics import MetricsConfig, TracingConfig
from pipelines.config.privacy import PrivacyConfig
from pipelines.config.scene import AnalyticsConfig, RuleConfig, SiteConfig
from pipelines.config.section import ClassName, FilePath, ModelName, Section, precision_name
from pipelines.config.source import SourceConfig, TlsConfig
from pipelines.config.versions import CURRENT

DEFAULT_PUBLISH = "tcp://127.0.0.1:5555"

_DEFAULT = SourceOptions()


class SecondStageConfig(Section):
    """A classifier of tracked objects; its result is kept per track."""

    EXAMPLE = "model: FILE"

    model: FilePath = Field(min_length=1, description="Classification model, file or folder")
    classes: list[ClassName] | None = Field(None, description="Classes of the detector to classify; null: all")
    top: int = Field(5, ge=1, le=100, description="Classes reported per object")
    refresh_s: float = Field(10.0, ge=0, le=86400, description="Time after which a track is classified again")
    margin: float = Field(0.0, ge=0, le=1, description="Share of the box's size added on each side of the crop")


class TileConfig(Section):
    """Detection on overlapping tiles of each frame and on the whole frame, for small objects."""

    side_wh: tuple[int, int] = Field((640, 640), description="Size of a tile in pixels of the frame")
    overlap: float = Field(0.2, ge=0, le=0.9, description="Minimum share of a tile that its neighbour also covers")
    whole: bool = Field(True, description="Also detect on the whole frame, for objects larger than a tile")


class DetectorConfig(Section):
    """The model and how it runs."""

    EXAMPLE = "model: FILE"

    model: FilePath = Field(
        "demo",
        min_length=1,
        description="Model file or folder; demo: the embedded model; motion, hog: no network",
    )
    task: Literal["detect", "classify"] = Field(
        "detect", description="classify: the model classifies the whole frame; there is nothing to track then"
    )
    backend: str = Field("auto", description="auto, openvino, onnxruntime or tensorrt; auto logs why it chose")
    score_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Minimum score of a detection; higher: fewer but more certain; null: the file's value, else 0.25",
    )
    iou_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="NMS: of boxes of one class that overlap by more, only the best is kept; null: the authors' value",
    )
    classes: list[ClassName] | None = Field(None, description="Names or numbers of the classes to keep; null: all")
    performance: Literal["auto", "latency", "throughput"] = Field(
        "auto",
        description="latency: all cores on one frame; throughput: several frames at once; auto: depends on the sources",
    )
    max_batch: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Maximum frames per inference, if the model allows it; null: 1 on a CPU, 8 on a GPU",
    )
    size: int | tuple[int, int] | Literal["auto"] | None = Field(
        None,
        description="Input rows and columns; auto: without the border that a frame's aspect leaves, where the model can"
        "; null: auto for video, the model's own size for images",
    )
    depth: int | None = Field(None, ge=1, le=64, description="Inferences in flight; null: the backend decides")
    precision: Annotated[str | None, BeforeValidator(precision_name)] = Field(
        None, description="Arithmetic of the backend: f32, bf16, f16; null: its default"
    )
    device: str | None = Field(
        None,
        pattern=PATTERN,
        description="cpu, gpu, gpu.1, npu or auto of OpenVINO, cuda:0 of TensorRT; null: the backend decides",
    )
    threads: int | None = Field(None, ge=1, le=1024, description="Maximum number of CPU threads; null: all cores")
    cache_dir: FilePath | None = Field(None, description="Folder for compiled models; null: the user's cache")
    rebuild: Literal["foreground", "background", "never"] = Field(
        "foreground",
        description="Build a TensorRT plan that is missing or does not fit: first, while the CPU serves, or never",
    )
    tile: TileConfig | None = Field(None, description="Tiles for small objects, one inference each; null: none")
    head: str | None = Field(
        None, description="Layout of the output, if the file does not state it; see framewire inspect"
    )
    color: Literal["rgb", "bgr"] | None = Field(
        None, description="Channel order of the model; null: that of its family"
    )
    mean: tuple[float, float, float] | None = Field(
        None, description="Mean of each channel, in 0..255; null: that of the family"
    )
    std: tuple[float, float, float] | None = Field(
        None, description="Standard deviation of each channel, in 0..255; null: that of the family"
    )
    letterbox: Literal["center", "top_left", "stretch"] | None = Field(
        None, description="How a frame is placed in the model's input; null: as the family does"
    )
    letterbox_on: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="Where frames are scaled; auto: on the GPU where that is faster and scales as the CPU does"
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of a custom detector (model: module:attribute)"
    )
    names: list[str] | None = Field(None, description="Class names, if the file does not state them")


class PartConfig(Section):
    """A custom part, or one from another package."""

    type: str = Field(min_length=1, description="module:attribute, or the name of its entry point")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Its arguments")


class AnalyserConfig(PartConfig):
    """A custom analyser: examines the tracked frames of its sources and adds facts to them."""

    EXAMPLE = "type: MODULE:ATTRIBUTE"

    sources: list[str] | None = Field(None, description="Names of the sources that share it; null: all of them")


class TrackerConfig(Section):
    """The tracker; `parameters` are the arguments of its class."""

    EXAMPLE = "type: NAME"

    type: str = Field(
        "auto",
        description="steady, bytetrack, botsort, ocsort, sort, none, or module:attribute;"
        " auto: steady, or none for unrelated images",
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Parameters of the tracker; see docs/tracking.md"
    )


class PipelineConfig(Section):
    """Queues and limits."""

    overflow: Literal["block", "drop_oldest"] | None = Field(
        None, description="First queue of every source; null: drop_oldest for live sources, block for files"
    )
    max_age_ms: float | None = Field(
        1000.0, gt=0, description="Live frames older than this are dropped before inference"
    )
    batch_wait_ms: float = Field(5.0, ge=0, le=1000, description="How long a frame waits for frames of other cameras")
    detect_every: int | Literal["auto"] = Field(
        1, description="Detect on every n-th frame and predict tracks in between; auto: as often as the hardware allows"
    )
    max_frames: int | None = Field(None, ge=1, description="Stop after this many frames of each source")
    on_inference_error: Literal["stop", "restart"] = Field(
        "stop", description="stop: end the run; restart: reload the model, then try another backend"
    )
    workers: int = Field(
        1, ge=1, le=64, description="Engine processes that share the sources, behind one address and one control socket"
    )
    engine_id: str | None = Field(
        None, pattern=r"^[^/\s]+$", description="Name of this engine on the wire; null: the host name and a few digits"
    )


class PicturesConfig(Section):
    """JPEG images in addition to the messages, on separate topics (`image`, `crop`)."""

    images_per_s: float = Field(1.0, ge=0, le=60, description="JPEGs of whole frames per second and source; 0: none")
    crops: bool = Field(False, description="Also send the best crop of each new track")
    max_side: int = Field(640, ge=16, le=8192, description="Longer side in pixels; larger frames are scaled down")
    quality: int = Field(80, ge=1, le=100, description="JPEG quality")
    blur: list[str] = Field(default_factory=list, description="Classes to blur in every JPEG, for example person")
    blur_regions: dict[str, list[tuple[float, float, float, float]]] = Field(
        default_factory=dict, description="By source: boxes x1, y1, x2, y2 in pixels to blur"
    )


class PublishConfig(Section):
    """The ZeroMQ stream."""

    EXAMPLE = "address: tcp://HOST:PORT"

    address: str = Field(DEFAULT_PUBLISH, description="Address to bind, or none")
    connect: list[str] = Field(
        default_factory=list,
        max_length=8,
        description="Addresses of framewire proxy --collect to connect to; without address, nothing is bound then",
    )
    connect_key: FilePath | None = Field(
        None,
        description="File NAME.key of these proxies, which identify this engine by key; null: unencrypted",
    )
    encoding: Literal["json", "msgpack"] = Field("json", description="Encoding of the message bodies")
    high_water_mark: int = Field(
        1000, ge=1, le=1_000_000, description="Messages queued per subscriber before any are dropped"
    )
    events: str | None = Field(
        None, description="Second address for everything except frames and statistics, with its own queue"
    )
    latest: str | None = Field(None, description="Address that sends only the newest state")
    snapshot: str | None = Field(
        None, description="Address that answers requests with the current state, for late joiners"
    )
    media: str | None = Field(
        None, description="Address of live images, made only while there are subscribers; null: none without web"
    )
    rtsp: str | None = Field(
        None,
        description="Push the annotated video to a media server: rtsp://HOST:8554/NAME; {source_id}: its name",
    )
    rtmp: str | None = Field(
        None, description="Push the annotated video to a media server, rtmp://HOST/APP/KEY; {source_id} as above"
    )
    tls: Literal["verify", "insecure"] | TlsConfig = Field(
        "verify", description="Certificate of the media server of rtsps:// and rtmps:// addresses"
    )
    pictures: PicturesConfig | None = Field(None, description="JPEGs of frames and tracks; null: none")
    keys: FilePath | None = Field(None, description="File NAME.key_secret of framewire keys: encrypt with CURVE")
    allowed_keys: list[FilePath] | None = Field(
        None, description="Files NAME.key of the clients that may read; null: everyone who knows our public key"
    )

    @property
    def bound(self) -> str:
        """Where to bind: `none` for a publisher that only connects."""
        return "none" if self.connect and "address" not in self.model_fields_set else self.address

    @property
    def has_stream(self) -> bool:
        """Whether anything is published."""
        return bool(self.connect) or self.address != "none"


class ControlConfig(Section):
    """Control of a run in progress."""

    EXAMPLE = "address: ADDRESS"

    address: str = Field(
        "none",
        description="Where framewire ctl reaches this run: auto (found automatically), tcp://host:port, ipc://path",
    )
    keys: FilePath | None = Field(
        None, description="File NAME.key_secret: encrypt with CURVE, so that other machines can connect"
    )
    allowed_keys: list[FilePath] | None = Field(
        None, description="Files NAME.key of the clients that may control the run"
    )
    edits: FilePath | None = Field(
        None,
        description="File that stores edits made on the page; null: NAME.edits.json beside the configuration, "
        "else page.edits.json in events.folder",
    )
    watch: bool = Field(
        False, description="Apply edits of the configuration file until the run is stopped; a bad edit changes nothing"
    )


class WebConfig(Section):
    """The page in the browser, served by a separate process."""

    EXAMPLE = "address: HOST:PORT"

    address: str = Field("none", description="Where to serve the page, HOST:PORT such as 127.0.0.1:8080, or none")
    users: FilePath | None = Field(
        None, description="File of users, sessions and tokens; null: no login, which only loopback allows"
    )
    certificate: FilePath | None = Field(None, description="TLS certificate chain, PEM; null: plain HTTP")
    key: FilePath | None = Field(None, description="Its private key; null: in the same file")
    behind_proxy: list[str] = Field(
        default_factory=list, description="Addresses or networks of the reverse proxies in front, which do TLS"
    )
    hosts: list[str] = Field(default_factory=list, description="Further host names by which browsers reach the page")
    embed: list[str] = Field(
        default_factory=list,
        description="Origins of pages that may embed this one in a frame, such as Home Assistant's",
    )
    metrics: str = Field("none", description="Where the web process serves its metrics and health, HOST:PORT, or none")


class OverlayConfig(Section):
    """What is drawn on saved and shown images."""

    labels: bool = Field(True, description="Id, class and score above the boxes")
    trace: bool = Field(True, description="The path of each track")
    places: bool = Field(True, description="Zones and lines with their counts")
    dwell: bool = Field(True, description="How long objects have been inside a zone")
    caption: bool = Field(False, description="Name of the source, and the time")
    heat: bool = Field(False, description="Where objects have spent their time (needs zones, lines or rules)")


class OutputConfig(Section):
    """Files and windows."""

    EXAMPLE = "save: FILE"

    save: FilePath | None = Field(
        None, description="Annotated H.264 video; one file per source if there are, or may be, several"
    )
    jsonl: FilePath | None = Field(None, description="The published messages, one per line; - is stdout")
    show: bool = Field(False, description="Show a window; q closes it and ends the run")
    grid: bool = Field(False, description="Save and show all sources side by side in one image, with captions")
    overlay: OverlayConfig = Field(default_factory=OverlayConfig, description="What is drawn on them")
    sinks: list[PartConfig] = Field(default_factory=list, description="Custom outputs")


class Config(Section):
    """Everything that a run needs."""

    version: int = Field(CURRENT, ge=1, le=CURRENT, description="Version of the format of this file")
    sources: list[SourceConfig] = Field(default_factory=list, description="Cameras, streams and files")
    detector: DetectorConfig = Field(
        default_factory=DetectorConfig, description="The model of all sources that name no other, and how it runs"
    )
    models: dict[ModelName, DetectorConfig] = Field(
        default_factory=dict,
        description="Further models by name, each with the keys of detector; a source chooses one with its key model",
    )
    second_stage: SecondStageConfig | None = Field(None, description="A classifier on the tracked objects; null: none")
    tracker: TrackerConfig = Field(default_factory=TrackerConfig, description="The tracker")
    analysers: list[AnalyserConfig] = Field(
        default_factory=list, description="Custom analysers, in the order in which they run"
    )
    site: SiteConfig = Field(default_factory=SiteConfig, description="Where the cameras are")
    analytics: AnalyticsConfig = Field(
        default_factory=AnalyticsConfig, description="Which objects count in zones, on lines and for rules"
    )
    rules: list[RuleConfig] = Field(default_factory=list, description="Rules that raise events; see docs/analytics.md")
    actions: dict[ModelName, ActionConfig] = Field(
        default_factory=dict,
        description="Who is notified of events, by name; rules name those that apply",
    )
    privacy: PrivacyConfig = Field(
        default_factory=PrivacyConfig, description="What is hidden on frames before any output shows them"
    )
    events: EventsConfig = Field(default_factory=EventsConfig, description="The event log; see docs/events.md")
    pipeline: PipelineConfig = Field(default_factory=PipelineConfig, description="Queues and limits")
    publish: PublishConfig = Field(default_factory=PublishConfig, description="The ZeroMQ stream")
    control: ControlConfig = Field(default_factory=ControlConfig, description="Control of a run in progress")
    web: WebConfig = Field(default_factory=WebConfig, description="The page in the browser; see docs/web.md")
    output: OutputConfig = Field(default_factory=OutputConfig, description="Files and windows")
    metrics: MetricsConfig = Field(default_factory=MetricsConfig, description="Prometheus metrics and health probes")
    tracing: TracingConfig = Field(default_factory=TracingConfig, description="OpenTelemetry traces of some frames")

    @model_validator(mode="after")
    def _models_exist(self) -> Config:
        """Reject sources that name a missing model."""
        if DEFAULT_MODEL in self.models:
            raise ValueError(
                f"models.{DEFAULT_MODEL}: this name stands for the section {DEFAULT_MODEL}: choose another"
            )
        for index, source in enumerate(self.sources):
            if source.model not in (None, DEFAULT_MODEL, *self.models):
                known = did_you_mean(str(source.model), [DEFAULT_MODEL, *self.models])
                raise ValueError(f"sources.{index}.model: there is no model {source.model}; {known}")
            model = self.models.get(source.model or DEFAULT_MODEL, self.detector)
            asked, lowest = source.score_threshold, model.score_threshold
            if asked is not None and lowest is not None and asked < lowest:
                raise ValueError(
                    f"sources.{index}.score_threshold: {asked} is below that of its model, "
                    f"{lowest}, which drops detections first: lower both"
                )
        return self
