"""One chain of corrections for cameras and data sets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.data import SourceStatus
from engine.errors import ConfigError
from engine.sources.open import open_source
from engine.sources.preparation import Lens, Preparation, PreparedSource
from engine.testing.contracts.source import check_source
from pipelines.build.sources import build_source, named_sources, prepared_as
from pipelines.config.file import load_config

CONFIG = """
sources:
  - uri: {clip}
    source_id: gate
    prepare:
      lens: {{k1: -0.2}}
      region: [0.25, 0, 1, 0.5]
      denoise: median
      contrast: 1.2
      brightness: 0.1
      gamma: 0.9
      equalise: true
  - uri: {clip}
    source_id: plain
"""


def scene() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 256, (60, 80, 3)).astype(np.uint8), (0, 0), 2)


@pytest.mark.parametrize("key", ["contrast", "brightness", "gamma"])
def test_light_follows_the_curve_and_keeps_the_picture(key: str) -> None:
    image = scene()
    before = image.copy()
    value = {"contrast": 2.0, "brightness": -0.25, "gamma": 2.0}[key]
    found = Preparation(**{key: value}).apply(image)
    level = image / 255
    expected = {"contrast": (level - 0.5) * 2 + 0.5, "brightness": level - 0.25, "gamma": level**2}[key]
    np.testing.assert_allclose(found, np.clip(expected, 0, 1) * 255, atol=0.51)
    np.testing.assert_array_equal(image, before)


def test_the_lens_correction_undoes_a_known_distortion() -> None:
    """Points of a straight line, moved by the lens, lie on it again."""
    lens = Lens(focal=0.8, k1=-0.25)
    camera = np.array([[0.8 * 200, 0, 100], [0, 0.8 * 200, 60], [0, 0, 1]])
    image = np.zeros((120, 200, 3), np.uint8)
    for x in np.linspace(-0.5, 0.5, 400):  # a horizontal line of the scene, as this lens shows it
        seen, _ = cv2.projectPoints(
            np.array([[x, -0.2, 1.0]]), np.zeros(3), np.zeros(3), camera, np.array([-0.25, 0, 0, 0.0])
        )
        cv2.circle(image, tuple(np.round(seen[0, 0] * 8).astype(int).tolist()), 8, (255, 255, 255), -1, cv2.LINE_AA, 3)

    def height_of_line(picture: np.ndarray) -> np.ndarray:
        columns = picture[:, 40:160, 0].astype(float)
        return (columns * np.arange(120)[:, None]).sum(axis=0) / columns.sum(axis=0)

    assert np.ptp(height_of_line(image)) > 1
    assert np.ptp(height_of_line(Preparation(lens=lens).apply(image))) < 0.5


def test_noise_is_removed_and_edges_stay() -> None:
    clean = np.full((60, 80, 3), 40, np.uint8)
    clean[:, 40:] = 200
    rng = np.random.default_rng(0)
    noisy = np.clip(clean + rng.normal(0, 12, clean.shape), 0, 255).astype(np.uint8)
    for kind in ("median", "bilateral"):
        found = Preparation(denoise=kind).apply(noisy).astype(int)
        assert np.abs(found - clean).mean() < 0.7 * np.abs(noisy.astype(int) - clean).mean()
        assert found[:, 42:].mean() - found[:, :38].mean() > 150


def test_a_prepared_source_keeps_the_promises_of_a_source() -> None:
    preparation = Preparation(region=(0.5, 0, 1, 1), brightness=0.2)
    check_source(lambda: PreparedSource(open_source("synthetic://?width=64&height=48&count=20"), preparation))


def test_frames_and_states_have_the_size_of_the_region() -> None:
    source = PreparedSource(
        open_source("synthetic://?width=64&height=48&count=3"), Preparation(region=(0.5, 0, 1, 0.5))
    )
    told: list[SourceStatus] = []

    class Listener:
        def status(self, status: SourceStatus) -> None:
            told.append(status)

        def lost(self, count: int, cause: str) -> None:
            raise AssertionError(cause)

    source.attach(Listener())
    sizes = {(frame.width, frame.height) for frame in source}
    assert sizes == {(32, 24)}
    assert (source.info.width, source.info.height) == (32, 24)
    assert {(s.info.width, s.info.height) for s in told if s.state == "live"} == {(32, 24)}


def test_the_configuration_of_a_source_prepares_camera_and_pictures_alike(tmp_path: Path) -> None:
    image = tmp_path / "one.png"
    cv2.imwrite(str(image), scene())
    file = tmp_path / "cameras.yaml"
    file.write_text(CONFIG.format(clip=image))
    [(name, config), _] = named_sources(load_config(str(file), {}, []))
    [frame] = build_source(config, name)
    assert frame.image.shape == (30, 60, 3)
    np.testing.assert_array_equal(frame.image, prepared_as(f"{file}:gate").apply(scene()))
    for text, message in ((f"{file}:plain", "no prepare"), (f"{file}:door", "no source 'door'"), ("gate", "CONFIG")):
        with pytest.raises(ConfigError, match=message):
            prepared_as(text)


@pytest.mark.parametrize("wrong", [{"region": (0.5, 0, 0.5, 1)}, {"gamma": 0.0}, {"denoise": "strong"}])
def test_values_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Preparation(**wrong)  # type: ignore[arg-type]
