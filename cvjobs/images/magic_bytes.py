"""Which kind of image a file is, by its first bytes."""

from __future__ import annotations

from cvjobs.images.undecodable import Undecodable

_JPEG = b"\xff\xd8\xff"
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    **{f"P{n}".encode(): "PPM" for n in "123456fF"},
}
_OTHER = {
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xffO\xffQ": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"II\xbc\x01": "JPEG XR",
    b"BPG\xfb": "BPG",
    b"FLIF": "FLIF",
    b"gimp xcf": "GIMP",
    b"IIRO": "Olympus raw",
    b"IIRS": "Olympus raw",
    b"IIU\0": "Panasonic raw",
    b"FUJIFILMCCD-RAW": "Fujifilm raw",
    b"8BPS": "Photoshop",
    b"\0\0\x01\0": "Windows icon",
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"DDS ": "DirectDraw surface",
    b"icns": "Apple icon",
    b"qoif": "QOI",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"SIMPLE": "FITS",
    b"P7": "PAM",
}


def sniff(content: bytes) -> str:
    """Return the format by its first bytes; raises Undecodable for what is no image or not supported."""
    if content.startswith(_JPEG):  # of which there are most
        return "JPEG"
    for magic, name in _OTHER.items():
        if content.startswith(magic):
            raise Undecodable("unsupported_format", f"{name} images are not supported")
    for magic, name in _MAGIC.items():
        if content.startswith(magic):
            return name
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[4:8] == b"ftyp":
        brands = content[8 : int.from_bytes(content[:4], "big")]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")):
            return "HEIF"
        if b"crx " in brands:
            raise Undecodable("unsupported_format", "Canon raw images are not supported")
    raise Undecodable("not_an_image", "the content begins like no kind of image that is known here")
