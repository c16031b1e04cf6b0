"""How long a test lets a busy machine take for actions that are promised to happen at once."""

from __future__ import annotations

AT_ONCE_S = 5.0
"""What ends within this did not hang: a hang lasts 10 s and more, or for ever. A second and less is what is promised,
and what `framewire bench --faults` and `tools/soak.py` measure; a test on a shared machine cannot."""
