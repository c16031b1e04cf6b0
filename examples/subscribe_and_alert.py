"""Raise an alert when a place gets crowded: python examples/subscribe_and_alert.py [ADDRESS].

Start an engine first, in another terminal: `framewire demo`, or `framewire run` on a camera.
"""

import sys

from engine import Subscriber

CROWD = 6
ALERTS = 2


def main() -> None:
    """Print an alert each time more than CROWD people come into view, and end after the second."""
    address = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5555"
    crowded: dict[str, bool] = {}
    alerts = 0
    for message in Subscriber(address, topics=["v1/frame/"], on_gap=lambda gap: print(f"missed messages: {gap}")):
        people = [thing for thing in message.objects if thing.class_name == "person"]
        was_crowded = crowded.get(message.source_id, False)
        # The alert ends at two people fewer, so that one person coming and going does not raise it repeatedly.
        crowded[message.source_id] = len(people) > (CROWD - 2 if was_crowded else CROWD)
        if crowded[message.source_id] and not was_crowded:
            alerts += 1
            print(f"ALERT: {len(people)} people on {message.source_id}, frame {message.frame_id}")
        if alerts == ALERTS:
            return


if __name__ == "__main__":
    main()
