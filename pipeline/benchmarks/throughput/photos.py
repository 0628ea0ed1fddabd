"""Synthetic photos: JPEGs of 500×400 pixels and about 80 KB.

They have smooth gradients, and noise whose amplitude falls with the frequency, like that of photos.
"""

from pathlib import Path

import numpy as np
import simplejpeg

from beton.arrays import Array, Uint8Array

HEIGHT, WIDTH, QUALITY = 400, 500, 90
CONTRAST = 33.0  # of the noise, in grey levels: with it, a photo takes about 80 KB
SLOPE = 1.2  # of the noise: its amplitude is frequency ** -SLOPE
TEXTURES = 12  # different fields of noise; a photo shows a mixture of two
CHANNEL_MEAN, CHANNEL_STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)  # of ImageNet, grey levels


def textures(count: int) -> Array:
    """Return fields of noise of standard deviation 1: float32 (count, h, w, 3)."""
    generator = np.random.default_rng(0)
    down, across = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)
    frequency = np.hypot(down, across) ** SLOPE
    frequency[0, 0] = np.inf
    white = generator.standard_normal((count, 3, HEIGHT, WIDTH))
    noise = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(HEIGHT, WIDTH))
    noise /= noise.std(axis=(2, 3), keepdims=True)
    # Brightness varies more than colour, in photos and here.
    colours = np.array([[1, 1, 1], [0.3, 0, -0.3], [-0.15, 0.3, -0.15]], np.float32)
    mixed: Array = np.einsum("nkhw,kc->nhwc", noise.astype(np.float32), colours)
    return mixed


def photo(number: int, noise: Array) -> Uint8Array:
    """Return a synthetic photo, uint8 (h, w, 3): a gradient and two textures at random places."""
    generator = np.random.default_rng(number)
    corners = generator.uniform(60, 195, (2, 2, 3))
    y, x = np.linspace(0, 1, HEIGHT)[:, None, None], np.linspace(0, 1, WIDTH)[:, None]
    image = (1 - y) * ((1 - x) * corners[0, 0] + x * corners[0, 1])
    image += y * ((1 - x) * corners[1, 0] + x * corners[1, 1])
    for texture in noise[generator.choice(len(noise), 2)]:
        shift = int(generator.integers(HEIGHT)), int(generator.integers(WIDTH))
        image += CONTRAST / np.sqrt(2) * np.roll(texture, shift, axis=(0, 1))
    result: Uint8Array = np.rint(image).clip(0, 255).astype(np.uint8)
    return result


def write_photos(count: int, folder: Path) -> None:
    """Write numbered JPEG files into a new folder."""
    folder.mkdir()
    noise = textures(TEXTURES)
    for number in range(count):
        jpeg = simplejpeg.encode_jpeg(photo(number, noise), quality=QUALITY, colorsubsampling="420")
        (folder / f"{number:06}.jpg").write_bytes(jpeg)
