"""Random augmentation of whole batches, where each image has its own random numbers.

All randomness is an argument: equal random numbers give equal images, in batches of any size. Results equal those of
rotate, affine, pad and crop in torchvision.transforms.functional, called on each image alone.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


class Transform:
    """The base of all transforms, which leaves images as they are.

    Attributes:
        num_random: How many random numbers each image takes.
    """

    num_random = 0

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the images, transformed at random.

        Args:
            images: uint8 (N, C, H, W), on any device.
            u: Random numbers, uniform in [0, 1), (N, num_random), on the same device or on the CPU.

        Returns:
            uint8 images (N, C, H', W'), on the device of `images`.
        """
        return images

    def center(self, images: Tensor) -> Tensor:
        """Return the images as evaluation sees them: of the size that training sees, without randomness.

        Args:
            images: uint8 (N, C, H, W).

        Returns:
            uint8 images (N, C, H', W'), of the size that a call returns.

        Raises:
            ValueError: The transform can't be applied to images of this size.
        """
        return images


class Compose(Transform):
    """Applies transforms one after the other; with none, images stay as they are."""

    def __init__(self, **transforms: Transform) -> None:
        """Store the transforms in their order. Their names are for the config alone."""
        self.transforms = list(transforms.values())
        self.num_random = sum(transform.num_random for transform in self.transforms)

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the images after all transforms, each of which takes its own columns of `u`."""
        parts = u.split([transform.num_random for transform in self.transforms], dim=1)
        for transform, part in zip(self.transforms, parts, strict=True):
            images = transform(images, part)
        return images

    def center(self, images: Tensor) -> Tensor:
        """Return the images in the size that they have after all transforms."""
        for transform in self.transforms:
            images = transform.center(images)
        return images


class RandomRotation(Transform):
    """Rotates each image about its center by a random angle."""

    num_random = 1

    def __init__(self, degrees: float, interpolation: str = "nearest") -> None:
        """Set the range.

        Args:
            degrees: The largest angle in either direction.
            interpolation: nearest or bilinear.
        """
        self.degrees, self.interpolation = degrees, interpolation

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the rotated images."""
        return rotate(images, _between(-self.degrees, self.degrees, u[:, 0]), self.interpolation)


class RandomCrop(Transform):
    """Pads each image with dark pixels and crops a square at a random position."""

    num_random = 2

    def __init__(self, size: int | None, padding: int) -> None:
        """Set the sizes.

        Args:
            size: The side of the square in pixels; None keeps the size of the image.
            padding: Pixels added to each side.
        """
        self.size, self.padding = size, padding

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the crops."""
        height, width, down, right = self._sizes(images)
        top = (u[:, 0] * (down + 1)).long().clamp_(max=down)
        left = (u[:, 1] * (right + 1)).long().clamp_(max=right)
        return crop(images, top, left, height, width, self.padding)

    def center(self, images: Tensor) -> Tensor:
        """Return the crops in the center. Raises ValueError if the padded image is too small."""
        height, width, down, right = self._sizes(images)
        if (height, width) == images.shape[-2:]:
            return images
        return F.pad(images, [self.padding] * 4)[..., down // 2 : down // 2 + height, right // 2 : right // 2 + width]

    def _sizes(self, images: Tensor) -> tuple[int, int, int, int]:
        """Return the crop's height and width, and how far it can move down and right."""
        height, width = images.shape[-2:] if self.size is None else (self.size, self.size)
        down, right = (
            side + 2 * self.padding - cropped for side, cropped in zip(images.shape[-2:], (height, width), strict=True)
        )
        if min(down, right) < 0:
            padded = " x ".join(str(side + 2 * self.padding) for side in images.shape[-2:])
            raise ValueError(f"crop.size={self.size}: larger than the padded image, {padded} pixels")
        return height, width, down, right


class RandomAffine(Transform):
    """Rotates, shifts, scales and shears each image about its center, as torchvision.transforms.RandomAffine."""

    num_random = 5

    def __init__(
        self, degrees: float, shift: float, scale: tuple[float, float], shear: float, interpolation: str = "nearest"
    ) -> None:
        """Set the ranges.

        Args:
            degrees: The largest rotation in either direction.
            shift: The largest shift along x and along y, as a fraction of the side. Shifts are whole pixels.
            scale: The smallest and the largest factor.
            shear: The largest shear along x in either direction, in degrees.
            interpolation: nearest or bilinear.
        """
        self.degrees, self.shift, self.scale, self.shear = degrees, shift, scale, shear
        self.interpolation = interpolation

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the transformed images."""
        height, width = images.shape[-2:]
        return affine(
            images,
            _between(-self.degrees, self.degrees, u[:, 0]),
            _between(-self.shift * width, self.shift * width, u[:, 1]).round(),
            _between(-self.shift * height, self.shift * height, u[:, 2]).round(),
            _between(*self.scale, u[:, 3]),
            _between(-self.shear, self.shear, u[:, 4]),
            self.interpolation,
        )


class RandomElastic(Transform):
    """Moves every pixel by a smooth random field (Simard, Steinkraus & Platt 2003, ICDAR, section 2).

    The field is noise, uniform in [-1, 1] and zero outside the image, which is smoothed by a Gaussian and scaled. The
    noise has `points` x `points` values for each direction. More would not change so smooth a field once there is a
    point every `sigma` pixels, and one per pixel would take longer to draw than everything else.
    """

    def __init__(self, sigma: float, alpha: float, points: int, interpolation: str = "bilinear") -> None:
        """Set the field.

        Args:
            sigma: The standard deviation of the Gaussian, in pixels.
            alpha: The scale of the field, in pixels.
            points: Noise values along each side.
            interpolation: nearest or bilinear.
        """
        self.sigma, self.alpha, self.points, self.interpolation = sigma, alpha, points, interpolation
        self.num_random = 2 * points**2

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the distorted images."""
        noise = to_device(_between(-1, 1, u), images.device).view(-1, 2, self.points, self.points)
        vertical, horizontal = (to_device(self.smoothing(side), images.device) for side in images.shape[-2:])
        return displace(images, self.alpha * (vertical @ noise @ horizontal.T), self.interpolation)

    def center(self, images: Tensor) -> Tensor:
        """Return the images. Raises ValueError if the noise is too coarse for them."""
        side = max(images.shape[-2:])
        if side > self.points * self.sigma:
            least = -int(-side // self.sigma)
            raise ValueError(f"elastic.points={self.points}: must be {least} or more for {side} pixels at this sigma")
        return images

    def smoothing(self, side: int) -> Tensor:
        """Return what each point of noise adds to each pixel along one side, float32 (side, points)."""
        spacing = side / self.points
        points = (torch.arange(self.points) + 0.5) * spacing - 0.5
        distance = (torch.arange(side).unsqueeze(1) - points) / self.sigma
        # A point stands for `spacing` pixels, whose independent noise would add up to this much more variance.
        peak: float = spacing**0.5 / (self.sigma * (2 * torch.pi) ** 0.5)
        return torch.exp(-(distance**2) / 2) * peak


def rotate(images: Tensor, degrees: Tensor, interpolation: str) -> Tensor:
    """Rotate each image counter-clockwise by its own angle.

    Args:
        images: uint8 (N, C, H, W).
        degrees: (N,).
        interpolation: nearest or bilinear.

    Returns:
        uint8 images (N, C, H, W).
    """
    zero = torch.zeros_like(degrees)
    return affine(images, -degrees, zero, zero, zero + 1, zero, interpolation)


def affine(
    images: Tensor, degrees: Tensor, right: Tensor, down: Tensor, scale: Tensor, shear: Tensor, interpolation: str
) -> Tensor:
    """Shear each image along x, scale it, rotate it clockwise, then shift it, by its own numbers.

    Args:
        images: uint8 (N, C, H, W).
        degrees: The rotations, (N,).
        right: The shifts along x, in pixels, (N,).
        down: The shifts along y, in pixels, (N,).
        scale: The factors, (N,).
        shear: The shears, in degrees, (N,).
        interpolation: nearest or bilinear.

    Returns:
        uint8 images (N, C, H, W).
    """
    angle, tangent = torch.deg2rad(degrees.double()), torch.tan(torch.deg2rad(shear.double()))
    cos, sin = angle.cos(), angle.sin()
    # The inverse, from a pixel of the result to its source: shift back, rotate back, scale back, shear back.
    a, b = (cos - tangent * sin) / scale, (sin + tangent * cos) / scale
    c, d = -sin / scale, cos / scale
    matrix = torch.stack([a, b, -a * right - b * down, c, d, -c * right - d * down], dim=1)
    return _sample_affine(images, matrix.view(-1, 2, 3).float(), interpolation)


def crop(images: Tensor, top: Tensor, left: Tensor, height: int, width: int, padding: int) -> Tensor:
    """Pad each image with dark pixels and crop it at its own position.

    Args:
        images: uint8 (N, C, H, W).
        top: The first row of each crop in the padded image, int64 (N,).
        left: The first column of each crop, int64 (N,).
        height: The height of all crops.
        width: The width of all crops.
        padding: Pixels added to each side.

    Returns:
        uint8 images (N, C, height, width).
    """
    padded = F.pad(images, [padding] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # -> (N, C, tops, lefts, height, width), a view
    index = to_device(torch.stack([torch.arange(len(images), device=top.device), top, left]), images.device)
    return windows[index[0], :, index[1], index[2]]


def displace(images: Tensor, field: Tensor, interpolation: str) -> Tensor:
    """Read each pixel of each image from where its own field points to.

    Args:
        images: uint8 (N, C, H, W).
        field: The displacements along x and y, in pixels, (N, 2, H, W).
        interpolation: nearest or bilinear.

    Returns:
        uint8 images (N, C, H, W), dark where the field points outside.
    """
    height, width = images.shape[-2:]
    points = _pixels(height, width, field.device)[:2].view(2, height, width) + field
    return _sample(images, points / _half_sides(height, width, field.device).view(2, 1, 1), interpolation)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on the device, without waiting until a GPU has it."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _between(low: float, high: float, u: Tensor) -> Tensor:
    return low + (high - low) * u


def _sample_affine(images: Tensor, matrix: Tensor, interpolation: str) -> Tensor:
    """Read each pixel from where its image's matrix (N, 2, 3) maps it to, in pixels from the center."""
    height, width = images.shape[-2:]
    matrix = to_device(matrix / _half_sides(height, width, matrix.device), images.device)
    points = matrix @ _pixels(height, width, images.device)  # (N, 2, 3) @ (3, H*W) -> (N, 2, H*W)
    return _sample(images, points.view(-1, 2, height, width), interpolation)


def _sample(images: Tensor, points: Tensor, interpolation: str) -> Tensor:
    """Read each image at points (N, 2, H, W), whose x and y are in [-1, 1] inside the image; outside it is dark."""
    grid = points.permute(0, 2, 3, 1)  # a view: grid_sample is faster when x and y are not interleaved
    sampled = F.grid_sample(images.float(), grid, mode=interpolation, align_corners=False)
    return sampled.round_().to(torch.uint8)


@cache  # a new tensor would make the CPU wait for the GPU at each call
def _half_sides(height: int, width: int, device: torch.device) -> Tensor:
    """Return half of the width and of the height, (2, 1): grid_sample's coordinates end at -1 and 1."""
    return torch.tensor([[width / 2], [height / 2]], device=device)


@cache
def _pixels(height: int, width: int, device: torch.device) -> Tensor:
    """Return the x and y of each pixel from the center, and ones, (3, H*W)."""
    x = torch.linspace(-(width - 1) / 2, (width - 1) / 2, width)
    y = torch.linspace(-(height - 1) / 2, (height - 1) / 2, height)
    return torch.stack([x.repeat(height), y.repeat_interleave(width), torch.ones(height * width)]).to(device)
