"""A new run that starts from a trained avatar (train.py --init_from) instead of from a grey surface.

Data path: model folder, avatar.pt or compact file -> TrainedAvatar -> StartingAvatar, which fits the new settings and
the capture's body -> Scene.

Taken over: Gaussians with their places and weights, bases, MLPs and the scene's light. New: optimisers, learning rates
and their decay, what the pose space knows, corrections of the capture. What the avatar had switched on by its schedule
is on from the first step: without its bases it would be another person, and training would mend that.
A compact avatar lacks what only training needs: how control points lie to each other, and bases that were pruned.
Shape letters: N Gaussians, C control points, A anchors, P points of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import trimesh
from torch import Tensor

from mmlphuman.avatar.avatar import Avatar
from mmlphuman.avatar.build import (
    CONTROL_NEIGHBOURS,
    avatar_from_state,
    load_template,
    read_template_mesh,
)
from mmlphuman.avatar.light import SceneLight
from mmlphuman.avatar.neighbours import interpolation, nearest, places_of
from mmlphuman.body.smplx_model import Body
from mmlphuman.config import Config
from mmlphuman.model_folder import FURTHEST_MOVE, TEMPLATE_NAME, is_compact, load_model

# Settings that decide what numbers an avatar has and what they mean.
SHAPING = (
    "init_num_gs", "num_verts", "num_features", "num_gsparam_bases", "num_position_bases", "xyz_offset_range",
    "pose_inputs", "hidden_widths", "light",
)  # fmt: skip
# Setting -> the part of ActiveParts that it switches on.
SWITCHES = {
    "iteration_dxyz_basis": "position_bases",
    "iteration_gsparam_basis": "property_bases",
    "iteration_sh_degree": "sh1",
}
OTHER_BODY = 0.01  # metres between joints


@dataclass(frozen=True)
class StartingAvatar:
    path: Path
    avatar: Avatar  # whole, to be trained
    iteration: int  # of its own run
    switched_on: tuple[str, ...]  # settings' names
    template: Path | None

    @classmethod
    def load(cls, path: Path, config: Config) -> StartingAvatar:
        """path: as `load_model` takes it. ValueError, one line, if the avatar is another than the settings describe."""
        trained = load_model(path)
        if wrong := [key for key in SHAPING if getattr(trained.config, key) != getattr(config, key)]:
            words = " ".join(f"{key}={_word(getattr(trained.config, key))}" for key in wrong)
            raise ValueError(f"--init_from {path}: the settings describe another avatar; add {words}")
        avatar = trained.avatar
        if avatar.is_compact:
            avatar = avatar_from_state(trained.config, trainable_state(avatar))
        switched_on = tuple(key for key, part in SWITCHES.items() if getattr(trained.active, part))
        folder = path if path.is_dir() else path.parent
        templates = (place / TEMPLATE_NAME for place in (folder, folder.parent.parent))
        template = next((file for file in templates if file.is_file()), None)
        return cls(path, avatar, trained.iteration, switched_on, template)

    def settings(self, config: Config) -> Config:
        """Those of the run: the schedule does not switch off what is on."""
        return with_switched_on(config, self.switched_on)

    def check_body(self, body: Body) -> None:
        """ValueError, one line, for a capture of somebody else. The avatar keeps its joints."""
        apart = float(torch.linalg.vector_norm(body.joints - self.avatar.joints, dim=1).max())
        if apart > OTHER_BODY:
            raise ValueError(
                f"--init_from {self.path}: an avatar of another body, its joints lie up to {100 * apart:.1f} cm "
                "from those of this capture's betas; leave --init_from out, or give the capture the avatar's betas"
            )

    def light_up(self, translations: Tensor) -> bool:
        """Whether the light is the scene's of these training poses (F, 3); one of another place starts anew, here."""
        light = self.avatar.light
        if light is None:
            return True
        low, high = translations.amin(0), translations.amax(0)
        within = low >= light.lowest - FURTHEST_MOVE, high <= light.highest + FURTHEST_MOVE
        if all(bool(side.all()) for side in within):
            return True
        self.avatar.light = SceneLight(len(light.coefficients), low, high)
        return False

    def surface(self, capture_template: Path, body: Body) -> trimesh.Trimesh:
        """The mesh that its Gaussians lie on, if that was kept; else as of a new avatar."""
        if is_compact(self.path):
            from mmlphuman.export.compact_reader import load_carried

            if (carried := load_carried(self.path).template) is not None:
                return carried
        if self.template is None:
            return load_template(capture_template, body)
        return read_template_mesh(self.template)

    def record(self) -> dict[str, Any]:
        """For the run's own folder, and for `with_switched_on` when it goes on."""
        path = str(self.path.absolute())
        return {"path": path, "iteration": self.iteration, "switched_on": list(self.switched_on)}


def with_switched_on(config: Config, names: Sequence[str]) -> Config:
    return replace(config, **{name: 0 for name in SWITCHES if name in names})


def trainable_state(avatar: Avatar) -> dict[str, Tensor]:
    """A compact avatar's state with what was left out: bases of 0 for Gaussians that had lost theirs, and the tables
    that need places of control points and anchors, which are estimated: see `places_of`."""
    state, count = avatar.state_dict(), len(avatar.xyz)
    controls = places_of(avatar.gaussian_to_control, avatar.xyz, len(avatar.control_offsets))
    anchors = places_of(avatar.control_to_anchor, controls, len(avatar.bank.weights[0]))
    state["control_neighbours"] = nearest(controls, controls, CONTROL_NEIGHBOURS)[1]
    table = avatar.gaussian_to_anchor
    if pruned := count - len(table.index):
        rest = interpolation(avatar.xyz[-pruned:], anchors)
        state["gaussian_to_anchor.index"] = torch.cat([table.index, rest.index])
        state["gaussian_to_anchor.weight"] = torch.cat([table.weight, rest.weight])
    for name in ("property_bases", "sh1_bases"):
        bases = state[name]
        state[name] = torch.cat([bases, bases.new_zeros(count - len(bases), *bases.shape[1:])])
    return state | _of_trainable_size(state, len(avatar.bank.weights), avatar.num_gsparam_bases)


def _of_trainable_size(state: dict[str, Tensor], layers: int, of_properties: int) -> dict[str, Tensor]:
    """The last layer (A, K + L, I) and the bases, with each coefficient's layer as large as a new one's.

    A compact file has coefficients of variance 1, for which its last layer is large and its bases are small
    (export.standard_form). Adam's steps are as long as the learning rate whatever a number's size: the first ones would
    be longer than such bases.
    """
    last, bias = f"bank.weights.{layers - 1}", f"bank.biases.{layers - 1}"
    weight = state[last]
    size = weight.square().mean((0, 2)).sqrt()  # (K + L,)
    factor = torch.where(size > 0, size * (3 * weight.shape[2]) ** 0.5, 1.0)  # MLPBank's are uniform
    found = {last: weight / factor[:, None], bias: state[bias] / factor}
    for name, part in (
        ("property_bases", factor[:of_properties]),
        ("sh1_bases", factor[:of_properties]),
        ("position_bases", factor[of_properties:]),
    ):
        found[name] = state[name] * part[:, None]
    return found


def _word(value: object) -> str:
    """As the command line takes it."""
    return str(value).replace(" ", "")
