"""A gymnasium environment as a child process that worlds.World talks to: see ssl-formats(5).

It is a process of its own: some environments print on standard output, crash, or leave threads,
and several of one kind in a process may disturb each other.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

CHANNELS = (1, 3, 4)  # gray, RGB, RGB with an alpha channel
INSTALL = "pip install 'ssl-bench[navigation]'"
KNOWN = {  # what a reply says, and the names by which environments say it
    "success": ("success", "is_success"),
    "distance_to_goal": ("distance_to_goal",),
    "path_length": ("path_length",),
    "expert": ("expert",),
}
# A task by a short name: its environment, and what that is made with. Frames of 160 x 120 pixels,
# four of the engine's tics an action.
SHORT = {
    "my-way-home": (
        "vizdoom.gymnasium_wrapper:VizdoomMyWayHome-v1",
        {"screen_resolution": "RES_160X120", "frame_skip": 4},
    )
}


class WorldError(Exception):
    """What is wrong with an environment, in one line."""


# ---- Frames --------------------------------------------------------------------------------------


def layout(space: Any, key: str | None) -> Callable[[Any], np.ndarray]:
    """Return the function that makes frames, uint8 H x W x 3, of the observations in SPACE.

    These are pictures, H x W, H x W x C or C x H x W, of 1, 3 or 4 channels, of whole numbers to
    255 or of real ones between the bounds of SPACE; or a dict, of which KEY names one.
    """
    if hasattr(space, "spaces") and isinstance(getattr(space, "spaces", None), dict):
        pictures = [name for name, each in space.spaces.items() if _is_picture(each)]
        chosen = key or (pictures[0] if len(pictures) == 1 else None)
        if chosen is None or chosen not in space.spaces:
            there = ", ".join(space.spaces)
            raise WorldError(f"--obs-key: name one of the observations: {there}")
        inner = layout(space.spaces[chosen], None)
        return lambda observation: inner(observation[chosen])
    if key:
        raise WorldError(f"--obs-key {key}: the observation is no dict: leave it out")
    if not _is_picture(space):
        raise WorldError(f"the observation is no picture, but {space}")
    shape = tuple(space.shape)
    first = len(shape) == 3 and shape[2] not in CHANNELS  # channels come first
    whole = np.dtype(space.dtype) == np.uint8
    low, high = float(np.min(space.low)), float(np.max(space.high))
    if not whole and not (np.isfinite([low, high]).all() and low < high):
        raise WorldError(f"the observation has no bounds to scale it by: {space}")

    def frame(observation: Any) -> np.ndarray:
        pixels = np.asarray(observation)
        if not whole:
            part = (pixels.astype(np.float64) - low) / (high - low)
            pixels = np.rint(255 * part.clip(0, 1)).astype(np.uint8)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        pixels = np.moveaxis(pixels, 0, 2) if first else pixels
        pixels = np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels[..., :3]
        return np.ascontiguousarray(pixels)

    return frame


def _is_picture(space: Any) -> bool:
    shape, kind = getattr(space, "shape", None), getattr(space, "dtype", None)
    if not shape or kind is None or np.dtype(kind).kind not in "uf":
        return False
    return len(shape) == 2 or (len(shape) == 3 and (shape[2] in CHANNELS or shape[0] in CHANNELS))


# ---- The process ---------------------------------------------------------------------------------


class Gym:
    """The environment NAME, MODULE:ID or one of SHORT, made with ARGUMENTS; KEY as in layout()."""

    def __init__(self, name: str, arguments: dict[str, Any], key: str | None) -> None:
        try:
            import gymnasium
        except ModuleNotFoundError as error:
            raise WorldError(f"gymnasium is not installed: {INSTALL}") from error
        if name in SHORT:
            name, usual = SHORT[name]
            arguments = usual | arguments
        try:
            self.env = gymnasium.make(name, **arguments)
        except ModuleNotFoundError as error:
            module = error.name or name.partition(":")[0]  # gymnasium makes an error of its own
            known = module.partition(".")[0] == "vizdoom"
            advice = INSTALL if known else "install it, or see PYTHONPATH"
            raise WorldError(f"no module {module}: {advice}") from error
        space = self.env.action_space
        if not hasattr(space, "n"):
            raise WorldError(f"an action is no choice among a few, but {space}")
        self.first = int(getattr(space, "start", 0))
        self.frame = layout(self.env.observation_space, key)
        self.actions = [str(number) for number in range(int(space.n))]
        self.doom: Any = None
        inner = self.env.unwrapped
        if type(inner).__module__.startswith("vizdoom.") and hasattr(inner, "button_map"):
            from ssl_common.evaluation.navigation.doom import Doom

            self.doom = Doom(inner)
            self.actions = self.doom.actions

    def reset(self, seed: int) -> tuple[dict[str, Any], np.ndarray]:
        """Begin the episode of SEED; return a reply and its frame."""
        observation, info = self.env.reset(seed=seed)
        info = dict(info) | (self.doom.began() if self.doom else {})
        return {"actions": self.actions} | self._known(info), self.frame(observation)

    def step(self, action: int) -> tuple[dict[str, Any], np.ndarray]:
        """Do ACTION; return a reply and its frame."""
        observation, reward, terminated, truncated, info = self.env.step(self.first + action)
        ended = {"terminated": bool(terminated), "truncated": bool(truncated)}
        if self.doom:
            # Its wrapper says of an episode whose time is up that it is both.
            ended["terminated"] = ended["terminated"] and not ended["truncated"]
            info = dict(info) | self.doom.went_on(**ended)
        return {"reward": float(reward)} | ended | self._known(info), self.frame(observation)

    def _known(self, info: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field, names in KNOWN.items():
            value = next((info[name] for name in names if info.get(name) is not None), None)
            if value is not None:
                kind = {"success": bool, "expert": int}.get(field, float)
                found[field] = kind(value)
        return found

    def close(self) -> None:
        """End the environment."""
        self.env.close()


def serve(lines: Iterator[bytes], out: BinaryIO, spec: dict[str, Any]) -> None:
    """Answer the requests LINES for the environment of SPEC on OUT, until they end."""
    world = None
    try:
        world = Gym(spec["env"], spec["args"], spec["obs_key"])
        for line in lines:
            word, _, number = line.decode().partition(" ")
            reply, frame = {"reset": world.reset, "step": world.step}[word](int(number))
            out.write(json.dumps({"shape": frame.shape} | reply).encode() + b"\n")
            out.write(frame.data)
            out.flush()
    except Exception as error:
        if not isinstance(error, WorldError):
            text = " ".join(str(error).split())
            error = WorldError(f"{type(error).__name__}: {text}" if text else type(error).__name__)
        with contextlib.suppress(OSError):  # nobody listens any more
            out.write(json.dumps({"error": str(error)}).encode() + b"\n")
            out.flush()
    finally:
        if world is not None:
            with contextlib.suppress(Exception):
                world.close()


def main() -> None:
    """Serve the environment that the first argument, JSON, names, over the standard streams."""
    requests, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an environment prints is no reply
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    sys.path.append(os.getcwd())  # last: a module of the user's shadows none
    spec = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="ssl-bench-world-") as folder:
        if spec["env"] in SHORT or spec["env"].startswith("vizdoom"):
            os.chdir(folder)  # its engine writes into the current folder
        serve(iter(requests.readline, b""), out, spec)
        os.chdir("/")


if __name__ == "__main__":
    main()
