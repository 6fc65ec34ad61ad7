"""uint8 images: the codes and outputs of the same images normalised to float32."""

from __future__ import annotations

import numpy as np
import pytest
from native_sessions import ISAS, SplitSession
from quantized_graphs import QuantizedBuilder

from edgeq import Session
from edgeq.data import Preprocessing
from edgeq.errors import UsageError
from edgeq.exporters.edgeq_file import encode
from edgeq.exporters.edgeq_format import ModelInfo
from edgeq.passes import channels_last, lower

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
PREPROCESSING = {
    "imagenet": Preprocessing(**IMAGENET),
    "bgr": Preprocessing(mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395), channels="bgr"),
    "one mean": Preprocessing(mean=(127.5,), std=(127.5,)),
    "identity": Preprocessing(),
    "gray": Preprocessing(mean=(33.0,), std=(78.5,), channels="gray"),
}


def _file(preprocessing: Preprocessing | None, scale: float, nhwc: bool = False) -> bytes:
    b = QuantizedBuilder(np.random.default_rng(4), "w8a8")
    channels = 3 if preprocessing is None else preprocessing.channel_count
    if nhwc:
        x = b.transpose(b.input(26, 31, channels, scale=scale), 0, 3, 1, 2)
    else:
        x = b.input(channels, 26, 31, scale=scale)
    graph = b.finish(b.conv(x, 6, (3, 3), (2, 2), (1, 1, 1, 1), clamp=True))
    return encode(lower(channels_last(graph)), ModelInfo(preprocessing=preprocessing))


def _images(channels: int, batch: int) -> np.ndarray:
    """Every pixel value in every channel."""
    images = np.random.default_rng(batch).integers(0, 256, (batch, 26, 31, channels), np.uint8)
    images[0, :16, :16] = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    return images


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", PREPROCESSING)
def test_images_equal_their_float_values(name: str, isa: str) -> None:
    preprocessing = PREPROCESSING[name]
    # Scales at which quotients are near ties, exact ties, and clamped.
    for scale in (0.0186584, 0.5 / 127.5, 0.5, 2.0):
        content = _file(preprocessing, scale)
        for threads in (1, 3):
            session = SplitSession(content, threads, max_isa=isa)
            assert session.image_shape == (26, 31, preprocessing.channel_count)
            for batch in (1, 3):
                images = _images(preprocessing.channel_count, batch)
                floats = preprocessing.apply(images)
                np.testing.assert_array_equal(session.run(images), session.run(floats))
                found, expected = session.dump(images), session.dump(floats)
                for tensor, codes in expected.items():
                    np.testing.assert_array_equal(found[tensor], codes, err_msg=f"{tensor}, scale {scale}")


def test_an_image_may_lie_anyhow_in_memory() -> None:
    session = Session(_file(PREPROCESSING["imagenet"], 0.02))
    images = _images(3, 2)
    np.testing.assert_array_equal(session.run(images[:, ::-1]), session.run(images[:, ::-1].copy()))


def test_images_of_a_model_with_channels_last() -> None:
    preprocessing = PREPROCESSING["imagenet"]
    session = Session(_file(preprocessing, 0.02, nhwc=True))
    images = _images(3, 2)
    floats = preprocessing.apply(images).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(session.run(images), session.run(floats))


def test_images_need_a_normalisation() -> None:
    session = Session(_file(None, 0.02))
    assert session.image_shape is None
    with pytest.raises(UsageError, match=r"x0 has dtype uint8.*does not say how they are normalised.*--mean and --std"):
        session.run(_images(3, 1))


def test_images_of_another_size_are_refused() -> None:
    session = Session(_file(PREPROCESSING["imagenet"], 0.02))
    with pytest.raises(UsageError, match=r"shape \[1, 3, 26, 31\]; the model takes \[N, 26, 31, 3\]"):
        session.run(_images(3, 1).transpose(0, 3, 1, 2))
    with pytest.raises(UsageError, match=r"the model takes \[N, 26, 31, 3\]"):
        session.run(_images(1, 1))


def test_images_for_several_inputs_are_refused() -> None:
    b = QuantizedBuilder(np.random.default_rng(4), "w8a8")
    graph = b.finish(b.binary("add", b.input(3, 4, 4), b.input(3, 4, 4)))
    session = Session(encode(lower(channels_last(graph)), ModelInfo(preprocessing=PREPROCESSING["imagenet"])))
    images = np.zeros((1, 4, 4, 3), np.uint8)
    with pytest.raises(UsageError, match="several inputs"):
        session.run([images, images])


def test_images_for_an_input_of_other_channels_are_refused() -> None:
    b = QuantizedBuilder(np.random.default_rng(4), "w8a8")
    graph = b.finish(b.conv(b.input(5, 4, 4), 4))
    session = Session(encode(lower(channels_last(graph)), ModelInfo(preprocessing=PREPROCESSING["imagenet"])))
    with pytest.raises(UsageError, match=r"\[-1, 4, 4, 5\] is no image of 3 channels"):
        session.run(np.zeros((1, 4, 4, 5), np.uint8))
