"""Which numbers of a pose each MLP sees: the definition joint by joint, and whom an anchor on the body hears."""

from dataclasses import replace

import pytest
import torch

from mmlphuman.avatar.neighbours import Interpolation
from mmlphuman.avatar.pose_inputs import body_inputs, inputs_of, largest_seen, local_inputs
from mmlphuman.config import default_config
from tests.builders import body_and_volume, random_layout, random_pose, randomise, small_avatar

ROOT, JAW, EYES = 0, 22, (23, 24)
# The skeleton of the body model: every joint's parent.
PARENTS = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15,
    20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38, 21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21,
    52, 53,
)  # fmt: skip
HIP, KNEE, ANKLE, FOOT = 1, 4, 7, 10  # left
COLLAR, SHOULDER, ELBOW, WRIST = 13, 16, 18, 20
HEAD = 15


def joints_of(inputs: torch.Tensor) -> list[set[int]]:
    """Of each MLP, whose three numbers stand side by side."""
    found = []
    for row in inputs.tolist():
        triples = [tuple(row[i : i + 3]) for i in range(0, len(row), 3)]
        numbers = [each for each in triples if each != (165, 165, 165)]
        assert all(each == (each[0], each[0] + 1, each[0] + 2) and each[0] % 3 == 0 for each in numbers)
        found.append({each[0] // 3 for each in numbers})
        assert len(found[-1]) == len(numbers), "no joint twice"
    return found


def relevances(lbs_weights, table: Interpolation, anchors: int, parents) -> list[dict[int, float]]:
    """Written out: an anchor's mean skinning weights, and half of a joint's to its parent and to its children."""
    found = []
    for anchor in range(anchors):
        sums = [0.0] * 55
        for n in range(len(lbs_weights)):
            for index, weight in zip(table.index[n].tolist(), table.weight[n].tolist(), strict=True):
                if index == anchor:
                    for joint in range(55):
                        sums[joint] += weight * lbs_weights[n, joint].item()
        whole = sum(sums)
        own = [each / whole for each in sums]
        relevance = {}
        for joint in range(55):
            neighbours = [parents[joint]] if parents[joint] >= 0 else []
            neighbours += [child for child in range(55) if parents[child] == joint]
            relevance[joint] = own[joint] + 0.5 * sum(own[each] for each in neighbours)
        for unseen in (ROOT, *EYES):
            relevance.pop(unseen)
        found.append({joint: value for joint, value in relevance.items() if value >= 0.02})
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_most_relevant_joints_are_seen_up_to_twelve(seed):
    layout = random_layout(torch.Generator().manual_seed(seed), gaussians=20)
    parents = layout.parents.tolist()
    inputs = local_inputs(layout.lbs_weights, layout.gaussian_to_anchor, 4, parents)
    assert inputs.shape == (4, 36) and inputs.dtype == torch.long
    for seen, relevance in zip(
        joints_of(inputs), relevances(layout.lbs_weights, layout.gaussian_to_anchor, 4, parents), strict=True
    ):
        most = sorted(relevance, key=relevance.get, reverse=True)[:12]
        assert seen == set(most)


def on_joints(*shares: dict[int, float], parents=PARENTS) -> torch.Tensor:
    """The inputs of anchors each of which has one Gaussian, with these skinning weights."""
    weights = torch.zeros(len(shares), 55)
    for row, share in zip(weights, shares, strict=True):
        for joint, weight in share.items():
            row[joint] = weight
    table = Interpolation(torch.arange(len(shares))[:, None], torch.ones(len(shares), 1))
    return local_inputs(weights, table, len(shares), parents)


def test_a_joint_s_neighbours_are_its_parent_and_its_children():
    elbow, knee, head = joints_of(on_joints({ELBOW: 1.0}, {KNEE: 1.0}, {HEAD: 1.0}))
    assert elbow == {SHOULDER, ELBOW, WRIST}
    assert knee == {HIP, KNEE, ANKLE}
    assert head == {12, HEAD, JAW}


def test_a_joint_of_little_weight_is_not_seen_and_root_and_eyes_never():
    """0.02 of relevance: a weight of 0.05 makes the neighbours seen, one of 0.03 does not."""
    (seen,) = joints_of(on_joints({KNEE: 0.95, ELBOW: 0.05}))
    assert seen == {HIP, KNEE, ANKLE, SHOULDER, ELBOW, WRIST}
    (seen,) = joints_of(on_joints({KNEE: 0.97, ELBOW: 0.03}))
    assert seen == {HIP, KNEE, ANKLE, ELBOW}
    (seen,) = joints_of(on_joints({KNEE: 0.99, ELBOW: 0.01}))
    assert seen == {HIP, KNEE, ANKLE}
    (pelvis,), (eyes,) = joints_of(on_joints({ROOT: 1.0})), joints_of(on_joints({23: 0.5, 24: 0.5}))
    assert pelvis == {1, 2, 3} and eyes == {HEAD}


def test_rows_are_as_wide_as_the_one_that_sees_most_and_nothing_fills_up():
    """A wrist with its five fingers; an elbow; an anchor without Gaussians."""
    weights = torch.zeros(2, 55)
    weights[0, WRIST] = weights[1, ELBOW] = 1
    inputs = local_inputs(weights, Interpolation(torch.tensor([[0], [1]]), torch.ones(2, 1)), 3, PARENTS)
    assert inputs.shape == (3, 3 * 7)
    wrist, elbow, nobody = joints_of(inputs)
    assert wrist == {ELBOW, WRIST, 25, 28, 31, 34, 37}
    assert elbow == {SHOULDER, ELBOW, WRIST} and nobody == set()
    seen = inputs_of(1 + torch.arange(165.0), inputs)
    assert seen.shape == (3, 21)
    for row, index in zip(seen.tolist(), inputs.tolist(), strict=True):
        assert row == [0 if number == 165 else 1 + number for number in index]


def test_as_published_all_see_the_body_s_63_numbers():
    joints = torch.randn(165)
    assert torch.equal(inputs_of(joints, body_inputs()), joints[3:66])


# --- on a body --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def avatar(synthetic_body):
    return randomise(small_avatar(synthetic_body, num_features=40))


def nearest_anchor(avatar, body_path, joint: int) -> int:
    """Of the Gaussians nearest to the joint, the anchor that they follow most."""
    joints = body_and_volume(body_path)[0].joints
    transforms = avatar.canonical_inverse.inverse()
    place = (transforms[joint] @ torch.cat([joints[joint], torch.ones(1)]))[:3]
    near = (avatar.xyz - place).norm(dim=1).argsort()[:5]
    return int(avatar.gaussian_to_anchor.index[near, 0].mode().values)


@pytest.mark.parametrize(
    ("joint", "sees", "does_not"),
    [
        (ELBOW, {SHOULDER, ELBOW, WRIST}, {KNEE, HIP, 17, 19, 21}),
        (KNEE, {HIP, KNEE, ANKLE}, {ELBOW, WRIST, 5, 8}),
        (HEAD, {HEAD, JAW}, {KNEE, ELBOW, 25}),
    ],
)
def test_an_anchor_of_a_body_sees_the_joints_about_it(avatar, synthetic_body, joint, sees, does_not):
    seen = joints_of(avatar.mlp_inputs)[nearest_anchor(avatar, synthetic_body, joint)]
    assert sees <= seen and not does_not & seen


def test_of_a_body_nobody_sees_root_or_eyes_hands_see_fingers(avatar, synthetic_body):
    everyone = joints_of(avatar.mlp_inputs)
    assert not set().union(*everyone) & {ROOT, *EYES}
    hand = everyone[nearest_anchor(avatar, synthetic_body, 28)]
    assert len(hand & set(range(25, 40))) >= 5 and not hand & set(range(40, 55))


def test_what_an_anchor_does_not_see_does_not_change_its_coefficients(avatar):
    pose = random_pose(1)
    with torch.no_grad():
        before = avatar.bank(inputs_of(pose.joints, avatar.mlp_inputs))
        for joint in range(55):
            moved = pose.joints.clone()
            moved[3 * joint : 3 * joint + 3] += 0.5
            after = avatar.bank(inputs_of(moved, avatar.mlp_inputs))
            hears = torch.tensor([joint in seen for seen in joints_of(avatar.mlp_inputs)])
            assert torch.equal((after != before).any(1), hears), joint


def test_settings_choose_what_is_seen(synthetic_body):
    published = small_avatar(synthetic_body, pose_inputs="body")
    assert published.mlp_inputs.tolist() == list(range(3, 66))
    assert small_avatar(synthetic_body).mlp_inputs.shape[0] == 10
    assert default_config().pose_inputs == "local"
    moved = random_pose(2)
    moved = replace(moved, joints=torch.cat([moved.joints[:66], moved.joints[66:] + 1]))
    with torch.no_grad():
        assert torch.equal(published(moved).posed.sh[:, 1:], published(random_pose(2)).posed.sh[:, 1:])


def test_mlps_that_see_the_jaw_see_the_expression_behind_their_joints(synthetic_body):
    without, inputs = (small_avatar(synthetic_body, face=face).mlp_inputs for face in (False, True))
    assert torch.equal(inputs[:, :-10], without), "joints as without it"
    of_head = [JAW in seen for seen in joints_of(without)]
    assert 0 < sum(of_head) < len(of_head)
    for seen, row in zip(of_head, inputs[:, -10:].tolist(), strict=True):
        assert row == (list(range(166, 176)) if seen else [165] * 10)
    body = small_avatar(synthetic_body, face=True, pose_inputs="body").mlp_inputs
    assert torch.equal(body, body_inputs()), "as published: none of it"


def test_expressions_are_gathered_behind_a_zero():
    features = 1 + torch.arange(175.0)
    index = torch.tensor([[0, 164, 165], [165, 166, 175]])
    assert inputs_of(features, index).tolist() == [[1, 165, 0], [0, 166, 175]]
    assert inputs_of(features[:165], index[:1]).tolist() == [[1, 165, 0]]


def test_the_expression_moves_the_head_alone(synthetic_body):
    avatar, pose = randomise(small_avatar(synthetic_body, face=True)), random_pose(2)
    smiling = replace(pose, expression=pose.expression + 1)
    with torch.no_grad():
        before, after = avatar(pose), avatar(smiling)
    of_head = (avatar.mlp_inputs == 3 * JAW).any(1)
    moved = (after.control_offsets - before.control_offsets).abs().amax(1)
    follows = of_head[avatar.control_to_anchor.index].any(1)
    assert (moved[follows] > 0).float().mean() > 0.9 and not moved[~follows].any()


def test_the_largest_of_what_an_mlp_sees(synthetic_body):
    inputs = small_avatar(synthetic_body).mlp_inputs
    numbers = torch.rand(55, generator=torch.Generator().manual_seed(0))
    expected = [max(numbers[joint].item() for joint in seen) for seen in joints_of(inputs)]
    assert largest_seen(numbers, inputs).tolist() == expected
    assert largest_seen(numbers, body_inputs()) == numbers[1:22].max()
    nothing = torch.tensor([[165] * 6, [165, 166, 170, 173, 174, 175]])
    assert largest_seen(numbers, nothing).tolist() == [0, 0]
