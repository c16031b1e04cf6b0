"""Loads a model at a further size in the background, while other frames are detected at the sizes already loaded.

An exception to the rule that only stages and the pipeline start threads: compiling a graph is one native call of up to
seconds, and on the submitting thread it would keep every camera of the model waiting. The thread touches nothing but
the model that it loads, ends once that is loaded, and is a daemon, so it cannot keep the process alive.
"""

from __future__ import annotations

import threading

from engine.detection.input_size.sized import SizedModel

CLOSE_WAIT_S = 0.3


class Loading:
    """One model being loaded. Create, query and abandon it on the detector's thread.

    Args:
        sized: the model, not yet open; nothing else may use it until `is_done`.
    """

    def __init__(self, sized: SizedModel) -> None:
        self.sized = sized
        self.failure: Exception | None = None
        self._lock = threading.Lock()
        self._is_done = self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name="size-loader", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether the model is loaded, or `failure` says why it is not."""
        with self._lock:
            return self._is_done

    def wait(self) -> None:
        """Wait until the loading is done."""
        self._thread.join()

    def abandon(self) -> None:
        """Free the model: now, or as soon as the native call that loads it returns. Waits at most 0.3 s."""
        with self._lock:
            self._is_abandoned, is_done = True, self._is_done
        if is_done:
            self.sized.close()
        self._thread.join(CLOSE_WAIT_S)

    def _run(self) -> None:
        try:
            self.sized.open()
        except Exception as error:  # noqa: BLE001 - the thread ends here; the detector's thread handles or raises it
            self.failure = error
        with self._lock:
            self._is_done, is_abandoned = True, self._is_abandoned
        if is_abandoned:
            self.sized.close()
