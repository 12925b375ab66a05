"""The schedules against the iterations and rates of the authors' runs."""

import pytest
import torch
from tiny import Tiny

from ssl_common.objective import Objective
from ssl_common.pretext.jigsaw import JigsawNet
from ssl_common.pretext.recipes import RECIPES
from ssl_common.training import loop
from ssl_common.training.plan import resolve
from ssl_common.training.schedules import rate


def resolved(pretext, name, images, **options):
    return resolve(RECIPES[pretext, name], name, images, **options)


@pytest.mark.parametrize(
    "pretext, recipe, images, iterations",
    [  # of the run names in the model zoo; images of ImageNet-1k are known, the others follow
        ("jigsaw", "in1k", 1_281_167, 450_450),
        ("jigsaw", "in22k", 14_190_000, 4_989_985),
        ("jigsaw", "yfcc100m", 99_940_000, 3_903_900),
        ("colorization", "in1k", 1_281_167, 56_056),
        ("colorization", "in22k", 14_170_000, 1_860_000),
        ("colorization", "yfcc100m", 99_980_000, 4_686_682),
    ],
)
def test_the_papers_iterations(pretext, recipe, images, iterations):
    assert resolved(pretext, recipe, images).steps == pytest.approx(iterations, rel=1e-3)


def test_the_rate_of_jigsaw():
    plan = resolved("jigsaw", "in1k", 256 * 5005)
    for epoch, want in ((0, 0.1), (29, 0.1), (30, 0.01), (60, 0.001), (79, 1e-3), (80, 1e-4)):
        assert rate(epoch * 5005, plan) == pytest.approx(want), epoch
    assert rate(150_149, plan) == 0.1 and plan.warm_up == [0, 1]


def test_the_rate_of_colorization():
    """Zhang's solver: 3e-5, 1e-5 from 240k, 3e-6 from 300k, 1e-6 from 400k of 450k, times 8."""
    plan = resolved("colorization", "in1k", 640 * 2002, iterations=450_000)
    for step, want in ((0, 3e-5), (239_999, 3e-5), (240_000, 1e-5), (300_000, 3e-6)):
        assert rate(step, plan) == pytest.approx(8 * want)
    assert rate(400_000, plan) == pytest.approx(8e-6)


def test_a_large_batch_scales_the_rate_and_warms_up():
    plan = resolved("jigsaw", "in1k", 8192 * 100, batch=8192)
    assert plan.steps == 9000 and plan.lr == pytest.approx(3.2)
    rates = [rate(step, plan) for step in range(501)]  # 5 of 90 epochs
    assert rates[0] == pytest.approx(0.1) and rates[500] == rates[-1] == plan.lr
    assert rates[250] == pytest.approx((0.1 + 3.2) / 2)
    assert all(a < b for a, b in zip(rates, rates[1:], strict=False))
    assert resolved("jigsaw", "in1k", 1000, batch=64).lr == pytest.approx(0.025)


def test_what_is_given_wins():
    given = {"batch": 512, "lr": 0.05, "epochs": 7}
    plan = resolved("jigsaw", "yfcc100m", 5120, **given)
    assert {key: getattr(plan, key) for key in given} == given and plan.steps == 70
    plan = resolved("colorization", "in1k", 1000, batch=10, iterations=250)
    assert plan.steps == 250 and plan.epochs == 2.5


@pytest.mark.parametrize("pretext, kind", [("jigsaw", "SGD"), ("colorization", "Adam")])
def test_what_decays(pretext, kind):
    """Weights always, batch norm never, biases by Jigsaw's recipe alone."""
    network = JigsawNet(Tiny(), 4)
    chosen = loop.optimizer(network, Objective(), RECIPES[pretext, "in1k"])
    assert type(chosen).__name__ == kind
    decay = {id(p): g["weight_decay"] for g in chosen.param_groups for p in g["params"]}
    got = {name: decay[id(p)] for name, p in network.named_parameters()}
    norms = ("trunk.conv1.1.", "trunk.conv2.1.", "bn6.")
    value = {"jigsaw": 1e-4, "colorization": 1e-3}[pretext]
    for name, each in got.items():
        spared = name.startswith(norms) or (name.endswith(".bias") and pretext != "jigsaw")
        assert each == (0 if spared else value), name


def test_steps_of_the_optimizers_by_hand():
    """Nesterov's momentum, and Adam with the decay in the gradient, as Caffe has it."""
    for pretext in ("jigsaw", "colorization"):
        line = torch.nn.Linear(1, 1, bias=False).double()
        weight = line.weight.item()
        chosen = loop.optimizer(line, Objective(), RECIPES[pretext, "in1k"])
        first = second = 0.0
        for step in (1, 2, 3):
            chosen.param_groups[0]["lr"] = lr = 0.1 / step
            line.weight.grad = torch.full((1, 1), gradient := 0.5 * step, dtype=torch.float64)
            chosen.step()
            if pretext == "jigsaw":
                gradient += 1e-4 * weight
                first = 0.9 * first + gradient
                weight -= lr * (gradient + 0.9 * first)
            else:
                gradient += 1e-3 * weight
                first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 1e-3 * gradient**2
                root = (second / (1 - 0.999**step)) ** 0.5
                weight -= lr * first / (1 - 0.9**step) / (root + 1e-8)
            assert line.weight.item() == pytest.approx(weight, rel=1e-9)
