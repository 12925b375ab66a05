"""The options of finetune that decide what is trained."""

from dataclasses import dataclass

from ssl_common.evaluation.finetuning.recipes import RULES
from ssl_common.options import option

LOSSES = ("sigmoid", "softmax")


@dataclass(frozen=True)
class FinetuneOptions:
    """The options of finetune that decide what is trained, and by which rule."""

    loss: str | None = option(
        "sigmoid, for images with any number of labels, or softmax, for images with one each.",
        of=LOSSES,
        usual="softmax where each image has one label",
    )
    update_rule: str = option(
        "What learns at which rate and decays: as the paper's configurations mean it (clean), or as"
        " their code did it.",
        "clean",
        of=RULES,
    )
    fc: int = option("Width of fc6 and fc7 of an AlexNet.", 4096, least=1, most=65_536)
