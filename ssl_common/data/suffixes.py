"""The image formats that are read, by Pillow's names, and the suffixes their files have.

No other is opened, whatever a file calls itself: these hold pixels alone, where Pillow knows some
that start programs of others (PostScript).
"""

FORMATS = {  # the most usual first: a file is tried as one after the other
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".j2k", ".jp2"),
    "AVIF": (".avif",),
    "TGA": (".tga",),
}
SUFFIXES = tuple(sorted(suffix for suffixes in FORMATS.values() for suffix in suffixes))
UNMARKED = "TGA"  # no byte of such a file says what it is: its suffix alone does
