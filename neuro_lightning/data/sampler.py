"""Which trials make up which batch: a pure function of seed and epoch, so that a run can be resumed bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler, SequentialSampler

from neuro_lightning.errors import DataError


class EpochBatches(Sampler[list[int]]):
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
        self.n, self.seed, self.rank, self.world = n, seed, rank, world
        self.n_batches = n_batches or max(1, -(-n // batch_size))
        if n // self.n_batches < world:
            raise DataError(
                f"data.batch_size={batch_size} leaves a batch with fewer trials than there are processes ({world}): "
                "use a larger data.batch_size or fewer trainer.devices"
            )
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

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        batches = torch.randperm(self.n, generator=generator).tensor_split(self.n_batches)
        first = self.skip[1] if self.epoch == self.skip[0] else 0
        for batch in batches[first:]:
            yield batch[self.rank :: self.world].tolist()


class Grouped(Sampler[list[list[int]]]):
    """Several batches at once, for networks so small that the trainer's work around a step outweighs the step.

    Args:
        batches: the batches of an epoch.
        size: how many are handed out together; the last group may be smaller.
    """

    def __init__(self, batches: EpochBatches, size: int) -> None:
        self.batches, self.size = batches, size

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.batches) // self.size)

    def __iter__(self) -> Iterator[list[list[int]]]:
        group: list[list[int]] = []
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
