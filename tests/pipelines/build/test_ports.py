"""Ports are taken before a model is loaded; the default one gives way, an address that was given does not."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import zmq

from engine.errors import SinkError
from pipelines.build.sinks import bound_publisher
from pipelines.config.file import load_config
from pipelines.config.models import Config, PublishConfig


@pytest.fixture
def taken() -> Iterator[str]:
    with zmq.Context() as context, context.socket(zmq.PUB) as other:
        other.bind("tcp://127.0.0.1:*")
        yield other.getsockopt_string(zmq.LAST_ENDPOINT)


def with_default(address: str) -> Config:
    """Return a configuration without an explicit address, whose default is this one."""
    return Config(publish=PublishConfig.model_construct(_fields_set=set(), address=address))


def test_the_default_port_gives_way_to_the_next_free_one(taken: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        publisher = bound_publisher(with_default(taken))
    assert publisher is not None
    assert int(publisher.address.rpartition(":")[2]) > int(taken.rpartition(":")[2])
    assert f"publishing at {publisher.address}" in caplog.text
    publisher.close()


def test_an_address_that_was_given_stays_an_error(taken: str) -> None:
    with pytest.raises(SinkError, match="another program uses this port"):
        bound_publisher(load_config(None, {"publish.address": taken}))


def test_no_publisher_is_bound_where_none_is_wanted() -> None:
    assert bound_publisher(load_config(None, {"publish.address": "none"})) is None
