"""Which of a pose's numbers each MLP sees: all of the body's, as published, or the joints near its anchor alone.

Data path: skinning weights + interpolation from anchors -> indices (A, I) into a pose's 165 numbers, a zero and the 10
of expression -> Avatar.

An MLP that sees the whole body learns from a few hundred poses that an elbow's folds follow the other knee; in a pose
that training did not show that knee is somewhere else. What a region does follows from the joints that move it and
their neighbours, and of these training has seen far more combinations.
Shape letters: N Gaussians, A anchors, J joints, I inputs of an MLP.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmlphuman.avatar.neighbours import Interpolation
from mmlphuman.pose_layout import BODY_POSE, EXPRESSION_DIM, HAND_JOINTS, JAW, NUM_JOINTS, POSE_DIM

NOTHING = POSE_DIM  # index of a zero that stands behind the joints' numbers
EXPRESSION = range(NOTHING + 1, NOTHING + 1 + EXPRESSION_DIM)  # indices of the expression's
NEIGHBOUR_SHARE = 0.5  # of a joint's relevance that its parent and its children get
MIN_RELEVANCE = 0.02
MOST_JOINTS = 12  # of an MLP, the most relevant ones: a hand has more


def body_inputs() -> Tensor:
    """(63,) the same for every MLP (paper sec. 3)."""
    return torch.arange(BODY_POSE.start, BODY_POSE.stop)


def local_inputs(
    lbs_weights: Tensor,
    gaussian_to_anchor: Interpolation,
    anchors: int,
    parents: Sequence[int],
    expression: bool = False,
) -> Tensor:
    """(A, I) indices: the axis-angle numbers of the joints that matter to each MLP's Gaussians; NOTHING fills up.

    A joint's relevance is its mean skinning weight (N, J) over the anchor's Gaussians, half of it passed on to its
    parent and children. The root, which moves the body as a whole, and the eyes are not seen.
    expression: the MLPs that see the jaw, those of the head, see the expression too.
    """
    own = lbs_weights.new_zeros(anchors, NUM_JOINTS)
    for index, weight in zip(gaussian_to_anchor.index.T, gaussian_to_anchor.weight.T, strict=True):
        own.index_add_(0, index, lbs_weights * weight[:, None])
    own = own / own.sum(1, keepdim=True).clamp_min(1e-9)  # an anchor without Gaussians sees nothing
    relevance = own.clone()
    for joint, parent in enumerate(parents):
        if parent >= 0:
            relevance[:, parent] += NEIGHBOUR_SHARE * own[:, joint]
            relevance[:, joint] += NEIGHBOUR_SHARE * own[:, parent]
    seen = [*range(1, 1 + (BODY_POSE.stop - BODY_POSE.start) // 3), JAW, *HAND_JOINTS]
    hidden = torch.ones(NUM_JOINTS, dtype=torch.bool)
    hidden[seen] = False
    relevance[:, hidden] = 0
    relevance[relevance < MIN_RELEVANCE] = 0
    most = max(1, min(MOST_JOINTS, int((relevance > 0).sum(1).max())))
    found = relevance.topk(most, 1)
    numbers = 3 * found.indices[:, :, None] + torch.arange(3)
    inputs = torch.where(found.values[:, :, None] > 0, numbers, NOTHING).flatten(1)
    if not expression:
        return inputs
    of_head = (inputs == 3 * JAW).any(1, keepdim=True)
    return torch.cat([inputs, torch.where(of_head, torch.tensor(EXPRESSION), NOTHING)], 1)


def inputs_of(features: Tensor, index: Tensor) -> Tensor:
    """(175,) a pose's numbers and its expression's -> (63,) or (A, I) what the MLPs get. Without an expression that
    an index asks for (165,) will do."""
    joints, expression = features[:POSE_DIM], features[POSE_DIM:]
    return torch.cat([joints, joints.new_zeros(1), expression])[index]


def largest_seen(of_joints: Tensor, index: Tensor) -> Tensor:
    """(J,) numbers of joints, 0 or more -> () or (A,) the largest among the joints that each MLP sees."""
    no_expression = of_joints.new_zeros(EXPRESSION_DIM)
    return inputs_of(torch.cat([of_joints.repeat_interleave(3), no_expression]), index).amax(-1)
