"""Child processes of the tests."""

from __future__ import annotations

import psutil


def running_children(word: str) -> list[psutil.Process]:
    """Return the children of this process whose command line contains a word, without those that have ended.

    A child that has ended stays a zombie until its exit code is read, which a busy machine may delay.
    """
    found = []
    for child in psutil.Process().children():
        try:
            words = child.cmdline()
        except psutil.Error:  # ended, or ended and not yet reaped
            continue
        if word in " ".join(words):
            found.append(child)
    return found
