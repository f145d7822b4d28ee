import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_exp.data import picture, sources

NOISE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def test_files_are_read_upright_on_white_and_in_8_bits(tmp_path: Path) -> None:
    digit = sources.digits("").test.images[0, 0].numpy().repeat(8, 0).repeat(8, 1)
    ink = Image.fromarray(digit)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    ink.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(digit.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    ink.convert("P").save(tmp_path / "palette.png")
    clear = Image.new("RGBA", ink.size, (0, 0, 0, 0))
    clear.putalpha(ink)
    clear.save(tmp_path / "clear.png")
    for name, expected in {"turned": digit, "deep": digit, "palette": digit, "clear": 255 - digit}.items():
        assert (np.asarray(picture.read(tmp_path / f"{name}.png").convert("L")) == expected).all(), name


def test_what_is_no_image_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(NOISE).save(path)
    content = path.read_bytes()

    def refused() -> str:
        with pytest.raises(ValueError, match=r".") as error:
            picture.read(path)
        return str(error.value)

    path.write_bytes(content[: len(content) // 2])
    assert "truncated" in refused()
    path.write_bytes(b"")
    assert refused() == "empty"
    path.write_bytes(b"text")
    assert refused() == "no image of a known format"
    Image.fromarray(NOISE[..., 0].astype(np.float32)).save(tmp_path / "float.tiff")
    shutil.move(tmp_path / "float.tiff", path)
    assert refused() == "pixels of 32 bits, whose range is unknown"
    path.write_bytes(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert refused() == "a decompression bomb: more than 1,000 pixels"
    path.unlink()
    assert refused() == "No such file or directory"
