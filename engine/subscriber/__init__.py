"""The client: typed messages from a publisher, with every loss reported. Needs only pyzmq, numpy and msgspec."""

from engine.subscriber.client import NoMessageError, Subscriber, frames, subscribe
from engine.subscriber.latest import LatestReader
from engine.subscriber.reader import ALL_TOPICS, Gap

__all__ = ["ALL_TOPICS", "Gap", "NoMessageError", "Subscriber", "LatestReader", "frames", "subscribe"]
