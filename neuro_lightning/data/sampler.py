"""Which trials make up which batch: a pure function of seed and epoch, so that a run can be resumed bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch.utils.data import Sampler, SequentialSampler

from neuro_lightning.errors import DataError


class TrainingBatches(Sampler):
    """Base class: the batches of one epoch, from the first or, where a run is resumed, from a later one.

    Args:
        seed: of the shuffling.
        rank: this process.
        world: how many processes share each batch.
    """

    n_batches: int

    def __init__(self, seed: int, rank: int, world: int) -> None:
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = 0
        self.skip: tuple[int, int] = (-1, 0)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def resume(self, epoch: int, batches: int) -> None:
        """Leave out the first ``batches`` batches of ``epoch``: they were done before the interruption."""
        self.skip = (epoch, batches)

    def __len__(self) -> int:
        return self.n_batches

    def generator(self) -> torch.Generator:
        """The random generator of this epoch."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)

    @property
    def n_done(self) -> int:
        """The batches of this epoch that were done before the interruption."""
        return self.skip[1] if self.epoch == self.skip[0] else 0


class EpochBatches(TrainingBatches):
    """Shuffled batches of one epoch, of near-equal size, each shared out among the processes.

    An epoch is cut into ``ceil(n / batch_size)`` batches whose sizes differ by one at most, so there is no small last
    batch. ``batch_size`` counts the trials of all processes together: two processes see, between them, exactly the
    batches that one would see.

    Args:
        n: trials in the split.
        batch_size: trials in a batch, over all processes.
        seed: of the shuffling.
        rank: this process.
        world: how many processes share each batch.
        n_batches: batches in an epoch, whatever their size; None follows from ``batch_size``.

    Raises:
        DataError: a process would get no trial of some batch.
    """

    def __init__(
        self, n: int, batch_size: int, *, seed: int = 0, rank: int = 0, world: int = 1, n_batches: int | None = None
    ) -> None:
        super().__init__(seed, rank, world)
        self.n = n
        self.n_batches = n_batches or max(1, -(-n // batch_size))
        check_shares(n, self.n_batches, batch_size, world)

    def __iter__(self) -> Iterator[list[int]]:
        batches = torch.randperm(self.n, generator=self.generator()).tensor_split(self.n_batches)
        for batch in batches[self.n_done :]:
            yield batch[self.rank :: self.world].tolist()


class SessionBatches(TrainingBatches):
    """Batches of one epoch over several sessions, each of one session, in random order.

    Each session's trials are cut into batches as those of a single recording are. All processes take their share of
    the same session's batch at the same time.

    Args:
        counts: training trials of each session by its name.
        batch_size: trials in a batch, over all processes.
        n_batches: batches in which all trials of each session are seen once.
        even: draw as many batches of each session, in all as many as there would be else.
        seed: of the shuffling.
        rank: this process.
        world: how many processes share each batch.

    Raises:
        DataError: a process would get no trial of some batch.
    """

    def __init__(
        self,
        counts: Mapping[str, int],
        batch_size: int,
        *,
        n_batches: Sequence[int],
        even: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(seed, rank, world)
        self.counts, self.whole = list(counts.values()), list(n_batches)
        for (name, n), batches in zip(counts.items(), n_batches, strict=True):
            check_shares(n, batches, batch_size, world, f" of session {name}")
        self.drawn = [-(-sum(self.whole) // len(self.whole))] * len(self.whole) if even else self.whole
        self.n_batches = sum(self.drawn)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        generator = self.generator()
        batches: list[tuple[int, torch.Tensor]] = []
        for session, (n, whole, drawn) in enumerate(zip(self.counts, self.whole, self.drawn, strict=True)):
            own: list[torch.Tensor] = []
            while len(own) < drawn:
                own += torch.randperm(n, generator=generator).tensor_split(whole)
            batches += [(session, batch) for batch in own[:drawn]]
        order = torch.randperm(len(batches), generator=generator).tolist()
        for session, batch in (batches[i] for i in order[self.n_done :]):
            yield session, batch[self.rank :: self.world].tolist()


def check_shares(n: int, n_batches: int, batch_size: int, world: int, whose: str = "") -> None:
    """Whether every process gets a trial of every batch.

    Raises:
        DataError: it does not.
    """
    if n // n_batches < world:
        raise DataError(
            f"data.batch_size={batch_size} leaves a batch{whose} with fewer trials than there are processes ({world}): "
            "use a larger data.batch_size or fewer trainer.devices"
        )


class Grouped(Sampler[list]):
    """Several batches at once, for networks so small that the trainer's work around a step outweighs the step.

    Args:
        batches: the batches of an epoch.
        size: how many are handed out together; the last group may be smaller.
    """

    def __init__(self, batches: TrainingBatches, size: int) -> None:
        self.batches, self.size = batches, size

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.batches) // self.size)

    def __iter__(self) -> Iterator[list]:
        group: list = []
        for batch in self.batches:
            group.append(batch)
            if len(group) == self.size:
                yield group
                group = []
        if group:
            yield group


class Shards(SequentialSampler):
    """All trials once, in order, shared out among the processes without padding: no trial is scored twice.

    A ``SequentialSampler`` by name, so that Lightning leaves it alone when it overfits a few batches.

    Args:
        n: trials in the split.
        batch_size: trials in a batch of one process.
        rank: this process.
        world: how many processes share the trials.
    """

    def __init__(self, n: int, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        super().__init__(range(n))
        self.index = range(rank, n, world)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.index) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.index), self.batch_size):
            yield list(self.index[start : start + self.batch_size])


class SessionShards(SequentialSampler):
    """All trials of several sessions once, see :class:`Shards`; the sessions take turns.

    So the first few batches, where a training is limited to them, are of all sessions.

    Args:
        counts: trials of each session.
        batch_size: trials in a batch of one process.
        rank: this process.
        world: how many processes share the trials.
    """

    def __init__(self, counts: Sequence[int], batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        super().__init__(range(sum(counts)))
        self.shards = [Shards(n, batch_size, rank=rank, world=world) for n in counts]

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        for turn in itertools.zip_longest(*self.shards):
            yield from ((session, index) for session, index in enumerate(turn) if index is not None)
