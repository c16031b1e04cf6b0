"""Playlists that begin again while they are read. Imports no numpy."""

from __future__ import annotations

import re

BEGINS_AGAIN = "the playlist begins again: the camera or its server has restarted"
_NUMBER = re.compile(rb"^#EXT-X-MEDIA-SEQUENCE:\s{0,8}(\d{1,18})", re.MULTILINE)
_SEGMENT = re.compile(rb"^#EXTINF:", re.MULTILINE)


class Renewal:
    """Notices that an encoder has restarted and numbers its segments from the beginning.

    FFmpeg would wait until the numbers reach the old ones, which may take days.
    """

    def __init__(self) -> None:
        self._first: dict[str, int] = {}

    def has_begun_again(self, url: str, playlist: bytes) -> bool:
        """Return whether all segments of a playlist precede those that the same address listed before.

        >>> renewal, segment = Renewal(), b"#EXTINF:2,\\na.ts\\n"
        >>> lists = [b"#EXTM3U\\n#EXT-X-MEDIA-SEQUENCE:%d\\n" % number + 2 * segment for number in (40, 39, 0)]
        >>> [renewal.has_begun_again("http://cam/live.m3u8", each) for each in lists]
        [False, False, True]
        """
        number, count = _NUMBER.search(playlist), len(_SEGMENT.findall(playlist))
        if not count:
            return False
        first = int(number[1]) if number else 0
        before = self._first.get(url, 0)
        self._first[url] = first
        return first + count < before
