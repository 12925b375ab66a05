"""What kinds of image file are read: no other is opened, whatever it calls itself.

All hold pixels alone. Pillow knows more, of which some start programs of others (PostScript) or
refer to further files.
"""

# Pillow's names, the most usual first -> the endings that it knows them by.
FORMATS = {
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "PNG": (".apng", ".png"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "PPM": (".pbm", ".pfm", ".pgm", ".pnm", ".ppm"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
    "AVIF": (".avif", ".avifs"),
    "TGA": (".icb", ".tga", ".vda", ".vst"),
}
SUFFIXES = tuple(sorted(suffix for suffixes in FORMATS.values() for suffix in suffixes))
UNMARKED = "TGA"  # no byte of the file says so: its ending alone does
