"""Image formats by their contents.

Only these formats are ever tried: some of Pillow's others start programs (PostScript) or have no
signature, so that any bytes may pass for them (TGA, PCX).
"""

import re

# Pillow's names; a phone's JPEG with a preview (MPO) is a JPEG.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "HEIC")
# Whose files may hold several frames, of which none is the image.
ANIMATED = ("PNG", "GIF", "WEBP", "AVIF")
SNIFFED = 64  # bytes at a file's start that show its format

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
)
# Two letters begin texts too, so that more is required of these formats.
_PPM = re.compile(rb"P[1-6f]\s+[0-9#]")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}


def sniff(head: bytes | bytearray) -> str | None:
    """Return the format, one of FORMATS, of a file that starts with `head` (SNIFFED bytes)."""
    head = bytes(head[:SNIFFED])
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if _PPM.match(head):
        return "PPM"
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4], "big")
        brands = {head[i : i + 4] for i in (8, *range(16, min(size, SNIFFED), 4))}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        if brands & _HEIC_BRANDS:
            return "HEIC"
    return None
