"""The requests of the label page, as a Starlette application behind a `Gate`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError, EngineError
from engine.optional import require
from pipelines.learning.dataset.boxes import Box, why_unsound
from pipelines.learning.dataset.project import INBOX, Project
from pipelines.learning.dataset.split import read_splits
from pipelines.learning.label.assist import Assist
from pipelines.learning.label.between import interpolated

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
MAX_BOXES = 5000


class LabelApi:
    """Answers the page's requests.

    Args:
        project: whose images are labelled.
        assist: suggests boxes.
    """

    def __init__(self, project: Project, assist: Assist) -> None:
        self._project, self._assist = project, assist

    def overview(self) -> dict[str, Any]:
        """Return the classes and all images, those of the inbox first."""
        origins = self._project.origins()
        images = [(INBOX, image) for image in self._project.images(INBOX)] + self._project.labelled()
        items = [
            {
                "name": image.name,
                "part": part,
                "camera": origins[image.name].fields.get("camera", "") if image.name in origins else "",
            }
            for part, image in images
        ]
        return {
            "project": self._project.folder.name,
            "classes": list(self._project.classes),
            "items": items,
            "assist": self._assist.is_there,
        }

    def item(self, name: str) -> dict[str, Any]:
        """Return the labels of an image, and the suggestions from when it was collected."""
        image = self._project.find(name)
        boxes = [{"class_id": box.class_id, "xyxy": list(box.xyxy)} for box in self._project.boxes(image)]
        part = image.parent.name
        kept = self._project.suggestions(image) if part == INBOX else []
        return {"name": name, "part": part, "boxes": boxes, "suggestions": self._sound(kept)}

    def _sound(self, suggestions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            one
            for one in suggestions
            if one.get("class_name") in self._project.classes
            and isinstance(one.get("xyxy"), list)
            and len(one["xyxy"]) == 4
            and all(isinstance(value, (int, float)) and math.isfinite(value) for value in one["xyxy"])
        ]

    def picture(self, name: str) -> Path:
        """Return the file of an image. Raises `ConfigError`."""
        return self._project.find(name)

    def suggest(self, name: str) -> dict[str, Any]:
        """Run the model on an image and return its detections. Nothing is written."""
        return {"suggestions": self._assist.suggest(self._project.find(name))}

    def between(self, name: str) -> dict[str, Any]:
        """Return boxes interpolated between the labelled frames around a frame of a clip. Nothing is written."""
        self._project.find(name)
        return {"suggestions": interpolated(self._project, name)}

    def save(self, name: str, body: bytes) -> dict[str, Any]:
        """Write the labels of an image. Raises `ConfigError` if they are invalid or the test split is locked."""
        image = self._project.find(name)
        self._refuse_locked(image)
        boxes = boxes_of(body, len(self._project.classes))
        return {"part": self._project.save_boxes(image, boxes).parent.name, "boxes": len(boxes)}

    def forget(self, name: str) -> dict[str, Any]:
        """Remove the labels of an image, which returns it to the inbox."""
        image = self._project.find(name)
        self._refuse_locked(image)
        return {"part": (image if image.parent.name == INBOX else self._project.to_inbox(image)).parent.name}

    def _refuse_locked(self, image: Path) -> None:
        if image.parent.name == "test" and read_splits(self._project.folder):
            raise ConfigError(
                "this image is in the locked test split: its labels must stay, or scores would not be comparable"
            )


def boxes_of(body: bytes, classes: int) -> list[Box]:
    """Return the boxes of `{"boxes": [{"class_id": 0, "xyxy": [x1, y1, x2, y2]}]}`, fractions. Raises `ConfigError`."""
    try:
        rows = json.loads(body)["boxes"]
        if not isinstance(rows, list) or len(rows) > MAX_BOXES:
            raise ConfigError(f"boxes: expected a list of at most {MAX_BOXES}")
        boxes = [_box(row) for row in rows]
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ConfigError(f"labels: expected boxes with class_id and xyxy ({error})") from error
    for number, box in enumerate(boxes, 1):
        if (what := why_unsound(box, classes)) is not None:
            raise ConfigError(f"box {number} {what}")
    return boxes


def _box(row: Any) -> Box:
    class_id = row["class_id"]
    x1, y1, x2, y2 = (float(value) for value in row["xyxy"])
    if type(class_id) is not int or class_id < 0 or not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise ConfigError("labels: expected whole class_ids and finite numbers")
    return Box(class_id, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)


def create_app(api: LabelApi) -> Any:
    """Return the Starlette application.

    Raises:
        MissingDependencyError: the extra `web` is not installed.
    """
    starlette = require("starlette.applications", extra="web").Starlette
    routing = require("starlette.routing", extra="web")
    responses = require("starlette.responses", extra="web")
    files = require("starlette.staticfiles", extra="web").StaticFiles
    in_thread = require("starlette.concurrency", extra="web").run_in_threadpool

    async def answered(act: Any, *arguments: Any) -> Response:
        fresh = {"cache-control": "no-store"}
        try:
            return responses.JSONResponse(await in_thread(act, *arguments), headers=fresh)  # type: ignore[no-any-return]
        except EngineError as error:
            return responses.JSONResponse({"error": str(error)}, 409, headers=fresh)  # type: ignore[no-any-return]

    async def page(request: Request) -> Response:
        return responses.FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})  # type: ignore[no-any-return]

    async def overview(request: Request) -> Response:
        return await answered(api.overview)

    async def item(request: Request) -> Response:
        name = request.path_params["name"]
        if request.method == "PUT":
            return await answered(api.save, name, await request.body())
        return await answered(api.forget if request.method == "DELETE" else api.item, name)

    async def suggestions(request: Request) -> Response:
        act = api.between if request.path_params["kind"] == "between" else api.suggest
        return await answered(act, request.path_params["name"])

    async def picture(request: Request) -> Response:
        try:
            place = await in_thread(api.picture, request.path_params["name"])
        except ConfigError as error:
            return responses.JSONResponse({"error": str(error)}, 404)  # type: ignore[no-any-return]
        return responses.FileResponse(place, headers={"cache-control": "no-cache"})  # type: ignore[no-any-return]

    return starlette(
        routes=[
            routing.Route("/", page),
            routing.Route("/api/project", overview),
            routing.Route("/api/items/{name}", item, methods=["GET", "PUT", "DELETE"]),
            routing.Route("/api/items/{name}/{kind}", suggestions, methods=["POST"]),
            routing.Route("/pictures/{name}", picture),
            routing.Mount("/static", files(directory=STATIC)),
        ]
    )
