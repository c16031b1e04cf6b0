"""Names of the 80 classes of COCO."""

from __future__ import annotations

COCO_NAMES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""In the order that every detector trained on COCO-80 uses; for models that have 80 classes and name none."""

COCO_91_GAPS = frozenset({0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""Category numbers up to 90 that COCO's own files leave out."""

COCO_80_FROM_91: tuple[int, ...] = tuple(
    -1 if number in COCO_91_GAPS else number - sum(gap < number for gap in COCO_91_GAPS) for number in range(91)
)
"""Position in `COCO_NAMES` by category number, -1 for the gaps.

>>> COCO_NAMES[COCO_80_FROM_91[1]], COCO_NAMES[COCO_80_FROM_91[90]]
('person', 'toothbrush')
"""
