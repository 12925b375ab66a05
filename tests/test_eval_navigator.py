"""eval-navigator as a real process, against episodes played by hand."""

import json

import numpy as np
import pytest
import torch
from scipy import stats

from ssl_common.data.order import draws
from ssl_common.evaluation.navigation import testing, worlds
from ssl_common.evaluation.navigation.policies import Policies
from ssl_common.evaluation.navigation.worlds import TESTING
from ssl_common.models import networks

WORLD = ("--env-command", "python corridor.py", "--max-steps", "8")
WORDS = ("eval-navigator", "navigator.pt", *WORLD, "-n", "6")


def frame(at, goal):
    found = np.zeros((12, 16, 3), np.uint8)
    found[:, :, 0] = np.where(np.arange(16) // 3 == at, 200, 20)
    found[:, :, 1:] = 40 * at, 20 * goal
    return found


def by_hand(path, episodes, seed, greedy):
    """Return (reward, success, path by shortest) of each run and episode, in a corridor here."""
    navigator = testing.Navigator(str(path), torch.device("cpu"))
    content = networks.load_navigator(str(path))
    policies = Policies("embedding", (3, 16, 16), 2, navigator.runs, 0)
    policies.load_state_dict(content["policies"])
    found = np.full((3, navigator.runs, episodes), np.nan)
    for run in range(navigator.runs):
        for episode in range(episodes):
            start = worlds.episode_seed(seed, TESTING, episode)
            at, goal = 1 + start % 4, 5 * (start // 8 % 2)
            shortest, reward, seen = abs(goal - at), 0.0, None
            for step in range(8):
                shown = navigator.eye.frame(torch.from_numpy(frame(at, goal)))
                now = shown.float() / 127.5 - 1
                seen = [now] * 4 if seen is None else [*seen[1:], now]
                with torch.no_grad():
                    scores = policies(torch.cat(seen)[None, None])[run, 0].double()
                chances = torch.softmax(scores, 0).numpy()
                drawn = draws(seed, [run], [episode * worlds.SEEDS + step], 1)[0, 0]
                action = chances.argmax() if greedy else int(drawn >= chances[0])
                at = min(5, max(0, at + (1 if action else -1)))
                reward += 1.0 if at == goal else -0.125
                if at == goal:
                    found[2, run, episode] = (step + 1) / shortest
                    break
            found[:2, run, episode] = reward, at == goal
    return found


@pytest.mark.parametrize("greedy", [False, True])
def test_every_figure(scratch, run, greedy):
    done = run(*WORDS, *["--greedy"] * greedy, check=0)
    record = json.loads(done.stdout)
    rewards, successes, ratios = by_hand(scratch / "navigator.pt", 6, 0, greedy)
    assert record["rewards"] == pytest.approx(rewards.mean(1).tolist())
    assert record["success_rates"] == pytest.approx((100 * successes.mean(1)).tolist())
    assert record["mean_reward"] == pytest.approx(stats.trim_mean(rewards.mean(1), 0.25))
    assert (
        record["value"]
        == record["success_rate"]
        == pytest.approx(stats.trim_mean(100 * successes.mean(1), 0.25))
    )
    means = [np.nanmean(each) for each in ratios if not np.isnan(each).all()]
    assert record.get("path_ratios", []) == pytest.approx(means)
    assert (record["task"], record["metric"], record["arch"]) == (
        "navigation", "success rate", "thumbnail",
    )  # fmt: skip
    assert (record["runs"], record["episodes"], record["max_steps"]) == (2, 6, 8)
    assert f"2 runs of 6 episodes, success rate {record['value']:.4g}" in done.stderr.decode()


def same(done):
    record = json.loads(done.stdout)
    return {k: v for k, v in record.items() if k != "argv" and not k.startswith("time_")}


def test_it_repeats_with_any_number_of_worlds(scratch, run):
    found = [same(run(*WORDS, "--worlds", n, check=0)) for n in ("1", "5")]
    assert found[0] == found[1]
    assert same(run(*WORDS, "--seed", "1", check=0))["rewards"] != found[0]["rewards"]


def test_a_baseline_within_the_interval_is_named(scratch, run):
    words = ("train-navigator", "blind", "frames.tsv", "--runs", "2", "--batch", "4")
    run(*words, "--iterations", "2", "-j", "0", "-o", "blind.pt", check=0)
    other = run("eval-navigator", "blind.pt", *WORDS[2:], "-o", "blind.jsonl", check=0)
    assert b"success rate" in other.stderr
    blind = json.loads((scratch / "blind.jsonl").read_text())
    done = run(*WORDS, "--baselines", "blind.jsonl", check=0)
    record = json.loads(done.stdout)
    within = blind["value"] >= record["interval"][0]
    assert record["not_above"] == (["blind"] if within else [])
    assert (b"; not surely above blind" in done.stderr) == within
    blind |= {"value": 100.0}
    (scratch / "blind.jsonl").write_text(json.dumps(blind) + "\n")
    done = run(*WORDS, "--baselines", "blind.jsonl", check=0)
    assert json.loads(done.stdout)["not_above"] == ["blind"]
    done = run(*WORDS, "--seed", "1", "--baselines", "blind.jsonl", "-o", "r.jsonl", check=1)
    assert b"no baseline (blind, thumbnail, scratch, random) that was measured" in done.stderr
    assert not (scratch / "r.jsonl").exists()


@pytest.mark.parametrize(
    "words, status, message",
    [
        (("frames.tsv", *WORLD), 1, "frames.tsv: not a file of train-navigator"),
        (("linear.pt", *WORLD), 1, "linear.pt: linear classifiers, not a navigator"),
        (("navigator.pt",), 2, "give --env or --env-command, one of them"),
        (("navigator.pt", "--env-command", "python corridor.py die"), 1, "the light went out"),
        (("navigator.pt", "--env-command", "python other.py"), 1, "other.py"),
        (("navigator.pt", *WORLD, "--tag", "metric=x"), 1, "metric is set by the command itself"),
    ],
)
def test_what_cannot_be(scratch, run, words, status, message):
    done = run("eval-navigator", *words, "-n", "2", "-o", "r.jsonl", check=status)
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and message in lines[0] and not (scratch / "r.jsonl").exists()


def test_a_world_without_its_actions_or_success(scratch, run):
    whole = (scratch / "corridor.py").read_text()
    (scratch / "corridor.py").write_text(whole.replace('"back", "on"', '"left", "on"'))
    done = run(*WORDS, check=1)
    message = "python has no action back, which navigator.pt does: it has left, on"
    assert done.stderr.decode() == f"eval-navigator: {message}\n"
    (scratch / "corridor.py").write_text(whole.replace(', "success": at == goal', ""))
    record = json.loads(run(*WORDS, check=0).stdout)
    assert record["metric"] == "reward" and record["value"] == record["mean_reward"]
    assert "success_rate" not in record
    done = run(*WORDS, "--metric", "success", check=1)
    assert b"the world does not tell success: --metric reward measures it" in done.stderr


def test_it_stands_in_a_report(scratch, run):
    run(*WORDS, "--tag", "data_set=corridor", "-o", "r.jsonl", check=0)
    table = run("report", "r.jsonl", check=0).stdout.decode()
    assert "| navigation | corridor | success rate | thumbnail" in table and "by cloning" in table
    run(*WORDS, "--metric", "reward", "-o", "w.jsonl", check=0)
    assert "| reward |" in run("report", "w.jsonl", check=0).stdout.decode()
