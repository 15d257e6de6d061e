"""EndlessSampler: which frame and which cameras come next, for ever, in an order that can be saved.

Data path: CaptureDataset.pairs -> EndlessSampler -> (frame, camera ids) -> SampleStream.
The order is a function of (seed, epoch, position) alone, so three numbers restore it exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

Draw = tuple[int, tuple[int, ...]]  # frame, camera ids


class EndlessSampler:
    """Endless iterator of (frame, camera ids), V distinct cameras of one frame a draw.

    Every epoch shuffles each frame's cameras, cuts them into groups of V and shuffles the groups; a group
    that comes out short is filled up with other cameras of its frame. With V = 1 every pair is drawn once an
    epoch.
    Raises ValueError if a frame has fewer than V cameras.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], views_per_pose: int, seed: int):
        if views_per_pose < 1:
            raise ValueError(f"views_per_pose must be at least 1, got {views_per_pose}")
        if not pairs:
            raise ValueError("no (frame, camera) pair to sample from")
        self.views_per_pose = views_per_pose
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self._cameras_of: dict[int, list[int]] = {}
        for frame, camera_id in pairs:
            self._cameras_of.setdefault(frame, []).append(camera_id)
        for frame, camera_ids in self._cameras_of.items():
            if len(camera_ids) < views_per_pose:
                raise ValueError(
                    f"frame {frame} has images of {len(camera_ids)} of the cameras, views_per_pose is "
                    f"{views_per_pose}; lower it or leave the frame out"
                )
        self._order = self._shuffled(self.epoch)

    def __iter__(self) -> Iterator[Draw]:
        return self

    def __next__(self) -> Draw:
        if self.position == len(self._order):
            self.epoch += 1
            self.position = 0
            self._order = self._shuffled(self.epoch)
        draw = self._order[self.position]
        self.position += 1
        return draw

    def state_dict(self) -> dict[str, int]:
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "position": self.position,
            "draws_per_epoch": len(self._order),
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state` was saved. ValueError if frames or cameras were others then."""
        if state["draws_per_epoch"] != len(self._order):
            raise ValueError(
                f"the saved run drew {state['draws_per_epoch']} samples an epoch, this one would draw "
                f"{len(self._order)}; resume with the same capture, cameras, frames and views_per_pose"
            )
        seed, epoch, position = state["seed"], state["epoch"], state["position"]
        if any(type(n) is not int or n < 0 for n in (seed, epoch, position)) or position > len(self._order):
            raise ValueError(
                f"seed {seed}, epoch {epoch}, position {position} are no place in the order of samples"
            )
        self.seed, self.epoch, self.position = seed, epoch, position
        self._order = self._shuffled(self.epoch)

    def _shuffled(self, epoch: int) -> list[Draw]:
        rng = np.random.default_rng([self.seed, epoch])
        views = self.views_per_pose
        draws = []
        for frame, camera_ids in self._cameras_of.items():
            shuffled = rng.permutation(camera_ids).tolist()
            missing = -len(shuffled) % views
            # The front fills up the last group; as there are at least V cameras, they are others.
            shuffled += shuffled[:missing]
            draws += [(frame, tuple(shuffled[i : i + views])) for i in range(0, len(shuffled), views)]
        return [draws[i] for i in rng.permutation(len(draws))]
