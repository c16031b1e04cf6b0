"""Configuration of a fleet: `fleet.yaml`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator

from engine.errors import ConfigError
from engine.transport.address import is_loopback
from pipelines.config.file import explained, plain_tree
from pipelines.config.models import Config
from pipelines.config.section import FilePath, ModelName, Section
from pipelines.config.source import SourceConfig
from pipelines.fleet.control.facts import CameraSpec, ControllerOptions
from pipelines.fleet.placement.facts import Limits
from pipelines.workers.split import check_workers

MAX_CAMERAS, MAX_NODES, MAX_FILES = 20_000, 2_000, 200
MAX_ID_CHARS = 100
BY_THE_FLEET = ("sources", "control", "web", "publish.address", "publish.connect", "pipeline.engine_id")
Labels = dict[ModelName, str]


class LeaseConfig(Section):
    """How long an engine may continue without hearing from the controller or, while that is away, from the keeper."""

    seconds: float = Field(
        6.0,
        ge=0.5,
        le=3600,
        description="An engine that hears neither controller nor keeper stops its cameras after this time",
    )
    margin_s: float = Field(
        0.5, gt=0, le=60, description="The controller waits this much longer before it reassigns the camera"
    )
    renew_s: float = Field(1.0, gt=0, le=600, description="Time between two renewals")
    on_silence: Literal["stop", "keep"] = Field(
        "stop",
        description="keep: engines continue for an hour even if the controller's machine is lost, and only the "
        "collector's fence keeps out a frozen one",
    )

    @model_validator(mode="after")
    def _renewed_in_time(self) -> LeaseConfig:
        if self.renew_s > self.seconds / 3:
            raise ValueError(f"renew_s is {self.renew_s:g}: expected at most a third of seconds, {self.seconds / 3:g}")
        return self


class PlacementConfig(Section):
    """Load limits of machines, and how many cameras may move."""

    target: float = Field(0.70, gt=0, le=1, description="Machines are filled up to this share")
    high: float = Field(0.85, gt=0, le=1, description="Cameras leave a machine above this share")
    low: float = Field(0.45, ge=0, le=1, description="The fleet may lose a machine below this share")
    rule: Literal["first_fit", "least_loaded"] = Field(
        "first_fit", description="first_fit fills one machine after another; least_loaded uses all of them evenly"
    )
    moves_per_minute: float = Field(
        30.0, gt=0, le=6000, description="Maximum number of moves to drain or relieve machines"
    )
    join_s: float = Field(
        20.0, ge=0, le=3600, description="New cameras wait this long for starting engines, then use the others"
    )
    rest_s: float = Field(600.0, ge=0, le=86_400, description="A camera that has moved stays for this long")

    @model_validator(mode="after")
    def _in_order(self) -> PlacementConfig:
        if not self.low < self.target <= self.high:
            raise ValueError(f"expected low < target <= high: found {self.low:g}, {self.target:g}, {self.high:g}")
        return self


class NodeConfig(Section):
    """A machine, or a part of this one."""

    name: ModelName = Field(description="Name of its engine")
    cores: float | None = Field(None, gt=0, le=4096, description="Processor cores; null: as its engine reports")
    gpus: float | None = Field(None, ge=0, le=64, description="Number of GPUs; null: as its engine reports")
    site: str = Field("", max_length=MAX_ID_CHARS, description="Where it is")
    labels: Labels = Field(default_factory=dict, description="Such as gpu: l4")


class PlaceConfig(Section):
    """Where a camera may run."""

    site: str = Field("", max_length=MAX_ID_CHARS, description="Only at this site; empty: anywhere")
    labels: Labels = Field(default_factory=dict, description="Only on machines with these labels")
    pack: str = Field(
        "", max_length=MAX_ID_CHARS, description="Cameras with the same value run on one machine if they fit"
    )
    spread: str = Field(
        "", max_length=MAX_ID_CHARS, description="Cameras with the same value run on different machines"
    )


class CameraConfig(SourceConfig):
    """A source of the fleet, and where it may run."""

    source_id: str = Field(pattern=r"^[^/\s]+$", max_length=MAX_ID_CHARS, description="Name on the wire")
    place: PlaceConfig = Field(default_factory=PlaceConfig, description="Where it may run")


class CollectorConfig(Section):
    """The proxy that engines connect to; it drops messages of former owners."""

    collect: str = Field(
        "tcp://127.0.0.1:5551", description="Where engines connect to; none: they publish on their own"
    )
    publish: str = Field("tcp://127.0.0.1:5550", description="Where readers subscribe")


class RayConfig(Section):
    """Engines on the machines of a Ray cluster."""

    address: str = Field("auto", description="Of the cluster: auto, or host:port")
    namespace: ModelName = Field(
        "framewire", description="Namespace of the engines' actors, by which they are found again"
    )
    shrink_after_s: float | None = Field(
        None,
        gt=0,
        le=86_400,
        description="A machine not needed for this long is drained and given back to Ray's autoscaler; null: never",
    )
    port: int = Field(5556, ge=1024, le=65_000, description="Engines listen for control here, or on the next free port")
    keys: FilePath | None = Field(None, description="File NAME.key_secret of the controller; needed between machines")
    engine_keys: FilePath | None = Field(None, description="File NAME.key_secret of the engines, on every machine")


class FleetConfig(Section):
    """A fleet: its machines, its cameras, and the configuration that all of its engines share."""

    name: ModelName = Field(
        "fleet", description="Name of the fleet; framewire fleet status --name uses it to find the fleet"
    )
    state: FilePath = Field(
        "fleet-state", description="Folder of the ledger, the logs and the state of running processes"
    )
    launcher: Literal["local", "ray"] = Field("local", description="What starts engines: this process, or Ray")
    ledger: str = Field("sqlite", description="sqlite, or nats://host:port/BUCKET (extra nats)")
    control: str = Field("auto", description="Where framewire fleet reaches the controller: auto or ipc://path")
    engine: dict[str, Any] = Field(
        default_factory=dict, description="Configuration of every engine: detector, tracker, analytics, …"
    )
    collector: CollectorConfig = Field(default_factory=CollectorConfig, description="The proxy of the fleet")
    lease: LeaseConfig = Field(default_factory=LeaseConfig, description="Time limits of ownership")
    placement: PlacementConfig = Field(default_factory=PlacementConfig, description="Which camera runs where")
    nodes: list[NodeConfig] = Field(
        default_factory=lambda: [NodeConfig(name="node1")], min_length=1, max_length=MAX_NODES, description="Machines"
    )
    ray: RayConfig = Field(default_factory=RayConfig, description="Only for launcher: ray")
    cameras: list[CameraConfig] = Field(default_factory=list, max_length=MAX_CAMERAS, description="All cameras")
    cameras_in: list[FilePath] = Field(
        default_factory=list, max_length=MAX_FILES, description="YAML files with more cameras: each has a list cameras"
    )

    @model_validator(mode="after")
    def _names_differ(self) -> FleetConfig:
        for what, names in (("nodes", [n.name for n in self.nodes]), ("cameras", [c.source_id for c in self.cameras])):
            twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
            if twice:
                raise ValueError(f"{what}: {twice[0]} occurs twice: give each its own name")
        return self

    def specs(self) -> Iterator[CameraSpec]:
        """Yield the cameras in the controller's form."""
        for camera in self.cameras:
            keys = camera.model_dump(mode="json", exclude={"place"}, exclude_unset=True)
            place = camera.place
            yield CameraSpec(camera.source_id, keys, place.site, place.labels, place.pack, place.spread)

    def options(self) -> ControllerOptions:
        """Return the controller's time limits."""
        lease, place = self.lease, self.placement
        return ControllerOptions(
            lease_s=lease.seconds,
            margin_s=lease.margin_s,
            renew_s=lease.renew_s,
            keeps=lease.on_silence == "keep",
            silent_s=max(2.5 * lease.renew_s, 2.0),
            join_s=place.join_s,
            rest_s=place.rest_s,
            moves_per_minute=place.moves_per_minute,
            limits=Limits(place.target, place.high, place.low, place.rule),
        )


def load_fleet(path: str) -> FleetConfig:
    """Return the checked configuration of a fleet.

    Raises:
        ConfigError: names the file, the key, what was found and what was expected.
    """
    tree = plain_tree(path)
    folder = Path(path).parent
    try:
        config = FleetConfig.model_validate(tree)
        for name in config.cameras_in:
            more = plain_tree(str(folder / name))
            cameras = [*config.cameras, *FleetConfig.model_validate({"cameras": more.get("cameras", [])}).cameras]
            config = FleetConfig.model_validate(config.model_copy(update={"cameras": cameras}))
            config = _checked_names(config)
    except ValidationError as error:
        raise ConfigError(explained(error, path, FleetConfig)) from error
    _check_engine(config, path)
    try:
        engine = Config.model_validate({**config.engine, "sources": []})
    except ValidationError as error:
        raise ConfigError(explained(error, f"{path}: engine", Config)) from error
    _check_addresses(config, path)
    _check_processes(config, engine, path)
    _check_models(config, engine, path)
    return config


def _checked_names(config: FleetConfig) -> FleetConfig:
    names = [camera.source_id for camera in config.cameras]
    if len(set(names)) < len(names):
        twice = min(name for name in names if names.count(name) > 1)
        raise ConfigError(f"cameras: {twice} occurs twice: give each its own name")
    return config


def _check_engine(config: FleetConfig, path: str) -> None:
    """Raise `ConfigError` for engine keys that the fleet itself sets."""
    for key in BY_THE_FLEET:
        section, _, name = key.partition(".")
        given = config.engine.get(section)
        if given is not None and (not name or (isinstance(given, dict) and name in given)):
            instead = (
                "write cameras next to engine, not inside it"
                if section == "sources"
                else "the fleet sets it: leave it out"
            )
            raise ConfigError(f"{path}: engine.{key}: {instead}")


def _check_addresses(config: FleetConfig, path: str) -> None:
    if config.ledger != "sqlite" and not re.fullmatch(r"(nats|tls)://[^/\s]+/[A-Za-z0-9_-]{1,64}", config.ledger):
        raise ConfigError(f"{path}: ledger: {config.ledger}: expected sqlite, or nats://host:4222/BUCKET")
    if config.control != "auto" and not config.control.startswith("ipc:///"):
        raise ConfigError(f"{path}: control: {config.control}: expected auto, or ipc:///path of a socket")
    collect = config.collector.collect
    if collect != "none" and urlsplit(collect).scheme not in ("tcp", "ipc"):
        raise ConfigError(f"{path}: collector.collect: {collect}: expected tcp://host:port, ipc://path or none")


def _check_processes(config: FleetConfig, engine: Config, path: str) -> None:
    """Raise `ConfigError` for mistakes that would otherwise show only after engines and collector have started."""
    if config.launcher == "ray" and (config.ray.keys is None or config.ray.engine_keys is None):
        raise ConfigError(f"{path}: ray.keys and ray.engine_keys are missing: make both with framewire keys")
    collect = config.collector.collect
    if config.launcher == "local" and collect != "none" and not is_loopback(collect):
        raise ConfigError(
            f"{path}: collector.collect: {collect}: engines run on this machine: expected tcp://127.0.0.1:5551, or "
            "launcher: ray"
        )
    if engine.pipeline.workers > 1 and collect == "none":
        raise ConfigError(
            f"{path}: engine.pipeline.workers: several processes of an engine need a collector: give collector.collect"
        )
    try:
        check_workers(engine.model_copy(update={"publish": engine.publish.model_copy(update={"connect": [collect]})}))
    except ConfigError as error:
        raise ConfigError(f"{path}: engine: {error}") from error


def _check_models(config: FleetConfig, engine: Config, path: str) -> None:
    known = {None, "detector", *engine.models}
    for camera in config.cameras:
        if camera.model not in known:
            names = ", ".join(sorted(str(name) for name in known if name))
            raise ConfigError(
                f"{path}: camera {camera.source_id}: there is no model {camera.model}; expected one of: {names}"
            )
