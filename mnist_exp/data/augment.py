"""Random augmentation of a whole batch at once, each image by its own random numbers.

A transform is called with images (N, 1, H, W) uint8, on any device, and `u` (N, num_random), uniform in [0, 1), there
too or on the CPU, and returns uint8 images. All randomness comes in through `u`: equal numbers make equal pictures in every
batching.
`center` is what evaluation sees: the same size of image, nothing random.
Results equal torchvision.transforms.functional's rotate, affine, pad and crop on each image alone.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


class Transform:
    """Leaves images as they are: the base of all transforms."""

    num_random = 0  # random numbers per image

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        return images

    def center(self, images: Tensor) -> Tensor:
        """The images without chance, in the size that training sees."""
        return images


class Compose(Transform):
    """The transforms one after the other; with none, images stay as they are."""

    def __init__(self, **transforms: Transform) -> None:
        self.transforms = list(transforms.values())
        self.num_random = sum(transform.num_random for transform in self.transforms)

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        parts = u.split([transform.num_random for transform in self.transforms], dim=1)
        for transform, part in zip(self.transforms, parts, strict=True):
            images = transform(images, part)
        return images

    def center(self, images: Tensor) -> Tensor:
        for transform in self.transforms:
            images = transform.center(images)
        return images


class RandomRotation(Transform):
    """Turns each image about its centre by up to `degrees` either way; `interpolation` is nearest or bilinear."""

    num_random = 1

    def __init__(self, degrees: float, interpolation: str = "nearest") -> None:
        self.degrees, self.interpolation = degrees, interpolation

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        return rotate(images, _between(-self.degrees, self.degrees, u[:, 0]), self.interpolation)


class RandomCrop(Transform):
    """Pads each side with `padding` dark pixels and cuts out a random square of `size` (None: the image's own)."""

    num_random = 2

    def __init__(self, size: int | None, padding: int) -> None:
        self.size, self.padding = size, padding

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        height, width, down, right = self._sizes(images)
        top = (u[:, 0] * (down + 1)).long().clamp_(max=down)
        left = (u[:, 1] * (right + 1)).long().clamp_(max=right)
        return crop(images, top, left, height, width, self.padding)

    def center(self, images: Tensor) -> Tensor:
        height, width, down, right = self._sizes(images)
        if (height, width) == images.shape[-2:]:
            return images
        return F.pad(images, [self.padding] * 4)[..., down // 2 : down // 2 + height, right // 2 : right // 2 + width]

    def _sizes(self, images: Tensor) -> tuple[int, int, int, int]:
        """The cut's height and width, and how far it can move down and right."""
        height, width = images.shape[-2:] if self.size is None else (self.size, self.size)
        down, right = (
            side + 2 * self.padding - cut for side, cut in zip(images.shape[-2:], (height, width), strict=True)
        )
        if min(down, right) < 0:
            padded = " x ".join(str(side + 2 * self.padding) for side in images.shape[-2:])
            raise ValueError(f"crop.size={self.size}: larger than the padded image, {padded} pixels")
        return height, width, down, right


class RandomAffine(Transform):
    """Turns, shifts, scales and shears each image about its centre.

    `degrees` and `shear` (degrees, along x): up to so much either way; `shift`: up to this fraction of the side, along
    x and y, in whole pixels; `scale`: between these two factors. As torchvision.transforms.RandomAffine.
    """

    num_random = 5

    def __init__(
        self, degrees: float, shift: float, scale: tuple[float, float], shear: float, interpolation: str = "nearest"
    ) -> None:
        self.degrees, self.shift, self.scale, self.shear = degrees, shift, scale, shear
        self.interpolation = interpolation

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
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
    """Moves every pixel by a smooth random field, as Simard, Steinkraus & Platt 2003, ICDAR, section 2.

    That is noise, uniform in [-1, 1] and zero outside the image, smoothed by a Gaussian of `sigma` pixels and times
    `alpha` pixels. The noise has `points` x `points` places for each direction: so smooth a field has no more to say
    where there is a point every `sigma` pixels, and a number a pixel would take longer to draw than all the rest.
    """

    def __init__(self, sigma: float, alpha: float, points: int, interpolation: str = "bilinear") -> None:
        self.sigma, self.alpha, self.points, self.interpolation = sigma, alpha, points, interpolation
        self.num_random = 2 * points**2

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        noise = send(_between(-1, 1, u), images.device).view(-1, 2, self.points, self.points)
        tall, wide = (send(self.smoothing(side), images.device) for side in images.shape[-2:])
        return displace(images, self.alpha * (tall @ noise @ wide.T), self.interpolation)

    def center(self, images: Tensor) -> Tensor:
        side = max(images.shape[-2:])
        if side > self.points * self.sigma:
            least = -int(-side // self.sigma)
            raise ValueError(f"elastic.points={self.points}: must be {least} or more for {side} pixels at this sigma")
        return images

    def smoothing(self, side: int) -> Tensor:
        """What a point of noise adds to each pixel along one side, (side, points)."""
        apart = side / self.points
        places = (torch.arange(self.points) + 0.5) * apart - 0.5
        away = (torch.arange(side).unsqueeze(1) - places) / self.sigma
        # A point stands for `apart` pixels, whose independent noise would have this much more variance.
        height: float = apart**0.5 / (self.sigma * (2 * torch.pi) ** 0.5)
        return torch.exp(-(away**2) / 2) * height


def rotate(images: Tensor, degrees: Tensor, interpolation: str) -> Tensor:
    """Each image turned counter-clockwise by its own angle, (N,) degrees."""
    zero = torch.zeros_like(degrees)
    return affine(images, -degrees, zero, zero, zero + 1, zero, interpolation)


def affine(
    images: Tensor, degrees: Tensor, right: Tensor, down: Tensor, scale: Tensor, shear: Tensor, interpolation: str
) -> Tensor:
    """Each image sheared along x, scaled, turned clockwise, then shifted, by its own numbers, (N,) each."""
    angle, tangent = torch.deg2rad(degrees.double()), torch.tan(torch.deg2rad(shear.double()))
    cos, sin = angle.cos(), angle.sin()
    # The way back, from a pixel of the result to its source: unshift, turn back, unscale, unshear.
    a, b = (cos - tangent * sin) / scale, (sin + tangent * cos) / scale
    c, d = -sin / scale, cos / scale
    matrix = torch.stack([a, b, -a * right - b * down, c, d, -c * right - d * down], dim=1)
    return _sample(images, matrix.view(-1, 2, 3).float(), interpolation)


def crop(images: Tensor, top: Tensor, left: Tensor, height: int, width: int, padding: int) -> Tensor:
    """Out of each padded image the height x width pixels from its own (top, left) on, (N,) int64 each."""
    padded = F.pad(images[:, 0], [padding] * 4)
    windows = padded.unfold(1, height, 1).unfold(2, width, 1)  # (N, H', W') -> (N, tops, lefts, height, width), a view
    index = send(torch.stack([torch.arange(len(images), device=top.device), top, left]), images.device)
    return windows[index[0], index[1], index[2]].unsqueeze(1)


def _between(low: float, high: float, u: Tensor) -> Tensor:
    return low + (high - low) * u


def displace(images: Tensor, field: Tensor, interpolation: str) -> Tensor:
    """Each image with its pixels read from where its own field (N, 2, H, W), x and y in pixels, points to."""
    height, width = images.shape[-2:]
    places = _pixels(height, width, field.device)[:2].view(2, height, width) + field
    return _read(images, places / _half(height, width, field.device).view(2, 1, 1), interpolation)


def _sample(images: Tensor, matrix: Tensor, interpolation: str) -> Tensor:
    """Read each image at the places (N, 2, 3) that its matrix gives, in pixels from the centre; dark outside."""
    height, width = images.shape[-2:]
    matrix = send(matrix / _half(height, width, matrix.device), images.device)
    places = matrix @ _pixels(height, width, images.device)  # (N, 2, 3) @ (3, H*W) -> (N, 2, H*W)
    return _read(images, places.view(-1, 2, height, width), interpolation)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; the CPU does not wait until a GPU has it."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@cache  # a new one would have the CPU wait for a GPU, each time
def _half(height: int, width: int, device: torch.device) -> Tensor:
    """Half of the sides, (2, 1): grid_sample wants [-1, 1]."""
    return torch.tensor([[width / 2], [height / 2]], device=device)


@cache
def _pixels(height: int, width: int, device: torch.device) -> Tensor:
    """The pixels' x and y from the centre, and ones: (3, H*W)."""
    x = torch.linspace(-(width - 1) / 2, (width - 1) / 2, width)
    y = torch.linspace(-(height - 1) / 2, (height - 1) / 2, height)
    return torch.stack([x.repeat(height), y.repeat_interleave(width), torch.ones(height * width)]).to(device)


def _read(images: Tensor, places: Tensor, interpolation: str) -> Tensor:
    """Read each image at the places (N, 2, H, W), x and y in [-1, 1]; dark outside."""
    grid = places.permute(0, 2, 3, 1)  # a view: grid_sample reads x and y apart the faster
    sampled = F.grid_sample(images.float(), grid, mode=interpolation, align_corners=False)
    return sampled.round_().to(torch.uint8)
