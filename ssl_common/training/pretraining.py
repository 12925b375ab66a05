"""Pre-training: a puzzle, a trunk, images without labels, and a run that can be interrupted."""

from ssl_common.data.datasets import RandomCrops
from ssl_common.models import networks, registry, states
from ssl_common.pretext.colorization import Colorization
from ssl_common.pretext.jigsaw import Jigsaw
from ssl_common.streams import DataError
from ssl_common.training import recipes
from ssl_common.training.driving import drive

PRETEXTS = {"jigsaw": Jigsaw, "colorization": Colorization}


def pretrain(*, pretext, task, recipe, root, **driving):
    """Pre-train by PRETEXT; return a line that says what is done, None where another rank says it.

    TASK is what the pretext's load() takes: the permutations of jigsaw. RECIPE is what
    recipes.resolve() takes besides the images. They and the options (arch, and those of drive())
    decide the result; DRIVING is as drive() takes it.
    """
    kind, arch = PRETEXTS[pretext], driving["options"]["arch"]
    if arch not in (known := registry.trainable()):
        raise DataError(f"--arch {arch}: choose from {', '.join(known)}")

    def make(images, options):
        return _Pretraining(kind.load(**task), images, recipe, options, root)

    return drive(make, [task[kind.file]], batch=recipe["batch"], **driving)


class _Pretraining:
    """The work of drive(): the pretext TASK on IMAGES."""

    command = "pretrain"

    def __init__(self, task, images, recipe, options, root):
        self.task, self.images, self.root = task, images, root
        resolved = recipes.resolve(task.name, images=len(images), **recipe) | options
        self.settings = {"pretext": task.name, "reads": task.reads, **resolved, **task.settings()}

    def foretell(self, device):
        """Return what is worth a line before the training on DEVICE: nothing."""

    def network(self):
        arch, seed = self.settings["arch"], self.settings["seed"]
        self.trunk = registry.build(arch, seed, self.task.reads)
        with registry.seeded(seed):
            return self.task.network(self.trunk)

    def dataset(self, _folder, _device, workers, _stopping):
        return RandomCrops(self.images, self.root, self.task, self.settings["seed"]), workers

    def tidy(self, folder):
        """Take away what is left in the FOLDER of the run: nothing."""

    def finished(self, state):
        trunk = {key: state.pop(f"trunk.{key}") for key in self.trunk.state_dict()}
        return {"trunk": trunk, "head": state, **self.task.arrays()}


def load(path, kind):
    """Return (network in eval mode, pretext) of the finished network PATH, trained by KIND.

    Raises DataError for a file that is not a finished network of the pretext task KIND.
    """
    content = networks.load_network(path)
    settings, state = content["settings"], content["trunk"]
    if settings.get("pretext") != kind:
        raise DataError(f"{path}: trained by {settings.get('pretext')}, not by {kind}")
    if not content["head"] or settings["arch"] not in registry.trainable():
        raise DataError(f"{path}: not a finished network of pretrain {kind}")
    pretext = PRETEXTS[kind].restore(content)
    network = pretext.network(registry.build(settings["arch"], 0, pretext.reads))
    state = {f"trunk.{key}": value for key, value in state.items()}
    states.fill(network, state | content["head"], path, f"pretrain {kind}")
    return network.eval(), pretext
