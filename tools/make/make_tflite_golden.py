#!/usr/bin/env python3
"""Make a small TensorFlow Lite detector with random weights, and its outputs from TensorFlow's own interpreter.

The model has the layout of Ultralytics 8.0 to 8.2: images with channels last, boxes as fractions, metadata in a ZIP
archive after the model. `whole.tflite` has integers for input and output.

    pip install tensorflow-cpu
    python tools/make/make_tflite_golden.py tests/golden/tflite
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

SIDE = 64
CLASSES = 5


def detector() -> Any:
    """Return a model from (1, 64, 64, 3) RGB 0..1 to (1, 4 + classes, 84)."""
    images = keras.Input((SIDE, SIDE, 3), batch_size=1, name="images")
    found, features = [], images
    for stride, step in ((8, 8), (16, 2), (32, 2)):
        features = keras.layers.Conv2D(6, 9 if step == 8 else 3, step, padding="same", activation="tanh")(features)
        cells = SIDE // stride
        rows = keras.layers.Conv2D(4 + CLASSES, 1, kernel_initializer=keras.initializers.RandomNormal(0, 1.5))(features)
        rows = keras.ops.sigmoid(keras.layers.Reshape((cells * cells, 4 + CLASSES))(rows))
        grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(1, -1, 2).astype(np.float32)
        centre, size = (rows[..., :2] + grid) * (stride / SIDE), rows[..., 2:4] * (4 * stride / SIDE)
        found.append(keras.ops.concatenate([centre, size, rows[..., 4:]], -1))
    return keras.Model(images, keras.ops.transpose(keras.ops.concatenate(found, 1), (0, 2, 1)))


def samples() -> Iterator[list[np.ndarray]]:
    """Yield (1, SIDE, SIDE, 3) float32 images of random numbers in 0..1, for calibrating the integers."""
    random = np.random.default_rng(1)
    for _ in range(20):
        yield [random.random((1, SIDE, SIDE, 3), np.float32)]


def whole_numbers(model: Any) -> bytes:
    """Return the model with int8 arithmetic, inputs and outputs."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def output_of(model: Path, image: np.ndarray) -> np.ndarray:
    """Return (1, 4 + classes, 84) float32, TensorFlow's own output for an (H, W, 3) uint8 BGR image."""
    interpreter = tf.lite.Interpreter(str(model))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None, ..., ::-1].astype(np.float32) / 255)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def main() -> None:
    """Write the models, and an image with the output for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    model = detector()
    path = folder / "fractions.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    (folder / "whole.tflite").write_bytes(whole_numbers(model))

    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    np.savez_compressed(folder / "fractions.npz", image=image, output=output_of(path, image))

    facts = {"task": "detect", "stride": 32, "imgsz": [SIDE, SIDE], "names": {i: f"thing {i}" for i in range(CLASSES)}}
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.txt", str(facts))


if __name__ == "__main__":
    main()
