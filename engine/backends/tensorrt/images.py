"""Uploading images of any size to the GPU: each is copied once into page-locked memory, and from there to the GPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.backends.cuda.driver import CudaApi, PinnedArray, free_quietly
from engine.backends.device import Pixels
from engine.lazy_image import YuvPlanes

logger = logging.getLogger(__name__)


class ImageStage:
    """A slot's memory for uint8 images, on the GPU and page-locked on the host. It grows as needed.

    Use it on the GPU's thread, and only when earlier uploads have finished.
    """

    def __init__(self, cuda: CudaApi) -> None:
        self._cuda = cuda
        self._host: PinnedArray | None = None
        self._address, self._size = 0, 0

    def send(self, batch: NDArray[np.uint8], stream: int) -> int:
        """Copy a contiguous (b, H, W, 3) batch to the GPU and return its address there.

        Do not change the batch until the stream has passed this copy.
        """
        address = self._gpu_room(batch.nbytes)
        self._cuda.copy_to_gpu(address, batch, stream)
        return address

    def upload(self, images: Sequence[Pixels], stream: int) -> list[int]:
        """Copy images of any sizes to the GPU through page-locked memory, without padding; return the address of each.

        The planes of an image lie one after the other. The caller may change them at once. While one is copied, earlier
        ones are transferred. A Jetson copies too: its GPU does not cache page-locked memory, and the letterbox kernels
        read most bytes more than once.
        """
        size = sum(image.nbytes for image in images)
        host = self._host_room(size)
        address = self._gpu_room(size)
        addresses, place = [], 0
        for image in images:
            packed = host.array[place : place + image.nbytes]
            pack(image, packed)
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
            self._host = self._cuda.pinned((size,), np.uint8)
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
        """Free the memory, even if the GPU is lost."""
        free_quietly(self._free_gpu)
        free_quietly(self._free_host)


def pack(image: Pixels, packed: NDArray[np.uint8]) -> None:
    """Copy an image, or its planes one after the other, into (N,) uint8 of `image.nbytes`."""
    place = 0
    for part in (image.luma, *image.colours) if isinstance(image, YuvPlanes) else (image,):
        np.copyto(packed[place : place + part.size].reshape(part.shape), part)
        place += part.size
