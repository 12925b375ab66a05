"""show-pretext: the picture read back, pixel by pixel, against the puzzle and the network."""

import io

import numpy as np
import pytest
import torch
from conftest import save_bomb, tiny
from PIL import Image
from tiny import Tiny

from ssl_common.data.datasets import RandomCrops
from ssl_common.data.manifest import Manifest
from ssl_common.data.order import draws
from ssl_common.models import networks
from ssl_common.pretext import jigsaw
from ssl_common.reporting import puzzles

PHOTOS = [f"photos/{name}/{number}.jpg" for name in ("cat", "dog") for number in range(3)]
SETTINGS = {"pretext": "jigsaw", "arch": "tiny", "color_projection": False}
ROW = 327  # pixels: 12 + 255 + 3 lines of 16 + 12


def corners(number, row):
    """Return (x, y) of the nine tiles, column by column, of board NUMBER (1 or 2) in a ROW."""
    left, top = 12 + 255 + 24 + (number - 1) * (3 * 82 + 24), row * ROW + 12 + 18
    return [(left + 82 * column, top + 82 * line) for column in range(3) for line in range(3)]


def board(picture, number, row):
    """Return the tiles of a board of the PICTURE, 9 x 64 x 64 x 3."""
    return np.stack([picture[y : y + 64, x : x + 64] for x, y in corners(number, row)])


def frame(picture, number, row):
    """Return the colour of the pixel left of each tile."""
    return ["#" + bytes(picture[y + 30, x - 1]).hex().upper() for x, y in corners(number, row)]


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        return np.asarray(image)


@pytest.fixture
def drawn(scratch):
    """Return what pretrain makes of line k in its first epoch: (tiles, gray, label)."""
    (scratch / "m.tsv").write_text("".join(f"{path}\n" for path in PHOTOS))
    chosen = np.load(scratch / "p4.npy")

    def drawn(k, seed=0):
        manifest = Manifest(str(scratch / "m.tsv"))
        task = jigsaw.Jigsaw(chosen)
        _passed, epoch, index, pixels = RandomCrops(manifest, scratch, task, seed)[0, k]
        numbers = draws(seed, [epoch], [index], task.draws)
        label, jitter, gray = task.draw(numbers)
        parts = pixels[None], torch.from_numpy(chosen[label])
        (tiles,) = jigsaw.cut(*parts, torch.from_numpy(jitter)).numpy()
        return tiles, gray[0], label[0]

    return drawn


@pytest.fixture
def model(scratch, drawn):
    """Write model.pt, as pretrain finishes it, of a network that nobody trained; return it."""
    torch.manual_seed(3)
    network = jigsaw.JigsawNet(Tiny(), 4).eval()
    with torch.no_grad():  # statistics as no batch has them, so that training mode would show
        network.bn6.running_mean.uniform_(-1, 1)
        network.bn6.running_var.uniform_(0.01, 2)
        tiles, gray, _label = zip(*map(drawn, range(len(PHOTOS))), strict=True)
        seen = jigsaw.normalize(torch.from_numpy(np.stack(tiles)), torch.tensor(gray))
        network.fc7.weight.mul_(100)
        network.fc7.bias -= network(seen).mean(0)  # so that not all have the same answer
    save(scratch, network)
    return network


def save(folder, network, **fields):
    head = network.state_dict()
    trunk = {key: head.pop(f"trunk.{key}") for key in network.trunk.state_dict()}
    content = {
        "format": 1,
        "settings": {"pretext": "jigsaw", "arch": "tiny", "color_projection": False},
        "trunk": trunk,
    }
    content |= {"head": head, "permutations": torch.from_numpy(np.load(folder / "p4.npy"))}
    content = {k: v for k, v in (content | fields).items() if v is not None}
    networks.save(str(folder / "model.pt"), content)


def show(folder, *argv, status=0):
    done = tiny(folder, "show-pretext", "jigsaw", *argv)
    assert done.returncode == status, done.stderr.decode()
    return done


def test_the_board_is_what_pretrain_gives_its_network(run, scratch, drawn):
    for seed in (0, 5):
        argv = ["show-pretext", "jigsaw", "--permutations", "p4.npy", "--seed", seed, *PHOTOS]
        done = run(*argv, check=0)
        picture = pixels(done.stdout)
        assert picture.shape == (6 * ROW, 12 + 255 + 24 + 246 + 12, 3)
        grays = []
        for k in range(len(PHOTOS)):
            tiles, gray, _label = drawn(k, seed)
            wanted = tiles.transpose(0, 2, 3, 1).astype(float)
            if gray:  # the mean of the standardised channels, in the mean pixel's scale
                mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
                wanted = ((wanted / 255 - mean) / std).mean(-1, keepdims=True).repeat(3, -1)
                wanted = (wanted * std.mean() + mean.mean()).clip(0, 1) * 255
            assert abs(board(picture, 1, k) - wanted).max() <= (0.51 if gray else 0)
            grays.append(gray)
        assert len(set(grays)) == 2, "both are looked at"
    assert done.stderr == b"show-pretext: 6 puzzles of 4 permutations\n"


def test_put_back_it_is_the_image(scratch, drawn):
    chosen = np.load(scratch / "p4.npy")
    paths = [str(scratch / path) for path in PHOTOS]
    for k, shown in enumerate(puzzles.solve(paths, chosen, 0)):
        if shown.gray:
            continue
        back = shown.tiles[np.argsort(chosen[shown.label])]
        for index, (x, y) in enumerate(shown.jitter):
            x, y = x + 85 * (index // 3), y + 85 * (index % 3)
            assert (back[index].transpose(1, 2, 0) == shown.pixels[y : y + 64, x : x + 64]).all()
        assert (shown.name, shown.label, shown.answer) == (paths[k], drawn(k)[2], None)


def test_the_answer_is_that_of_a_forward_pass(scratch, model, drawn):
    """Tower by tower, without the network's own forward; and what the picture makes of it."""
    paths, chosen = [str(scratch / path) for path in PHOTOS], np.load(scratch / "p4.npy")
    answers = []
    for k, shown in enumerate(puzzles.solve(paths, chosen, 0, model)):
        tiles, gray, _label = drawn(k)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        seen = (torch.from_numpy(tiles) / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        seen = seen.mean(1, keepdim=True).expand(9, 3, 64, 64) if gray else seen
        with torch.no_grad():
            towers = [model.trunk(tile[None]).reshape(1, -1) for tile in seen]
            towers = [torch.relu(model.bn6(model.fc6(tower))) for tower in towers]
            logits = model.fc7(torch.cat(towers, 1))[0].double().numpy()
        odds = np.exp(logits - logits.max())
        assert shown.answer == (logits.argmax(), pytest.approx(odds.max() / odds.sum(), rel=1e-4))
        answers.append(shown.answer[0])

    done = show(scratch, "model.pt", *PHOTOS)
    picture = pixels(done.stdout)
    right = 0
    for k, answer in enumerate(answers):
        shuffled, back = board(picture, 1, k), board(picture, 2, k)
        true, said = chosen[drawn(k)[2]], chosen[answer]
        for place in range(9):  # position t showed tile said[t], the network says
            assert (back[said[place]] == shuffled[place]).all()
        wrong = [true[list(said).index(tile)] != tile for tile in range(9)]
        assert frame(picture, 2, k) == ["#D55E00" if each else "#009E73" for each in wrong]
        right += not any(wrong)
    assert len(set(answers)) > 1
    assert done.stderr.decode() == f"show-pretext: 6 puzzles of 4 permutations, {right} right\n"
    # Alone or beside others: batch norm keeps its statistics.
    assert (pixels(show(scratch, "model.pt", PHOTOS[0]).stdout) == picture[:ROW]).all()


def test_a_network_of_pretrain(scratch):
    argv = ["jigsaw", "train.tsv", "--permutations", "p4.npy", "--arch", "tiny", "--batch", "4"]
    argv += ["--epochs", "2", "-j", "0", "-o", "new.pt", "--checkpoint-every", "1steps"]
    assert tiny(scratch, "pretrain", *argv).returncode == 0
    done = show(scratch, "new.pt", *PHOTOS, "-o", "out.png")
    assert done.stdout == b""
    assert pixels((scratch / "out.png").read_bytes()).shape == (6 * ROW, 549 + 270, 3)


def test_odd_images(run, scratch):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (300, 400, 4), np.uint8)
    Image.fromarray(noise, "CMYK").save(scratch / "c.jpg")
    Image.fromarray(noise[:, :, 0]).save(scratch / "g.png")
    Image.fromarray(rng.integers(0, 65536, (30, 30), np.uint16)).save(scratch / "16.png")
    Image.new("RGB", (1, 900), "red").save(scratch / "thin.png")
    names = ["c.jpg", "g.png", "16.png", "thin.png", PHOTOS[0]]
    done = run("show-pretext", "jigsaw", "--permutations", "p4.npy", *names, check=0)
    picture = pixels(done.stdout)
    assert len(picture) == 5 * ROW
    gray = board(picture, 1, 1)
    assert (gray == gray[..., :1]).all() and gray.std() > 20
    assert len(np.unique(board(picture, 1, 3).reshape(-1, 3), axis=0)) == 1


def test_names_of_any_kind(run, scratch):
    name = "x" * 150 + "\n\udcff$写真.jpg"
    (scratch / name).write_bytes((scratch / PHOTOS[0]).read_bytes())
    given = ["show-pretext", "jigsaw", "--permutations", "p4.npy"]
    other = pixels(run(*given, PHOTOS[0], check=0).stdout)
    picture = pixels(run(*given, name, check=0).stdout)
    assert (picture[:270] == other[:270]).all() and (picture != other).any()
    assert (picture[270:, 280:] == other[270:, 280:]).all(), "the name runs into its neighbour"


def test_an_unreadable_image_is_named(run, scratch):
    (scratch / "text.jpg").write_text("no image")
    (scratch / "out.png").write_bytes(b"before")
    argv = ["--permutations", "p4.npy", PHOTOS[0], "text.jpg", "-o", "out.png"]
    done = run("show-pretext", "jigsaw", *argv, check=1)
    assert done.stderr == b"show-pretext: text.jpg: not an image, or of a kind that is not read\n"
    assert (scratch / "out.png").read_bytes() == b"before"


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"trunk": None}, "model.pt: not a network: trunk is missing: "),
        ({"head": {}}, "model.pt: not a finished network of pretrain jigsaw"),
        ({"permutations": [[1]]}, "model.pt: permutations is [[1]], not P x 9 whole numbers"),
        ({"permutations": None}, "model.pt: permutations is missing, of jigsaw"),
        ({"settings": {"pretext": "jigsaw"}}, "model.pt: settings.arch is missing"),
        (
            {"settings": SETTINGS | {"pretext": "colorization"}},
            "model.pt: points is missing, of colorization",
        ),
        (
            {"settings": {"pretext": "jigsaw", "arch": "vgg", "color_projection": False}},
            "model.pt: not a finished network of pretrain jigsaw",
        ),
        (
            {"settings": SETTINGS | {"arch": "alexnet"}},
            "model.pt: not the weights of pretrain jigsaw: trunk.conv1.0.weight is real",
        ),
        ({"format": 9}, "model.pt: format 9, where this version reads 1: "),
    ],
)
def test_a_file_that_is_no_such_network(scratch, model, fields, said):
    save(scratch, model, **fields)
    done = show(scratch, "model.pt", PHOTOS[0], status=1)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1
    assert done.stderr.decode().startswith(f"show-pretext: {said}")


def test_a_model_runs_no_code(scratch):
    save_bomb(scratch / "bomb.pt", scratch / "exploded")
    done = show(scratch, "bomb.pt", PHOTOS[0], status=1)
    assert b"bomb.pt: not a file of pretrain" in done.stderr
    assert not (scratch / "exploded").exists()
    (scratch / "text.pt").write_text("no network")
    assert b"text.pt: not a file of pretrain" in show(scratch, "text.pt", "x", status=1).stderr


def test_permutations_of_four_tiles(run, scratch):
    np.save(scratch / "four.npy", np.array([[0, 1, 2, 3], [3, 2, 1, 0]]))
    done = run("show-pretext", "jigsaw", "--permutations", "four.npy", PHOTOS[0], check=1)
    assert b"four.npy: 4 tiles, but the puzzle has 9" in done.stderr


@pytest.mark.parametrize(
    "argv, said",
    [
        ([PHOTOS[0]], "name a MODEL.pt first, or give --permutations"),
        ([PHOTOS[0], "model.pt"], "name a MODEL.pt first, or give --permutations"),
        (["model.pt"], "name an IMAGE after MODEL.pt"),
        (["model.pt", PHOTOS[0], "--permutations", "p4.npy"], "leave --permutations out"),
        (["--permutations", "p4.npy"], "[MODEL.pt] IMAGE..."),
    ],
)
def test_usage(run, scratch, argv, said):
    done = run("show-pretext", "jigsaw", *argv, check=2)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1 and said in done.stderr.decode()
