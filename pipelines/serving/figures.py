"""The metrics of `framewire serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.metrics.exposition import Page, own_version

if TYPE_CHECKING:
    from pipelines.serving.models import ServedModel
    from pipelines.serving.requests import Server
    from pipelines.web.access import RequestCounts

BATCH_EDGES = (1, 2, 4, 8, 16, 32)


class ServeFigures:
    """Writes the metrics of a server of models; called from a thread other than the serving one.

    Args:
        server: its models and the bytes its requests hold.
        requests: counts the requests.
    """

    def __init__(self, server: Server, requests: RequestCounts) -> None:
        self._server, self._requests = server, requests

    def add_to(self, page: Page) -> None:
        """Add all metrics to a page."""
        page.gauge("framewire_serve_build_info", "Version of framewire.", "version").add(1, own_version())
        loaded = page.gauge("framewire_serve_model_loaded", "Whether each model is loaded.", "model")
        images = page.counter("framewire_serve_images_total", "Images recognised.", "model")
        tensors = page.counter("framewire_serve_tensors_total", "Tensor requests answered.", "model")
        refused = page.counter("framewire_serve_refused_total", "Requests for which the model had no time.", "model")
        failed = page.counter("framewire_serve_failed_total", "Requests on which the model failed.", "model")
        waiting = page.gauge("framewire_serve_waiting", "Waiting and running requests.", "model")
        batches = page.histogram("framewire_serve_batch_frames", "Images or tensors per inference.", "model")
        for name, model in self._server.models.items():
            worker = model.worker
            loaded.add(int(worker.is_ready), name)
            images.add(worker.done, name)
            tensors.add(0 if model.raw is None else model.raw.done, name)
            refused.add(worker.refused, name)
            failed.add(worker.failed, name)
            waiting.add(worker.waiting, name)
            sizes = _batches_of(model)
            below = [sum(n for size, n in sizes.items() if size <= edge) for edge in BATCH_EDGES]
            total = sum(size * n for size, n in sizes.items())
            batches.add_histogram(BATCH_EDGES, below, sum(sizes.values()), total, name)
        text = "Bytes of bodies and decoded images that requests currently hold."
        page.gauge("framewire_serve_held_bytes", text).add(self._server.budget.held)
        self._requests.add_to(page, "framewire_serve_requests_total", "framewire_serve_request_duration_seconds")

    def not_loaded(self) -> list[str]:
        """Return what the server is still loading, or could not load."""
        models = self._server.models
        return [f"model {name} is not loaded" for name, model in models.items() if not model.worker.is_ready]

    def facts(self) -> dict[str, Any]:
        """Return the facts of `/healthz`."""
        return {"models": {name: {"loaded": model.worker.is_ready} for name, model in self._server.models.items()}}


def _batches_of(model: ServedModel) -> dict[int, int]:
    sizes = dict(model.worker.batches)
    if model.raw is not None:
        for size, count in dict(model.raw.batches).items():
            sizes[size] = sizes.get(size, 0) + count
    return sizes
