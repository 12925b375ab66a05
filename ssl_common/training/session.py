"""A training from the command to its last message: files, ranks, and the training loop."""

import abc
import contextlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ssl_common import streams
from ssl_common.data.lines import Lines, index_files
from ssl_common.data.manifest import Manifest
from ssl_common.objective import Objective
from ssl_common.processes import Stopped
from ssl_common.progress import Conversation
from ssl_common.ranks import collectives, devices
from ssl_common.ranks.launch import Launch
from ssl_common.ranks.placement import IS_RANK, RANK
from ssl_common.recipe import Recipe
from ssl_common.streams import DataError
from ssl_common.training import plan as plans
from ssl_common.training.checkpoints import Run
from ssl_common.training.journal import LOG_EVERY, Journal
from ssl_common.training.loop import train
from ssl_common.training.plan import Plan, TrainingOptions


class Work(abc.ABC):
    """What a command trains, made for a manifest and a Plan.

    `objective` is what the network is trained for, `settings` are those that decide the result,
    besides the plan and the images.
    """

    objective: Objective
    settings: dict[str, Any]

    def notice(self, device: torch.device) -> str | None:
        """Return a message to show before training on DEVICE, or None.

        Raises DataError if the training cannot run there.
        """
        return None

    @abc.abstractmethod
    def network(self) -> nn.Module:
        """Return the network to train, in its initial state."""

    @abc.abstractmethod
    def dataset(
        self, folder: str, device: torch.device, workers: int, stopping: Callable[[], str | None]
    ) -> tuple[Any, int]:
        """Return the data set and the number of WORKERS that read it.

        FOLDER is that of the run, in which it may keep files. Raises Stopped on all ranks where
        STOPPING() names a signal on any while they are made.
        """

    @abc.abstractmethod
    def finished(self, state: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Return the content of the output, made from STATE, the state of the trained network."""

    def tidy(self, folder: str) -> None:
        """Remove what dataset() kept in the FOLDER of the run, when the output is written."""
        return None


class Session:
    """One training by COMMAND, of OPTIONS, on MANIFEST, of a KIND; FILES are the other inputs.

    A step has LEAST images or more. TALK is how it speaks and hears of signals. More GPUs than one
    are ranks of a torchrun that this process leads. It is opened when it is made: `images` are
    those of the manifest. Raises DataError for what can be refused early.
    """

    def __init__(
        self,
        command: str,
        options: TrainingOptions,
        manifest: str,
        files: Sequence[str | None],
        talk: Conversation,
        kind: type[Lines[Any]] = Manifest,
        least: int = 2,
    ) -> None:
        self.command, self.options, self.manifest, self.talk = command, options, manifest, talk
        self.least = least
        output = options.output
        self.launch = Launch(options.gpus, options.device)
        if streams.is_special(output) or not os.path.exists(output):  # else it may be complete
            streams.check_output(output)
        several = plans.side_by_side(options) > 1
        if options.sync_bn and several and self.launch.device == "cpu":
            raise DataError("--sync-bn: torch synchronises batch norm between GPUs only")
        self.precision = self._precision()
        self.launch.share([manifest, *files])
        self.images: Any = kind(manifest, index_files(manifest, options.index_dir))

    def check_batch(self, recipe: Recipe) -> None:
        """Raise DataError for fewer images than a batch, that of RECIPE if no other is given."""
        count, batch = len(self.images), self.options.batch or recipe.batch
        if count < batch:
            pieces = plans.pieces(self.options, recipe)
            name = streams.name(self.manifest)
            raise DataError(_too_few(name, count, batch, pieces, self.least))

    def plan(self, recipe: Recipe, name: str) -> Plan:
        """Return the plan of RECIPE, called NAME; raise DataError for fewer images than a batch."""
        self.check_batch(recipe)
        return plans.plan(self.options, recipe, name, len(self.images), self.precision)

    def run(self, plan: Plan, work: Work) -> str | None:
        """Train WORK by PLAN; return the last message, or None if another rank says it.

        Raises DataError for bad input, and Stopped where a signal stopped it, but in a rank: its
        torchrun takes any status but 0 amiss.
        """
        run = self._run(plan, work)
        if self.launch.leads and not run.complete():
            self._lead(run)
            return None
        with self.launch.join() as device:
            if collectives.from_first(lambda: run.settings) != run.settings:
                message = f"rank {RANK} has another manifest, other files or options"
                raise DataError(f"{message} than the first: give all the same")
            message = f"{run.output}: {plan.epochs:g} epochs of {plan.images} images"
            complete = collectives.from_first(run.complete)
            if not complete:
                with contextlib.closing(run):
                    complete = self._train(run, plan, work, device)
            elif RANK == 0:
                work.tidy(run.folder)  # what one that was killed at its end left
                message = tell_again(run, self.talk.emit)
        if not complete and not IS_RANK:
            raise Stopped(run.stopped())
        return message if complete and RANK == 0 else None

    def _precision(self) -> str:
        device = self.launch.device
        precision = self.options.precision or ("bf16" if device == "cuda" else "fp32")
        slow = device == "cpu" and precision == "bf16" and devices.lacks_bf16()
        if slow and self.launch.speaks:
            self.talk.say("this processor has no instructions for bf16: fp32 is faster")
        return precision

    def _run(self, plan: Plan, work: Work) -> Run:
        of_images = {"images": plan.images, "data": self.images.digest()}
        of_images["data_name"] = streams.stem(self.manifest)
        settings = plan.settings() | work.settings | of_images
        keeping = plan.images // plan.batch if self.options.keep_epochs else 0
        return Run(self.options.output, settings, keeping, self.command, self.talk.say)

    def _lead(self, run: Run) -> None:
        """Run the ranks to their end; the first rank gives the last message."""
        run.forget_stop()
        error = self.launch.lead(self.talk.stopping, self.options.max_restarts)
        if reason := run.stopped():
            raise Stopped(reason)
        if error:
            raise error

    def _train(self, run: Run, plan: Plan, work: Work, device: torch.device) -> bool:
        """Train the network of WORK to its end and write it; return whether it got there."""
        if (line := work.notice(device)) and RANK == 0:
            self.talk.say(line)
        collectives.from_first(run.open)  # before anything is made in its folder
        network, stopping = work.network(), self.talk.stopping
        try:
            try:
                dataset, workers = work.dataset(run.folder, device, self.options.workers, stopping)
            except Stopped:
                collectives.from_first(lambda: run.stop(stopping() or "a signal to another rank"))
                return False
            objective, options = work.objective, self.options
            journal = Journal(run, plan, objective, self.images, device, options, self.talk)
            if not train(network, objective, dataset, plan, journal, device, workers):
                return False
        except torch.OutOfMemoryError as error:
            advice = "raise --accumulate, or lower --batch"
            raise DataError(f"the memory of the GPU is too small: {advice} ({error})") from error
        state = {key: value.cpu() for key, value in network.state_dict().items()}
        output = work.finished(state)
        collectives.from_first(lambda: run.finish(output))
        if RANK == 0:
            work.tidy(run.folder)
        return True


def tell_again(run: Run, emit: Callable[[bytes], object]) -> str:
    """Pass the log of RUN, which is complete, to EMIT; return a message that says so."""
    lines = list(run.log_lines())
    for line in lines:
        emit(line)
    message = f"{run.output} is complete already: nothing to do"
    whole = 1 + math.ceil(run.settings["steps"] / LOG_EVERY)  # the settings come first
    if len(lines) < whole:
        message += f"; of its log, {run.log.path}, {len(lines):,} of {whole:,} lines are left"
    return message


def _too_few(name: str, count: int, batch: int, pieces: int, least: int) -> str:
    """Return the error for a manifest NAME with COUNT images, fewer than a BATCH of PIECES.

    A batch has LEAST images or more.
    """
    fitting = count // pieces * pieces
    images = "1 image is" if count == 1 else f"{count} images are"
    message = f"{name}: {images} less than one batch of {batch}"
    if fitting >= least:
        return f"{message}: give --batch {fitting}"
    if pieces > 1 and (count > 1 or least < 2):
        return f"{message}, of {pieces} pieces: lower --gpus or --accumulate, or list more images"
    return f"{name}: {count} image, but batch norm needs 2 in a batch or more: list more images"
