"""Images of any size on their way to the GPU: copied once into page-locked memory, from where the GPU takes them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.backends.cuda.driver import CudaApi, PinnedArray, free_quietly

logger = logging.getLogger(__name__)


class ImageStage:
    """Memory of one slot for uint8 images, on the GPU and page-locked on the host; it grows as needed.

    Belongs to the GPU's thread; at each call nothing that was sent before may be under way.
    """

    def __init__(self, cuda: CudaApi) -> None:
        self._cuda = cuda
        self._host: PinnedArray | None = None
        self._address, self._size = 0, 0

    def send(self, batch: NDArray[np.uint8], stream: int) -> int:
        """Copy a contiguous batch to the GPU from where it lies, and return its address there.

        It must not change until the stream is past this.
        """
        address = self._gpu_room(batch.nbytes)
        self._cuda.copy_to_gpu(address, batch, stream)
        return address

    def upload(self, images: Sequence[NDArray[np.uint8]], stream: int) -> list[int]:
        """Copy images of any size each into page-locked memory, and return where the GPU finds each.

        They may change at once. While one is copied, the ones before travel; a Jetson reads them in place.
        """
        size = sum(image.nbytes for image in images)
        host = self._host_room(size)
        address = self._gpu_room(size) if host.device_address is None else host.device_address
        addresses, place = [], 0
        for image in images:
            packed = host.array[place : place + image.nbytes]
            np.copyto(packed.reshape(image.shape), image)
            if host.device_address is None:
                self._cuda.copy_to_gpu(address + place, packed, stream)
            addresses.append(address + place)
            place += image.nbytes
        return addresses

    def _gpu_room(self, size: int) -> int:
        if size > self._size:
            self._free_gpu()
            self._address, self._size = self._cuda.allocate(size), size
        return self._address

    def _host_room(self, size: int) -> PinnedArray:
        if self._host is None or self._host.array.nbytes < size:
            self._free_host()
            self._host = self._cuda.pinned((size,), np.uint8, mapped=self._cuda.gpu.is_integrated)
        return self._host

    def _free_gpu(self) -> None:
        size, self._size = self._size, 0
        if size:
            self._cuda.free(self._address)

    def _free_host(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            self._cuda.free_pinned(host)

    def close(self) -> None:
        """Free the memory, also where the GPU is lost."""
        free_quietly(self._free_gpu)
        free_quietly(self._free_host)
