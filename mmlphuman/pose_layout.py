"""Where a pose's 165 axis-angle numbers belong: the joints of SMPL-X in their order.

global_orient 3 | body 63 | jaw 3 | eyes 6 | left hand 45 | right hand 45. Behind them, where MLPs are concerned, stand
the 10 numbers of the face's expression.   Imports nothing: viewers have no torch.
"""

NUM_JOINTS = 55
POSE_DIM = NUM_JOINTS * 3
EXPRESSION_DIM = 10  # of SMPL-X's expression, the first ones
BODY_POSE = slice(3, 66)  # the 63 numbers that drive the published MLPs
BODY_DIM = BODY_POSE.stop - BODY_POSE.start
JAW_POSE = slice(66, 69)
LEFT_HAND_POSE = slice(75, 120)
RIGHT_HAND_POSE = slice(120, 165)
HANDS_POSE = slice(LEFT_HAND_POSE.start, RIGHT_HAND_POSE.stop)  # both

# Joints by number; the root is 0, so the body's 21 are one less when counted from 0.
JAW = 22
NECK, LEFT_COLLAR, RIGHT_COLLAR = 12, 13, 14
LEFT_WRIST, RIGHT_WRIST = 20, 21
LEFT_FINGERS, RIGHT_FINGERS = range(25, 40), range(40, 55)
HAND_JOINTS = (LEFT_WRIST, RIGHT_WRIST, *LEFT_FINGERS, *RIGHT_FINGERS)  # the wrists carry the palms
