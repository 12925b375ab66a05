"""A guide through a map of ViZDoom: the shortest path to its goal, and what an expert does next.

From the walls that the engine tells (sectors), on a grid; the goal is the one object of the map.
"""

import heapq
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

CELL = 8.0  # units of the map that a cell of the grid is wide
CLEARANCE = 20.0  # units from a wall that a path keeps; the player is 16 wide on each side
REACH = 36.0  # units on either axis at which the player, 16, touches a thing, 20
AIM = 8.0  # degrees off the way at which the expert turns first
PLAYERS = ("DoomPlayer",)
Point = tuple[float, float]


class Guide:
    """Paths to GOAL between WALLS, (N, 4): x1, y1, x2, y2.

    They lie on a grid, and are pulled taut between its cells: at most 8.3% longer than the shortest
    that keeps its clearance, which is what eight directions cost (1 / cos 22.5 degrees).
    """

    def __init__(self, walls: np.ndarray, goal: Point) -> None:
        self.goal = goal
        self.low = walls.reshape(-1, 2).min(0) - CELL
        size = np.ceil((walls.reshape(-1, 2).max(0) + CELL - self.low) / CELL).astype(int)
        columns, rows = (self.low[axis] + CELL * (np.arange(size[axis]) + 0.5) for axis in (0, 1))
        places = np.stack(np.meshgrid(columns, rows, indexing="ij"), -1)
        free = np.ones(tuple(size), bool)
        for x1, y1, x2, y2 in walls:
            free &= _distance(places, (x1, y1), (x2, y2)) >= CLEARANCE
        self.places = places
        near = free & (np.abs(places - np.array(goal)) < REACH).all(-1)
        self.cost = _costs(free, near)
        self.free = np.isfinite(self.cost)
        self.after: dict[tuple[int, int], tuple[int, int]] = {}

    def path(self, start: Point) -> list[Point]:
        """Return the corners of the path from START to where the goal is touched, START first."""
        corners, cell = [start], self._nearest(start)
        while self.cost[cell] > 0:
            cell = self._ahead(corners[-1], cell)
            corners.append(self._place(cell))
        return corners

    def _ahead(self, start: Point, cell: tuple[int, int]) -> tuple[int, int]:
        """Return the cell after CELL up to which the way from START is straight and free."""
        ahead = self._next(cell)
        while self.cost[ahead] > 0 and self._sees(start, self._place(self._next(ahead))):
            ahead = self._next(ahead)
        return ahead

    def distance(self, start: Point) -> float:
        """Return the length of path(START)."""
        corners = self.path(start)
        return sum(math.dist(a, b) for a, b in zip(corners, corners[1:], strict=False))

    def turn(self, start: Point, angle: float) -> float:
        """Return by how many degrees to turn left at START, seen at ANGLE, to be on the way."""
        cell = self._nearest(start)
        x, y = self._place(self._ahead(start, cell)) if self.cost[cell] > 0 else self.goal
        heading = math.degrees(math.atan2(y - start[1], x - start[0]))
        return (heading - angle + 180) % 360 - 180

    def _nearest(self, point: Point) -> tuple[int, int]:
        far = ((self.places - np.array(point)) ** 2).sum(-1)
        far[~self.free] = np.inf
        row, column = np.unravel_index(far.argmin(), far.shape)
        return int(row), int(column)

    def _place(self, cell: tuple[int, int]) -> Point:
        x, y = self.places[cell]
        return float(x), float(y)

    def _next(self, cell: tuple[int, int]) -> tuple[int, int]:
        """Return the neighbour of CELL by which the path goes on."""
        if cell not in self.after:
            around = dict(_neighbours(cell, self.free))
            self.after[cell] = min(around, key=lambda each: self.cost[each] + around[each])
        return self.after[cell]

    def _sees(self, a: Point, b: Point) -> bool:
        """Tell whether the straight way from A to B is free."""
        count = max(2, math.ceil(math.dist(a, b) / (CELL / 2)))
        part = np.linspace(0, 1, count + 1)[1:, None]
        cells = ((np.array(a) + part * (np.array(b) - np.array(a)) - self.low) // CELL).astype(int)
        return bool(self.free[cells[:, 0], cells[:, 1]].all())


def _distance(points: np.ndarray, a: Point, b: Point) -> np.ndarray:
    """Return how far POINTS (..., 2) are from the segment from A to B."""
    start, along = np.array(a), np.array(b) - np.array(a)
    square = max(float(along @ along), 1e-12)
    part = np.clip((points - start) @ along / square, 0, 1)
    return np.linalg.norm(points - start - part[..., None] * along, axis=-1)


def _costs(free: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the cells that the way from each to one of ENDS is long, by Dijkstra; or infinity."""
    cost = np.full(free.shape, np.inf)
    cost[ends] = 0
    queue = [(0.0, int(i), int(j)) for i, j in np.argwhere(ends)]
    while queue:
        so_far, i, j = heapq.heappop(queue)
        if so_far > cost[i, j]:
            continue
        for cell, step in _neighbours((i, j), free):
            if so_far + step < cost[cell]:
                cost[cell] = so_far + step
                heapq.heappush(queue, (so_far + step, *cell))
    return cost


def _neighbours(cell: tuple[int, int], free: np.ndarray) -> list[tuple[tuple[int, int], float]]:
    """Return (neighbour, steps) of the free cells around CELL; no corner is cut."""
    i, j = cell
    found = []
    for di, dj in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
        a, b = i + di, j + dj
        if not (0 <= a < free.shape[0] and 0 <= b < free.shape[1] and free[a, b]):
            continue
        if free[i, b] and free[a, j]:
            found.append(((a, b), math.hypot(di, dj)))
    return found


class Doom:
    """What a gymnasium environment of ViZDoom knows beside its frames: a player and a goal.

    ENV is the unwrapped environment, before its first reset. `actions` are the names of what it
    takes. Without exactly one object in the map there is no goal, and no guide.
    """

    def __init__(self, env: Any) -> None:
        self.env, self.game = env, env.game
        self.game.set_sectors_info_enabled(True)
        self.game.set_objects_info_enabled(True)
        buttons = [str(each).rpartition(".")[2] for each in self.game.get_available_buttons()]
        buttons = [name.split(":")[0].lower().replace("_", "-") for name in buttons]
        self.actions = [_combination(buttons, pressed) for pressed in env.button_map]
        self.guides: dict[tuple, Guide] = {}
        self.guide: Guide | None = None
        self.length = 0.0
        self.place: Point = (0.0, 0.0)

    def began(self) -> dict[str, Any]:
        """Return what is known at the beginning of an episode."""
        state = self.env.state
        walls = [
            (line.x1, line.y1, line.x2, line.y2)
            for sector in state.sectors
            for line in sector.lines
            if line.is_blocking
        ]
        goals = [each for each in state.objects if each.name not in PLAYERS]
        self.guide, self.length = None, 0.0
        self.place, angle = self._position()
        if len(goals) == 1 and walls:
            goal = (goals[0].position_x, goals[0].position_y)
            key = (goal, tuple(walls))
            if key not in self.guides:
                self.guides[key] = Guide(np.array(walls), goal)
            self.guide = self.guides[key]
        if not self.guide:
            return {"path_length": 0.0}
        expert = self._expert(self.guide.turn(self.place, angle))
        distance = self.guide.distance(self.place)
        return {"path_length": 0.0, "distance_to_goal": distance, "expert": expert}

    def went_on(self, terminated: bool, truncated: bool) -> dict[str, Any]:
        """Return what is known after a step, by which the episode was TERMINATED or TRUNCATED."""
        place, angle = self._position()
        self.length += math.dist(place, self.place)
        self.place = place
        found: dict[str, Any] = {"path_length": self.length}
        if self.guide:
            found["success"] = terminated and not self.game.is_player_dead()
        if self.guide and not (terminated or truncated):
            found["expert"] = self._expert(self.guide.turn(place, angle))
        return found

    def _expert(self, turn: float) -> int | None:
        wanted = "turn-left" if turn > AIM else "turn-right" if turn < -AIM else "move-forward"
        return self.actions.index(wanted) if wanted in self.actions else None

    def _position(self) -> tuple[Point, float]:
        import vizdoom

        known = vizdoom.GameVariable
        x, y, angle = (
            float(self.game.get_game_variable(each))
            for each in (known.POSITION_X, known.POSITION_Y, known.ANGLE)
        )
        return (x, y), angle


def _combination(buttons: Sequence[str], pressed: Sequence[int]) -> str:
    """Return the name of an action in which the BUTTONS are PRESSED: move-forward, or none."""
    return "+".join(b for b, down in zip(buttons, pressed, strict=True) if down) or "none"
