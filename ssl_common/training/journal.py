"""What happens between two steps of the loop: log, checkpoints, and what ends a run."""

import contextlib
import time

import torch

from ssl_common import containers, records, streams
from ssl_common.data import datasets
from ssl_common.models import states
from ssl_common.streams import DataError
from ssl_common.training import torchrun, watch
from ssl_common.training.schedules import checkpoints_due

LOG_EVERY = 50  # steps
CHECK_EVERY = 10  # steps, for a loss that is not finite: on a GPU, to ask is to wait
TIMED = 100  # steps, to tell how long the rest will take


class Journal:
    """Keeps the log and the checkpoints of RUN, and ends it where it must end.

    On the first rank EMIT gets each line of the log, from the first one even where the run is
    resumed, SAY what else is worth a line, and a checkpoint is written EVERY [(count, "step",
    "epoch" or "min")]. When STOPPING() after a step, on any rank, all end there with a checkpoint.
    Raises DataError when the loss is no longer finite, or more than the share MAX_BAD of the images
    cannot be read, or none counts; the checkpoints before it stay.
    """

    def __init__(
        self, run, network, chosen, manifest, chance, device,
        *, every, max_bad, emit, say, stopping, progress,
    ):  # fmt: skip
        self.run, self.network, self.chosen, self.manifest = run, network, chosen, manifest
        self.chance, self.device, self.max_bad = chance, device, max_bad
        self.emit, self.say, self.stopping, self.progress = emit, say, stopping, progress
        self.steps, self.batch = run.settings["steps"], run.settings["batch"]
        self.epoch_steps = len(manifest) // self.batch
        self.due = checkpoints_due(every, self.epoch_steps)
        self.first = torchrun.RANK == 0
        self.tally, self.finite = watch.Tally(device), watch.Finite(device)
        self.waited, self.note = 0.0, ""
        self.weighed = False  # whether any image counted

    def resume(self):
        """Load the newest checkpoint, on every rank; return its step, or 0."""
        state = self.run.resume() if self.first else None
        if state:
            states.fill(self.network, state.pop("network"), self.run.resumed, "this run")
        state = torchrun.of_the_first(lambda: state)
        step = state["step"] if state else 0
        if state:
            path = self.run.resumed or self.run.folder
            with containers.understanding(path, "a checkpoint of this run"):
                self.chosen.load_state_dict(state["optimizer"])
                torchrun.set_random_states(state["random"])
            self.tally.load(state)
        if self.first:
            self._tell_so_far(step, state)
        self.weighed = step > 0
        self.began = self.timed = step
        self.began_at = self.timed_at = time.monotonic()
        return step

    def _tell_so_far(self, step, state):
        lines = list(self.run.log_lines())
        if torchrun.RESTARTED:
            self.say(f"a rank died: all go on from step {step:,} (restart {torchrun.RESTARTED})")
            lines = lines[-1:]  # the others have been told; this one may have died with its rank
        for line in lines:
            self.emit(line)
        if step == 0:
            line = self.run.settings | {"ranks": torchrun.RANKS}
            line = records.line(line | records.provenance(self.run.command))
            self.run.append(line)
            self.emit(line)
        elif self.device.type == "cpu" and state["threads"] != torch.get_num_threads():
            was, threads = state["threads"], torch.get_num_threads()
            self.say(
                f"the run began with {was} threads, now it has {threads}: last bits may differ"
            )

    @contextlib.contextmanager
    def waiting(self):
        """Count the time in this block as waiting for data."""
        began = time.monotonic()
        yield
        self.waited += time.monotonic() - began

    def add(self, number, summed, weight, right, count, lost):
        """Add micro-batch NUMBER of the run: what score() gave, and which lines were unreadable."""
        self.tally.add(summed, weight, right, count, lost.tolist())
        self.finite.see(number, summed)

    def after(self, step, lr):
        """Do what is due after STEP, done at the rate LR; return whether to stop here."""
        going = step < self.steps
        asked = (going and bool(self.stopping()), going and self.first and self.due(step))
        stop, save, lost = torchrun.sums_of(*asked, self.tally.take_lost())
        self.tally.unreadable += lost
        log = step % LOG_EVERY == 0 or not going
        whole = step in (self.epoch_steps, self.steps)  # of the list, or of what is seen of it
        ended = whole or step % self.epoch_steps == 0
        if lost or ended:
            self._check_readable(step, ended)
        if stop or save or log or step % CHECK_EVERY == 0:
            self.finite.check(self.manifest, self.run.settings)
        if stop or save or not going:
            watch.check_weights(self.network, step)
        tally = self.tally.over_all() if stop or save or log or whole else None
        randoms = torchrun.random_states() if stop or save or log else None
        gray = step == self.began + 1 and not self.tally.sums[1]
        self.weighed = self.weighed or (tally is not None and bool(tally["sums"][1]))
        if whole and not self.weighed:
            raise DataError(f"{streams.name(self.manifest.path)}: step {step:,}: {watch.GRAY}")
        if log:
            self.tally.clear()
        if self.first:
            if log:
                tally = self._line(step, lr, tally, randoms)
            if stop or save:
                self._save(step, tally, randoms)
            self.progress(step, self.steps, self.note)
            self._foretell(step)
            if gray:
                self.say(f"step {step:,}: {watch.GRAY}")
            if stop:
                self.run.stop(self.stopping() or "a signal to another rank")
        return bool(stop)

    def _check_readable(self, step, whole):
        """Raise DataError where more than the share MAX_BAD of the images could not be read."""
        found = (self.tally.unreadable, step * self.batch, self.max_bad)
        if datasets.too_many(*found, len(self.manifest), whole):
            lines = watch.first_lines(torchrun.gathered(self.tally.lines))
            raise datasets.unreadable_error(self.manifest, *found, lines)

    def _line(self, step, lr, tally, randoms):
        """Log the line of STEP; return the TALLY that the next one begins with."""
        now = time.monotonic()
        seconds, waited = ((v / (step - self.timed)) for v in (now - self.timed_at, self.waited))
        loss, accuracy = watch.means(tally)
        lines = [[line + 1, self.manifest[line].path] for line in tally["lines"]]
        line = {"step": step, "epoch": step / self.epoch_steps, "lr": lr}
        line |= {"loss": loss, "accuracy": accuracy, "unreadable": tally["unreadable"]}
        line |= {"unreadable_lines": lines} if lines else {}
        line["time_images_per_second"] = round(self.batch / seconds, 1)
        line["time_data"] = round(waited, 6)
        cleared = watch.cleared(tally)
        line = records.line(line)
        self.run.append(line)
        try:
            self.emit(line)
        except OSError:  # its reader left, or its disk is full: lose no step
            self._save(step, cleared, randoms)
            raise
        judged = step - LOG_EVERY < watch.chance_step(self.epoch_steps) <= step
        if judged and (message := watch.at_chance(loss, self.chance)):
            self.say(f"step {step:,}: {message}")
        self.timed, self.timed_at, self.waited = step, now, 0.0
        self.note = f"loss {loss:.3f}" if loss is not None else ""
        return cleared

    def _save(self, step, tally, randoms):
        state = {"network": self.network.state_dict(), "optimizer": self.chosen.state_dict()}
        state |= {"random": randoms, "threads": torch.get_num_threads()}
        state["position"] = list(divmod(step, self.epoch_steps))  # epoch, batch of its order
        self.run.save(step, state | tally)

    def _foretell(self, step):
        """Say once how long the rest will take; the first step is slower than all others."""
        if step == self.began + 1:
            self.began_at = time.monotonic()
        if step == self.began + TIMED and step < self.steps:
            seconds = (time.monotonic() - self.began_at) / (TIMED - 1)
            self.say(watch.remaining(self.steps - step, seconds, self.batch))
