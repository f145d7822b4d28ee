"""Images become those that a model takes: as Pillow and torchvision make them, or with their figure found."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from mnist_exp.data import sources
from mnist_exp.use import prepare
from mnist_exp.use.prepare import Preparation

NOISE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def test_pad_crop_and_stretch_are_pillows() -> None:
    image = Image.fromarray(NOISE)
    for way, expected in {
        "pad": ImageOps.pad(image, (32, 32)),
        "crop": ImageOps.fit(image, (32, 32)),
        "stretch": image.resize((32, 32)),
    }.items():
        prepared = Preparation(way, (3, 32, 32))(image)
        assert (prepared.pixels == np.asarray(expected).transpose(2, 0, 1)).all()
        assert prepared.figures == 1
    stretched = v2.functional.resize(torch.from_numpy(NOISE).permute(2, 0, 1), [32, 32], v2.InterpolationMode.BICUBIC)
    ours = Preparation("stretch", (3, 32, 32))(image).pixels
    assert np.abs(ours.astype(int) - stretched.numpy()).max() <= 2


def test_a_model_gets_the_channels_that_it_takes() -> None:
    gray = Preparation("stretch", (1, 60, 90))(Image.fromarray(NOISE)).pixels
    assert (gray[0] == np.asarray(Image.fromarray(NOISE).convert("L"))).all()
    color = Preparation("stretch", (3, 60, 90))(Image.fromarray(gray[0])).pixels
    assert (color == gray).all()
    assert color.shape == (3, 60, 90)
    figure = Preparation("mnist", (3, 28, 28))(Image.fromarray(NOISE)).pixels
    assert figure.shape == (3, 28, 28)


@pytest.mark.parametrize("way", prepare.WAYS)
def test_images_of_the_data_set_stay_as_they_are(way: str) -> None:
    preparation = Preparation(way, (1, 8, 8))
    images = sources.digits("").test.images.numpy()
    for image in images:
        assert (preparation(Image.fromarray(image[0])).pixels == image).all()
    assert len(images) == 297


def test_the_negative_of_an_image_of_the_data_set_becomes_that_image() -> None:
    for digit in sources.digits("").test.images.numpy():
        assert (Preparation("frame", (1, 8, 8))(Image.fromarray(255 - digit[0])).pixels == digit).all()
        assert (Preparation("pad", (1, 8, 8))(Image.fromarray(255 - digit[0])).pixels == 255 - digit).all()


def test_there_is_no_other_way() -> None:
    with pytest.raises(ValueError, match=r"^prepare=cut: no such way, choose from mnist, emnist, frame, pad, crop"):
        Preparation("cut", (1, 8, 8))
