"""Between two steps of the loop: log, checkpoints, and checks that end a run."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ssl_common import containers, records, streams
from ssl_common.data import datasets
from ssl_common.data.lines import Lines
from ssl_common.models import states
from ssl_common.objective import Objective, Score
from ssl_common.progress import Conversation
from ssl_common.ranks import collectives
from ssl_common.ranks.placement import RANK, RANKS, RESTARTED
from ssl_common.streams import DataError
from ssl_common.training import guards
from ssl_common.training.checkpoints import Run
from ssl_common.training.plan import Plan, TrainingOptions
from ssl_common.training.schedules import checkpoints_due
from ssl_common.training.tally import Tally, cleared, first_lines

LOG_EVERY = 50  # steps
CHECK_EVERY = 10  # steps, for a loss that is not finite: on a GPU, to ask is to wait
TIMED = 100  # steps, to tell how long the rest will take


class Journal:
    """Writes the log and the checkpoints of RUN, by PLAN, and ends it if a check fails.

    On the first rank TALK hears each line of the log, from the first one even where the run is
    resumed, and what else is worth a line, and a checkpoint is written as OPTIONS ask. When the
    talk is stopping after a step, on any rank, all end there with a checkpoint. Raises DataError
    when the loss is no longer finite, or more images of MANIFEST than OPTIONS allow cannot be read,
    or none counts in TASK; the checkpoints before it stay.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        objective: Objective,
        manifest: Lines[Any],
        device: torch.device,
        options: TrainingOptions,
        talk: Conversation,
    ) -> None:
        self.run, self.plan, self.objective, self.manifest = run, plan, objective, manifest
        self.device, self.max_bad, self.talk = device, options.max_bad, talk
        self.epoch_steps = len(manifest) // plan.batch
        self.due = checkpoints_due(options.checkpoint_every, self.epoch_steps)
        self.first = RANK == 0
        self.tally, self.finite = Tally(device, objective.measures), guards.Finite(device)
        self.waited, self.note = 0.0, ""
        self.weighed = False  # whether any image counted

    def resume(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load the newest checkpoint into both, on every rank; return its step, or 0."""
        self.network, self.optimizer = network, optimizer
        state = self.run.resume() if self.first else None
        if state:
            states.fill(network, state.pop("network"), str(self.run.resumed), "this run")
        state = collectives.from_first(lambda: state)
        step = state["step"] if state else 0
        if state:
            path = self.run.resumed or self.run.folder
            with containers.understanding(path, "a checkpoint of this run"):
                optimizer.load_state_dict(state["optimizer"])
                collectives.set_random_states(state["random"])
            self.tally.load(state)
        if self.first:
            self._tell_so_far(step, state)
        self.weighed = step > 0
        self.began = self.timed = step
        self.began_at = self.timed_at = time.monotonic()
        return step

    def _tell_so_far(self, step: int, state: dict[str, Any] | None) -> None:
        lines = list(self.run.log_lines())
        if RESTARTED:
            again = f"all go on from step {step:,} (restart {RESTARTED})"
            self.talk.say(f"a rank died: {again}")
            lines = lines[-1:]  # the others have been told; this one may have died with its rank
        for line in lines:
            self.talk.emit(line)
        if state is None:
            settings = self.run.settings | {"ranks": RANKS}
            line = records.line(settings | records.provenance(self.run.command))
            self.run.append(line)
            self.talk.emit(line)
        elif self.device.type == "cpu" and state["threads"] != torch.get_num_threads():
            was, threads = state["threads"], torch.get_num_threads()
            self.talk.say(
                f"the run began with {was} threads, now it has {threads}: last bits may differ"
            )

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time in this block as waiting for data."""
        began = time.monotonic()
        yield
        self.waited += time.monotonic() - began

    def add(self, number: int, score: Score, lost: torch.Tensor) -> None:
        """Add micro-batch NUMBER of the run: its SCORE, and which lines were unreadable."""
        self.tally.add(score, lost.tolist())
        self.finite.see(number, score.loss)

    def after(self, step: int, lr: float) -> bool:
        """Log, save and check what is due after STEP, at the rate LR; return whether to stop."""
        going = step < self.plan.steps
        asked = (going and bool(self.talk.stopping()), going and self.first and self.due(step))
        stop, save, lost = collectives.totals(*asked, self.tally.take_lost())
        self.tally.unreadable += lost
        log = step % LOG_EVERY == 0 or not going
        # Of the list, or of what is seen of it.
        whole = step in (self.epoch_steps, self.plan.steps)
        ended = whole or step % self.epoch_steps == 0
        if lost or ended:
            self._check_readable(step, ended)
        if stop or save or log or step % CHECK_EVERY == 0:
            self.finite.check(self.manifest, self.plan)
        if stop or save or not going:
            guards.check_weights(self.network, step)
        tally = self.tally.over_all() if stop or save or log or whole else None
        randoms = collectives.random_states() if stop or save or log else None
        weightless = step == self.began + 1 and not self.tally.weighs
        self.weighed = self.weighed or (tally is not None and bool(tally["sums"][1]))
        if whole and not self.weighed:
            where = f"{streams.name(self.manifest.path)}: step {step:,}"
            raise DataError(f"{where}: {self.objective.weightless}")
        if log:
            self.tally.clear()
        if self.first:
            if log:
                tally = self._log(step, lr, tally, randoms)
            if stop or save:
                self._save(step, tally, randoms)
            self.talk.progress(step, self.plan.steps, self.note)
            self._foretell(step)
            if weightless:
                self.talk.say(f"step {step:,}: {self.objective.weightless}")
            if stop:
                self.run.stop(self.talk.stopping() or "a signal to another rank")
        return bool(stop)

    def _check_readable(self, step: int, whole: bool) -> None:
        """Raise DataError if more than the share MAX_BAD of the images are unreadable."""
        counts = (self.tally.unreadable, step * self.plan.batch, self.max_bad)
        if datasets.too_many(*counts, len(self.manifest), whole):
            lines = first_lines(collectives.gather(self.tally.lines))
            raise datasets.unreadable_error(self.manifest, *counts, lines)

    def _log(self, step: int, lr: float, tally: Any, randoms: Any) -> dict[str, Any]:
        """Write the log line of STEP; return the TALLY that the next line starts from."""
        now = time.monotonic()
        seconds, waited = ((v / (step - self.timed)) for v in (now - self.timed_at, self.waited))
        means = self.tally.means(tally)
        lines = [[line + 1, self.manifest[line].path] for line in tally["lines"]]
        record: dict[str, Any] = {"step": step, "epoch": step / self.epoch_steps, "lr": lr}
        record |= means | {"unreadable": tally["unreadable"]}
        record |= {"unreadable_lines": lines} if lines else {}
        record["time_images_per_second"] = round(self.plan.batch / seconds, 1)
        record["time_data"] = round(waited, 6)
        begun = cleared(tally)
        line = records.line(record)
        self.run.append(line)
        try:
            self.talk.emit(line)
        except OSError:  # its reader left, or its disk is full: lose no step
            self._save(step, begun, randoms)
            raise
        loss = means["loss"]
        judged = step - LOG_EVERY < guards.chance_step(self.epoch_steps) <= step
        if judged and (message := guards.at_chance(loss, self.objective.chance)):
            self.talk.say(f"step {step:,}: {message}")
        self.timed, self.timed_at, self.waited = step, now, 0.0
        self.note = f"loss {loss:.3f}" if loss is not None else ""
        return begun

    def _save(self, step: int, tally: Any, randoms: Any) -> None:
        state: dict[str, Any] = {"network": self.network.state_dict()}
        state |= {"optimizer": self.optimizer.state_dict()}
        state |= {"random": randoms, "threads": torch.get_num_threads()}
        state["position"] = list(divmod(step, self.epoch_steps))  # epoch, batch of its order
        self.run.save(step, state | tally)

    def _foretell(self, step: int) -> None:
        """Say once how long the rest will take, without the first step, which is the slowest."""
        if step == self.began + 1:
            self.began_at = time.monotonic()
        if step == self.began + TIMED and step < self.plan.steps:
            seconds = (time.monotonic() - self.began_at) / (TIMED - 1)
            left = self.plan.steps - step
            self.talk.say(guards.remaining(left, seconds, self.plan.batch))
