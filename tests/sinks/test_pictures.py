"""JPEGs next to the messages: at their rate, in their size, and blurred before they are encoded."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from engine.data import Detections, Packet, Run, Tracks
from engine.errors import ConfigError
from engine.sinks.pictures import Pictures, Snapshot
from engine.sinks.zmq import ZmqPublisher
from engine.subscriber import NoMessageError, Subscriber
from engine.wire import CropMessage, ImageMessage, Message
from tests.wire.samples import RUN, packet

SECOND = 1_000_000_000


def scene(boxes: list[list[float]], *, ids: list[int] | None = None, scores: list[float] | None = None) -> Packet:
    """Return a frame of noise, 200 x 100, with tracks of class person (even rows) and bicycle (odd rows)."""
    count = len(boxes)
    made = packet(0, size_wh=(200, 100))
    noise = np.random.default_rng(5).integers(0, 256, (100, 200, 3), np.uint8)
    classes, score = [n % 2 for n in range(count)], scores or [0.5] * count
    tracks = Tracks(np.array(boxes).reshape(-1, 4), score, classes, ids or range(1, count + 1), None, range(count))
    detections = Detections(tracks.xyxy, tracks.score, tracks.class_id)
    frame = dataclasses.replace(made.frame, image=noise)
    return dataclasses.replace(
        made, frame=frame, tracks=tracks, detections=detections, run=Run("e", 1, "m", RUN.class_names)
    )


def opened(picture: Snapshot) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape[1::-1] == picture.size_wh
    return image


def test_frames_are_shown_at_their_rate_per_source() -> None:
    pictures, seen = Pictures(images_per_s=2), []
    for n in range(41):  # 20 frames per second
        for name in ("gate", "yard"):
            made = packet(0, source_id=name)
            seen += [(name, p.kind) for p in pictures.of(made, n * SECOND // 20)]
    assert seen.count(("gate", "image")) == seen.count(("yard", "image")) == 5
    assert list(Pictures(images_per_s=0).of(packet(1), 0)) == []


def test_large_frames_are_shrunk_and_small_ones_are_not() -> None:
    (large,) = Pictures().of(packet(0, size_wh=(1920, 1080)), 0)
    (small,) = Pictures().of(packet(0, size_wh=(320, 200)), 0)
    assert (large.size_wh, small.size_wh) == ((640, 360), (320, 200))
    assert (large.region, small.region) == ((0, 0, 1920, 1080), (0, 0, 320, 200))
    opened(large)


def test_a_new_track_is_shown_once_at_its_best() -> None:
    pictures, seen = Pictures(images_per_s=0, crops=True), []
    for n, score in enumerate([0.5, 0.9, 0.6, 0.5, 0.99, 0.99]):
        made = scene([[20, 20, 60, 80]], ids=[7], scores=[score])
        seen += list(pictures.of(made, n * SECOND // 3))
    (picture,) = seen
    assert picture.track == (7, "person", pytest.approx(0.9))
    assert picture.region == (16, 14, 64, 86)
    opened(picture)


def test_what_must_not_be_recognised_is_blurred_and_the_rest_is_not() -> None:
    made = scene([[20, 20, 80, 80], [120, 20, 180, 80]])
    (plain,) = Pictures(quality=100).of(made, 0)
    (blurred,) = Pictures(quality=100, blur=["person"]).of(made, 0)
    before, after = opened(plain), opened(blurred)
    assert after[30:70, 30:70].std() < before[30:70, 30:70].std() / 2
    assert np.abs(after[:, 100:].astype(int) - before[:, 100:]).mean() < 3
    assert blurred.blurred == ("person",)
    np.testing.assert_array_equal(made.frame.image, scene([]).frame.image)


def test_regions_of_a_source_are_blurred_whatever_is_in_them() -> None:
    made = scene([])
    regions = {made.frame.source_id: [(20.0, 10.0, 120.0, 60.0)], "another": [(0.0, 0.0, 200.0, 100.0)]}
    [picture] = Pictures(images_per_s=1, quality=100, blur_regions=regions).of(made, 0)
    [plain] = Pictures(images_per_s=1, quality=100).of(made, 0)
    difference = np.abs(opened(picture).astype(int) - opened(plain).astype(int)).mean(axis=2)
    assert difference[10:60, 20:120].mean() > 20
    assert difference[88:, :].mean() == 0  # a JPEG block or two further on nothing has changed
    with pytest.raises(ConfigError, match="has no area"):
        Pictures(blur_regions={"gate": [(10.0, 0.0, 10.0, 5.0)]})


def test_a_detection_that_no_track_follows_is_blurred_too() -> None:
    made = dataclasses.replace(scene([[20, 20, 80, 80]]), tracks=Tracks.empty())
    (blurred,) = Pictures(quality=100, blur=["person"]).of(made, 0)
    assert opened(blurred)[30:70, 30:70].std() < 60


def test_no_crop_is_made_of_a_class_that_is_blurred() -> None:
    pictures = Pictures(images_per_s=0, crops=True, blur=["person"])
    made = scene([[20, 20, 80, 80], [120, 20, 180, 80]])
    found = [*pictures.of(made, 0), *pictures.of(made, 2 * SECOND)]
    assert [p.track[1] for p in found if p.track] == ["bicycle"]


@pytest.mark.parametrize("box", [[-50, -50, -10, -10], [0, 0, 200, 100], [199, 99, 400, 300], [50, 50, 50, 50]])
def test_boxes_at_and_beyond_the_border_do_no_harm(box: list[float]) -> None:
    pictures = Pictures(crops=True, blur=["bicycle"])
    made = scene([box, box])
    for n in (0, 2):
        for picture in pictures.of(made, n * SECOND):
            opened(picture)


@pytest.mark.parametrize("wrong", [{"images_per_s": -1}, {"max_side": 1}, {"quality": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="give 0 to 60"):
        Pictures(**wrong)  # type: ignore[arg-type]


def test_readers_get_the_picture_with_its_message() -> None:
    publisher = ZmqPublisher("tcp://127.0.0.1:*", pictures=Pictures(images_per_s=60, crops=True))
    publisher.open(RUN)
    found: dict[type, Message] = {}
    with Subscriber(publisher.address, ["v1/image/gate/", "v1/crop/"]) as subscriber:
        seq = 0
        while len(found) < 2:
            made = dataclasses.replace(scene([[20, 20, 60, 80]], ids=[1 + seq // 3]), seq=seq, run=RUN)
            publisher.write(made)
            seq += 1
            try:
                message = subscriber.receive(0.02)
            except NoMessageError:
                continue
            assert message is not None
            found[type(message)] = message
    publisher.close()
    assert set(found) == {ImageMessage, CropMessage}
    for message in found.values():
        assert isinstance(message, ImageMessage)
        assert message.jpeg.startswith(b"\xff\xd8")
        assert cv2.imdecode(np.frombuffer(message.jpeg, np.uint8), 1) is not None


def test_a_class_that_the_model_has_not_is_no_promise() -> None:
    with pytest.raises(ConfigError, match=r"no class 'Person': did you mean person\?"):
        list(Pictures(blur=["Person"]).of(scene([[10, 10, 60, 60]]), 0))


def test_only_what_was_hidden_is_reported() -> None:
    (empty,) = Pictures(blur=["person"]).of(scene([]), 0)
    assert empty.blurred == ()
    (bicycle_only,) = Pictures(blur=["person", "bicycle"]).of(scene([[10, 10, 60, 60]]), 0)
    assert bicycle_only.blurred == ("person",)


def test_a_region_drawn_for_another_size_holds_the_pictures_back(caplog: pytest.LogCaptureFixture) -> None:
    pictures = Pictures(images_per_s=60, blur_regions={"gate": [(300, 0, 400, 50)]})
    assert list(pictures.of(scene([]), 0)) == []
    assert list(pictures.of(scene([]), SECOND)) == []
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "outside its frames of 200x100" in caplog.text


def test_shares_of_the_frame_are_no_blur_region() -> None:
    with pytest.raises(ConfigError, match="not fractions"):
        Pictures(blur_regions={"gate": [(0.1, 0.1, 0.9, 0.9)]})


def test_frames_and_crops_have_square_pixels() -> None:
    """No viewer stretches a JPEG; `region` still refers to the pixels of the frame."""
    made = scene([[40, 20, 80, 60]])
    made = dataclasses.replace(made, frame=dataclasses.replace(made.frame, pixel_aspect=1.5))
    pictures = Pictures(crops=True, max_side=150)
    (image,), (_, crop) = [list(pictures.of(made, at_ns)) for at_ns in (0, 2 * SECOND)]
    assert (image.size_wh, image.region) == ((150, 50), (0, 0, 200, 100))
    x1, y1, x2, y2 = crop.region
    assert crop.size_wh == (round((x2 - x1) * 1.5), y2 - y1)
    assert opened(image).shape[:2] == (50, 150)
