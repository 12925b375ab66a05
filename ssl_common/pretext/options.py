"""The options of each pretext task, for the commands and for Pretext.load()."""

from dataclasses import dataclass

from ssl_common.options import option


@dataclass(frozen=True)
class JigsawOptions:
    """The options of jigsaw."""

    permutations: str = option(
        "Jigsaw: permutations to tell apart, a file of make-permutations.",
        metavar="FILE",
        required=True,
    )
    color_projection: bool = option(
        "Jigsaw: project the colours of half of the images, against lens aberration.", False
    )


@dataclass(frozen=True)
class ColorizationOptions:
    """The options of colorization."""

    bins: str | None = option(
        "Colorization: bins of the ab plane, a file of make-color-bins.",
        metavar="FILE",
        usual="the 313 of Zhang et al., unweighted",
    )
    neighbors: int = option(
        "Colorization: nearest bins that share the label of a pixel.", 10, least=2, most=313
    )


OPTIONS = {"jigsaw": JigsawOptions, "colorization": ColorizationOptions}
