"""Our batches of augmented images against torchvision's functional transforms on each image alone."""

from collections.abc import Callable

import pytest
import torch
import torchvision.transforms.functional as TF
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torchvision.transforms import InterpolationMode

from mnist_exp.data.augment import (  # fmt: skip
    Compose,
    RandomAffine,
    RandomCrop,
    RandomElastic,
    RandomRotation,
    Transform,
    affine,
    crop,
    displace,
    rotate,
)


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def images(request: pytest.FixtureRequest) -> Tensor:
    """103 images of noise, (103, C, 28, 28) uint8."""
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (103, request.param, 28, 28), generator=rng, dtype=torch.uint8)


def uniform(low: float, high: float, seed: int, count: int = 103) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=torch.Generator().manual_seed(seed))


def assert_equal(ours: Tensor, theirs: list[Tensor], exact: list[Tensor]) -> None:
    """To the bit, but where the exact grey value, in float64, lies between two: CPUs differ there, torchvision too."""
    differs = ours != torch.stack(theirs)
    ties = ((torch.stack(exact) % 1) - 0.5).abs() < 5e-4  # of float32: 28 pixels * 255 grey values * 6e-8
    assert not (differs & ~ties).any()
    assert ((ours.int() - torch.stack(theirs).int()).abs() <= 1).all()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_rotate_equals_torchvision(images: Tensor, interpolation: str) -> None:
    degrees = uniform(-180, 180, seed=1)
    alone, exact = (
        [
            TF.rotate(image, angle.item(), InterpolationMode(interpolation))
            for image, angle in zip(all_images, degrees, strict=True)
        ]
        for all_images in (images, images.double())
    )
    assert_equal(rotate(images, degrees, interpolation), alone, exact)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_affine_equals_torchvision(images: Tensor, interpolation: str) -> None:
    degrees, shear, scale = uniform(-180, 180, seed=1), uniform(-40, 40, seed=2), uniform(0.5, 2, seed=3)
    right, down = uniform(-9, 9, seed=4).round(), uniform(-9, 9, seed=5).round()
    numbers = torch.stack([degrees, right, down, scale, shear], dim=1).tolist()
    alone, exact = (
        [
            TF.affine(image, angle, [x, y], factor, [tilt, 0.0], InterpolationMode(interpolation))
            for image, (angle, x, y, factor, tilt) in zip(all_images, numbers, strict=True)
        ]
        for all_images in (images, images.double())
    )
    assert_equal(affine(images, degrees, right, down, scale, shear, interpolation), alone, exact)


@pytest.mark.parametrize(("height", "width", "padding"), [(28, 28, 2), (24, 20, 0), (31, 32, 3)])
def test_crop_equals_torchvision(images: Tensor, height: int, width: int, padding: int) -> None:
    top = uniform(0, 28 + 2 * padding - height + 0.999, seed=1).long()
    left = uniform(0, 28 + 2 * padding - width + 0.999, seed=2).long()
    corners = zip(images, top.tolist(), left.tolist(), strict=True)
    alone = [TF.crop(TF.pad(image, [padding]), y, x, height, width) for image, y, x in corners]
    assert torch.equal(crop(images, top, left, height, width, padding), torch.stack(alone))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_displace_equals_torchvision(images: Tensor, interpolation: str) -> None:
    images = images[..., :20]
    field = torch.randn(103, 2, 28, 20, generator=torch.Generator().manual_seed(1))
    shares = (field / torch.tensor([20 / 2, 28 / 2]).view(2, 1, 1)).permute(0, 2, 3, 1)
    alone, exact = (
        [
            TF.elastic_transform(image, share.unsqueeze(0).to(kind), InterpolationMode(interpolation))
            for image, share in zip(images.to(kind), shares, strict=True)
        ]
        for kind in (torch.float32, torch.float64)
    )
    assert_equal(displace(images, field, interpolation), [image.round().byte() for image in alone], exact)


def test_an_elastic_field_is_noise_smoothed_by_a_gaussian() -> None:
    noise = torch.rand(28, 28, dtype=torch.double) * 2 - 1
    each_pixel = RandomElastic(sigma=4, alpha=1, points=28).smoothing(28).double()
    smoothed = gaussian_filter(noise.numpy(), sigma=4, mode="constant", truncate=8)
    torch.testing.assert_close(each_pixel @ noise @ each_pixel.T, torch.from_numpy(smoothed), rtol=0, atol=1e-6)
    few = RandomElastic(sigma=4, alpha=1, points=8).smoothing(28).double()
    ours, theirs = few @ few.T, each_pixel @ each_pixel.T  # covariances along a side
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=1e-4)
    torch.testing.assert_close(ours[8:20, 8:20], theirs[8:20, 8:20], rtol=0.001, atol=1e-4)  # away from the edges


def test_elastic_moves_pixels_as_far_as_it_says() -> None:
    """By alpha / sqrt(3) times the norm of a Gaussian, in the middle of the image."""
    middle = torch.zeros(4000, 1, 28, 28, dtype=torch.uint8)
    middle[:, :, 14, 14] = 200
    elastic = RandomElastic(sigma=4, alpha=34, points=8, interpolation="nearest")
    u = torch.rand(4000, elastic.num_random, generator=torch.Generator().manual_seed(0))
    moved = elastic(middle, u).nonzero()[:, 2:].double()
    assert moved.mean(dim=0).tolist() == pytest.approx([14, 14], abs=0.1)
    expected = 34 / 3**0.5 / (2 * torch.pi**0.5 * 4)
    assert moved.std(dim=0).tolist() == pytest.approx([expected, expected], rel=0.05)


def test_noise_that_is_too_coarse_is_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"elastic\.points=8: must be 14 or more for 28 pixels at this sigma"):
        RandomElastic(sigma=2, alpha=34, points=8).center(images)


def test_random_numbers_span_the_whole_range_and_no_more() -> None:
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2, 2] = 255
    ends = torch.tensor([[0.0, 0.0], [0.5, 0.5], [1 - 2**-24, 1 - 2**-24]])  # the smallest and largest of torch.rand
    corners = RandomCrop(size=None, padding=2)(image.expand(3, -1, -1, -1), ends).flatten(1).argmax(dim=1)
    assert corners.tolist() == [4 * 5 + 4, 2 * 5 + 2, 0]


@pytest.mark.parametrize(
    ("transform", "u", "same_as"),
    [
        (RandomRotation(30), [0.0], lambda image: TF.rotate(image, -30)),
        (RandomRotation(30), [0.75], lambda image: TF.rotate(image, 15)),
        (
            RandomAffine(20, 0.1, (0.5, 1.5), 30),
            [0, 0, 1, 1, 0],
            lambda image: TF.affine(image, -20, [-3, 3], 1.5, [-30, 0]),
        ),
        (RandomCrop(24, 2), [0.0, 0.5], lambda image: TF.crop(TF.pad(image, [2]), 0, 4, 24, 24)),
    ],
)
def test_random_numbers_mean_what_torchvision_means(
    transform: Transform, u: list[float], same_as: Callable[[Tensor], Tensor], images: Tensor
) -> None:
    alone = torch.stack([same_as(image) for image in images])
    assert torch.equal(transform(images, torch.tensor([u]).expand(len(images), -1)), alone)


def test_compose_gives_each_transform_its_own_numbers(images: Tensor) -> None:
    turn, cut = RandomRotation(30), RandomCrop(20, 4)
    u = torch.rand(len(images), 3, generator=torch.Generator().manual_seed(0))
    both = Compose(turn=turn, cut=cut)
    assert both.num_random == 3
    assert torch.equal(both(images, u), cut(turn(images, u[:, :1]), u[:, 1:]))


def test_no_transform_leaves_images_alone(images: Tensor) -> None:
    none = Compose()
    assert none.num_random == 0
    assert torch.equal(none(images, torch.rand(len(images), 0)), images)
    assert torch.equal(none.center(images), images)


def test_evaluation_sees_the_centre_in_the_size_of_training(images: Tensor) -> None:
    augment = Compose(turn=RandomRotation(30), cut=RandomCrop(20, 2), bend=RandomAffine(9, 0.2, (0.5, 0.6), 9))
    assert torch.equal(augment.center(images), TF.center_crop(images, [20, 20]))
    assert torch.equal(Compose(cut=RandomCrop(None, 2)).center(images), images)


@pytest.mark.parametrize(
    "transform",
    [RandomRotation(30), RandomCrop(24, 2), RandomAffine(20, 0.1, (0.5, 1.5), 30), RandomElastic(4, 34, 8)],
    ids=lambda transform: type(transform).__name__,
)
def test_the_channels_of_an_image_move_together(transform: Transform, images: Tensor) -> None:
    u = torch.rand(len(images), transform.num_random, generator=torch.Generator().manual_seed(0))
    together = transform(images, u)
    assert together.shape[1] == images.shape[1]
    for channel in range(images.shape[1]):
        assert torch.equal(together[:, [channel]], transform(images[:, [channel]], u))


def test_a_crop_larger_than_the_padded_image_is_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"crop.size=33: larger than the padded image, 32 x 32 pixels"):
        RandomCrop(33, 2).center(images)
