"""Wrong signs, constants, factors and exponents to plant in the plain numeric path: each must fail a test.

One constant a file, so that a file that moves is one line here. A fault's text is short and stands once in its file.
"""

from __future__ import annotations

from dataclasses import dataclass

AVATAR = "mmlphuman/avatar/avatar.py"
MLP_BANK = "mmlphuman/avatar/mlp_bank.py"
NEIGHBOURS = "mmlphuman/avatar/neighbours.py"
OFFSET_BASES = "mmlphuman/avatar/offset_bases.py"
POSE_SPACE = "mmlphuman/avatar/pose_space.py"
SAMPLING = "mmlphuman/avatar/sampling.py"
BUILD = "mmlphuman/avatar/build.py"
TRAINED = "mmlphuman/avatar/trained.py"
PROJECTION = "mmlphuman/render/projection.py"
SHADING = "mmlphuman/render/shading.py"
TORCH_RASTERIZER = "mmlphuman/render/torch_rasterizer.py"
RASTERIZE = "mmlphuman/render/rasterize.py"
LOSSES = "mmlphuman/training/losses.py"
IMAGE_LOSSES = "mmlphuman/measures/comparison.py"
PERCEPTUAL = "mmlphuman/measures/lpips.py"
OPTIMISERS = "mmlphuman/training/optimisers.py"
LOOP = "mmlphuman/training/loop.py"
POSE_ROWS = "mmlphuman/gpu/pose_rows.py"
KINEMATICS = "mmlphuman/body/kinematics.py"
WEIGHT_VOLUME = "mmlphuman/body/weight_volume.py"
CAPTURE_DATASET = "mmlphuman/capture/dataset.py"
CAPTURE_IMAGES = "mmlphuman/capture/images.py"
CROP = "mmlphuman/capture/crop.py"
METRICS = "mmlphuman/evaluation/metrics.py"
TYPES = "mmlphuman/types.py"
POSE_LAYOUT = "mmlphuman/pose_layout.py"

# The tests that should catch a file's faults, quick ones first: the first failure ends a run.
TESTS = {
    AVATAR: ("tests/avatar/test_formulas.py", "tests/avatar/test_avatar.py"),
    MLP_BANK: ("tests/avatar/test_mlp_bank.py", "tests/avatar/test_formulas.py"),
    NEIGHBOURS: ("tests/avatar/test_neighbours.py",),
    OFFSET_BASES: ("tests/avatar/test_formulas.py", "tests/avatar/test_avatar.py"),
    POSE_SPACE: ("tests/avatar/test_pose_space.py",),
    SAMPLING: ("tests/avatar/test_sampling.py",),
    BUILD: ("tests/avatar/test_build.py",),
    TRAINED: ("tests/avatar/test_formulas.py", "tests/avatar/test_pose_space.py"),
    PROJECTION: ("tests/render/test_projection.py", "tests/render"),
    SHADING: ("tests/render/test_shading.py",),
    TORCH_RASTERIZER: ("tests/render/test_torch_rasterizer.py",),
    RASTERIZE: ("tests/render/test_torch_rasterizer.py",),
    LOSSES: ("tests/training/test_losses.py", "tests/training/test_numbers.py"),
    IMAGE_LOSSES: (
        "tests/measures/test_comparison.py",
        "tests/training/test_numbers.py",
        "tests/evaluation/test_metrics.py",
    ),
    PERCEPTUAL: ("tests/measures/test_lpips.py",),
    OPTIMISERS: ("tests/training/test_numbers.py",),
    LOOP: ("tests/training/test_loop.py",),
    POSE_ROWS: ("tests/training/test_pose_rows.py",),
    KINEMATICS: ("tests/body/test_kinematics.py",),
    WEIGHT_VOLUME: ("tests/body/test_weight_volume.py",),
    CAPTURE_DATASET: ("tests/capture/test_capture_dataset.py",),
    CAPTURE_IMAGES: ("tests/capture/test_capture_images.py", "tests/capture/test_capture_dataset.py"),
    CROP: ("tests/capture/test_crop.py",),
    METRICS: ("tests/evaluation/test_metrics.py",),
    TYPES: ("tests/render/test_shading.py", "tests/render/test_projection.py"),
    POSE_LAYOUT: ("tests/avatar/test_formulas.py",),
}


@dataclass(frozen=True)
class Fault:
    file: str  # where, from the tree's root
    name: str
    text: str  # as it stands there, once
    planted: str  # what takes its place

    @property
    def tests(self) -> tuple[str, ...]:
        """Files and folders, one of whose tests must fail."""
        return TESTS[self.file]


FAULTS = (
    # From a pose to posed Gaussians (method, sections 2 to 5).
    Fault(AVATAR, "initial opacity", "INITIAL_OPACITY = 0.8", "INITIAL_OPACITY = 0.1"),
    Fault(AVATAR, "initial bases a factor too small", "INITIAL_BASIS = 0.002", "INITIAL_BASIS = 0.0002"),
    Fault(AVATAR, "free offset's sign", "xyz = xyz + self.xyz_offset_range", "xyz = xyz - self.xyz_offset_range"),
    Fault(AVATAR, "free offset by another curve", "torch.tanh(self.xyz_offsets)", "torch.sin(self.xyz_offsets)"),
    Fault(AVATAR, "scales to base 2", "scales=log_scales.exp()", "scales=log_scales.exp2()"),
    Fault(AVATAR, "quaternions normalised over the wrong axis",
          "normalize(quats, dim=-1)", "normalize(quats, dim=0)"),
    Fault(AVATAR, "opacity's sign", "opacity_logits.sigmoid()", "(-opacity_logits).sigmoid()"),
    Fault(AVATAR, "log-scales take the colours' bases", "delta[:, LOG_SCALE]", "delta[:, COLOR]"),
    Fault(AVATAR, "control points take the properties' coefficients",
          "coefficients[:, self.num_gsparam_bases :]", "coefficients[:, : self.num_gsparam_bases]"),
    Fault(AVATAR, "control offsets subtract their bases",
          "self.control_offsets + blend_bases", "self.control_offsets - blend_bases"),
    Fault(AVATAR, "degree-1 bases transposed", "sh1.unflatten(1, (3, 3))", "sh1.unflatten(1, (3, 3)).mT"),
    Fault(AVATAR, "degree 1 switched on with the bases",
          "self.sh1 if active.sh1", "self.sh1 if active.property_bases"),
    Fault(AVATAR, "canonical pose not undone",
          "@ self.canonical_inverse", "@ rigid_inverse(self.canonical_inverse)"),
    Fault(AVATAR, "body's rotation transposed", "@ pose.rotation.T", "@ pose.rotation"),
    Fault(AVATAR, "covariances without the body's rotation", "pose.rotation @ blended[:, :3, :3]",
          "blended[:, :3, :3]"),
    Fault(AVATAR, "covariance as M^T M", "factors @ factors.transpose(1, 2)", "factors.transpose(1, 2) @ factors"),
    Fault(MLP_BANK, "initial bound by outputs", "1 / math.sqrt(fan_in)", "1 / math.sqrt(fan_out)"),
    Fault(MLP_BANK, "biases start positive", "torch.empty(anchors, fan_out).uniform_(-bound",
          "torch.empty(anchors, fan_out).uniform_(0"),
    Fault(MLP_BANK, "ReLU after the last layer", "if layer < last:", "if layer <= last:"),
    Fault(MLP_BANK, "a width", "HIDDEN = (512, 256, 256, 256)", "HIDDEN = (256, 256, 256, 256)"),
    Fault(NEIGHBOURS, "weights by the square of distance", "1 / distance.clamp_min(MIN_DISTANCE)",
          "1 / distance.clamp_min(MIN_DISTANCE).square()"),
    Fault(NEIGHBOURS, "four neighbours", "k: int = 3) -> Interpolation", "k: int = 4) -> Interpolation"),
    Fault(NEIGHBOURS, "near points all alike", "MIN_DISTANCE = 1e-8", "MIN_DISTANCE = 1e-2"),
    Fault(NEIGHBOURS, "weights normalised over the wrong axis", "inverse.sum(1, keepdim=True)",
          "inverse.sum(0, keepdim=True)"),
    Fault(OFFSET_BASES, "a sign in the rotation", "2 * (x * y - w * z)", "2 * (x * y + w * z)"),
    Fault(OFFSET_BASES, "a factor in the rotation", "1 - 2 * (x * x + z * z)", "1 - (x * x + z * z)"),
    Fault(OFFSET_BASES, "S R instead of R S", "* scales[:, None]", "* scales[:, :, None]"),
    Fault(OFFSET_BASES, "offsets subtracted from a compact avatar", "values[: len(offsets)] + offsets",
          "values[: len(offsets)] - offsets"),
    Fault(POSE_SPACE, "sigmas of the population", "(frames - 1) ** 0.5", "frames**0.5"),
    Fault(POSE_SPACE, "sigmas as variances", "(frames - 1) ** 0.5", "(frames - 1)"),
    Fault(POSE_SPACE, "three sigmas", "limit: float = 2.0", "limit: float = 3.0"),
    Fault(POSE_SPACE, "mean not taken off", "@ (body_pose - self.mean)", "@ body_pose"),
    Fault(POSE_SPACE, "unmoved components may move", "MIN_SIGMA = 1e-6", "MIN_SIGMA = 1e-1"),
    Fault(POSE_SPACE, "chord of an angle", "(chord / 8)", "(chord / 4)"),
    Fault(POSE_SPACE, "mean instead of root mean square", ".square().mean(1).sqrt().min()", ".mean(1).min()"),
    Fault(SAMPLING, "radius a quarter too small", "SATURATED_DENSITY = 0.7", "SATURATED_DENSITY = 0.35"),
    Fault(SAMPLING, "points beside their triangle", "outside = u + v > 1", "outside = u + v > 2"),
    Fault(SAMPLING, "a wrong edge of the triangle", "v * (c - a)", "v * (c - b)"),
    Fault(SAMPLING, "too few candidates", "CANDIDATES_PER_SAMPLE = 8", "CANDIDATES_PER_SAMPLE = 2"),
    Fault(BUILD, "mean instead of root mean square", ".square().mean(1).sqrt()", ".mean(1)"),
    Fault(BUILD, "four neighbours", "SCALE_NEIGHBOURS = 3", "SCALE_NEIGHBOURS = 4"),
    Fault(BUILD, "itself a neighbour", "to_others[:, 1:]", "to_others[:, :-1]"),
    Fault(BUILD, "scale without its logarithm", "initial_log_scales=spacing.log()", "initial_log_scales=spacing"),
    Fault(BUILD, "smoothness of eight", "CONTROL_NEIGHBOURS = 7", "CONTROL_NEIGHBOURS = 8"),
    Fault(BUILD, "smallest scale", "MIN_SCALE = 1e-4", "MIN_SCALE = 1e-1"),
    Fault(TRAINED, "degree 1 by the wrong iteration", "iteration >= config.iteration_sh_degree",
          "iteration >= config.iteration_gsparam_basis"),
    Fault(TRAINED, "bases one iteration late", "iteration >= config.iteration_dxyz_basis",
          "iteration > config.iteration_dxyz_basis"),
    Fault(TRAINED, "projection without the setting's sigmas", "project(pose.body, self.config.pca_sigmas)",
          "project(pose.body, 1.0)"),
    # From posed Gaussians to images (method, section 5; gsplat's rules).
    Fault(PROJECTION, "near plane", "NEAR_PLANE = 0.1", "NEAR_PLANE = 0.01"),
    Fault(PROJECTION, "blur", "BLUR = 0.3", "BLUR = 0.03"),
    Fault(PROJECTION, "smallest alpha", "MIN_ALPHA = 1 / 255", "MIN_ALPHA = 1 / 100"),
    Fault(PROJECTION, "extent", "MAX_EXTENT = 3.33", "MAX_EXTENT = 3.0"),
    Fault(PROJECTION, "margin of the frustum", "FRUSTUM_MARGIN = 0.3", "FRUSTUM_MARGIN = 1.3"),
    Fault(PROJECTION, "margin of the whole field of view", "FRUSTUM_MARGIN * 0.5 * size", "FRUSTUM_MARGIN * size"),
    Fault(PROJECTION, "frustum's lower side", "min=-center / focal", "min=-(size - center) / focal"),
    Fault(PROJECTION, "Jacobian's sign", "-fx * clamped_x / z**2", "fx * clamped_x / z**2"),
    Fault(PROJECTION, "Jacobian's exponent", "-fy * clamped_y / z**2", "-fy * clamped_y / z"),
    Fault(PROJECTION, "Jacobian's focal length", "zero, fy / z,", "zero, fx / z,"),
    Fault(PROJECTION, "world's rotation transposed", "@ rotation[:, None]", "@ rotation.mT[:, None]"),
    Fault(PROJECTION, "conic's sign", "[yy, -xy, xx]", "[yy, xy, xx]"),
    Fault(PROJECTION, "determinant's sign", "xx * yy - xy * xy", "xx * yy + xy * xy"),
    Fault(PROJECTION, "centre's focal length", "fy * y / z + cy", "fx * y / z + cy"),
    Fault(PROJECTION, "extent without its factor 2", "(2 * torch.log(", "(1 * torch.log("),
    Fault(PROJECTION, "longest axis", "middle = 0.5 * (xx + yy)", "middle = 0.25 * (xx + yy)"),
    Fault(PROJECTION, "splats half in sight", "(v + radius_y > 0)", "(v > 0)"),
    Fault(TYPES, "constant of degree 0", "SH_DEGREE_0 = 0.28209479", "SH_DEGREE_0 = 0.28309479"),
    Fault(TYPES, "constant of degree 1", "SH_DEGREE_1 = 0.4886025", "SH_DEGREE_1 = 0.4686025"),
    Fault(SHADING, "sign of y", "-y * sh[:, 1]", "y * sh[:, 1]"),
    Fault(SHADING, "sign of x", "- x * sh[:, 3]", "+ x * sh[:, 3]"),
    Fault(SHADING, "axes exchanged", "z * sh[:, 2]", "z * sh[:, 1]"),
    Fault(SHADING, "grey", "(color + 0.5)", "(color + 0.6)"),
    Fault(SHADING, "colours cut at one", "clamp_min(0)", "clamp(0, 1)"),
    Fault(SHADING, "direction from the camera", "cameras.centers[:, None] - gaussians.xyz[None]",
          "gaussians.xyz[None] - cameras.centers[:, None]"),
    Fault(SHADING, "direction turned the other way", "@ gaussians.linear)", "@ gaussians.linear.mT)"),
    Fault(TORCH_RASTERIZER, "largest alpha", "MAX_ALPHA = 0.999", "MAX_ALPHA = 0.99"),
    Fault(TORCH_RASTERIZER, "smallest transmittance", "MIN_TRANSMITTANCE = 1e-4", "MIN_TRANSMITTANCE = 1e-2"),
    Fault(TORCH_RASTERIZER, "tiles dropped", "< 3.34", "< 2.5"),
    Fault(TORCH_RASTERIZER, "a factor in the exponent", "-0.5 * a, -b,", "-0.5 * a, -0.5 * b,"),
    Fault(TORCH_RASTERIZER, "faint entries not skipped", ".mul_(alphas >= MIN_ALPHA)", ".mul_(alphas >= 0)"),
    Fault(TORCH_RASTERIZER, "pixels without their half", "+ 0.5 - TILE / 2", "- TILE / 2"),
    Fault(TORCH_RASTERIZER, "a pixel stops one late",
          "steps[1:] > MIN_TRANSMITTANCE", "steps[:-1] > MIN_TRANSMITTANCE"),
    Fault(TORCH_RASTERIZER, "back to front", "flatten().sort()", "flatten().sort(descending=True)"),
    Fault(TORCH_RASTERIZER, "gradient dims too little", ".div_(1 - slab.alphas)", ".div_(1)"),
    Fault(TORCH_RASTERIZER, "gradient of what lies behind", "behind = behind + gains[step]", "behind = gains[step]"),
    Fault(TORCH_RASTERIZER, "gradient past the cut", "uncut.logical_and_(running)", "running"),
    Fault(RASTERIZE, "background where there is something", "(1 - alphas[..., None]) * background",
          "alphas[..., None] * background"),
    Fault(RASTERIZE, "background squared", "(1 - alphas[..., None]) * background",
          "(1 - alphas[..., None]) ** 2 * background"),
    # What the render is compared with (method, sections 6 and 8).
    Fault(LOSSES, "L1 without the window's share", " * sample.share", ""),
    Fault(LOSSES, "L1 squared", "(image - truth).abs().mean()", "(image - truth).square().mean()"),
    Fault(LOSSES, "bytes over 256", ".float() / 255", ".float() / 256"),
    Fault(LOSSES, "the band compared in the truth", "sample.masks & ~sample.edges", "sample.masks"),
    Fault(LOSSES, "render clamped at two", "colors.clamp(0, 1)", "colors.clamp(0, 2)"),
    Fault(LOSSES, "SSIM without its margin", "SSIM_MARGIN = 8", "SSIM_MARGIN = 0"),
    Fault(LOSSES, "SSIM's sign", "1 - torch.stack(scores).mean()", "1 + torch.stack(scores).mean()"),
    Fault(LOSSES, "patches and squares exchanged",
          "shifted if patches else squares", "squares if patches else shifted"),
    Fault(LOSSES, "perceptual term one iteration late", "iteration >= config.iteration_lpips:",
          "iteration > config.iteration_lpips:"),
    Fault(LOSSES, "terms without their weights", "weighted[name][0] * value", "value"),
    Fault(LOSSES, "smoothness by another norm", "around, dim=-1).mean()", "around, ord=1, dim=-1).mean()"),
    Fault(LOSSES, "excess instead of size", "scales > threshold, scales,", "scales > threshold, scales - threshold,"),
    Fault(IMAGE_LOSSES, "SSIM's window", "SSIM_SIGMA = 1.5", "SSIM_SIGMA = 2.0"),
    Fault(IMAGE_LOSSES, "SSIM's first constant", "SSIM_C1 = 0.01**2", "SSIM_C1 = 0.01"),
    Fault(IMAGE_LOSSES, "SSIM's second constant", "SSIM_C2 = 0.03**2", "SSIM_C2 = 0.01**2"),
    Fault(IMAGE_LOSSES, "covariance without its factor 2",
          "(2 * (product - means_product)", "((product - means_product)"),
    Fault(IMAGE_LOSSES, "mirrored border", 'mode="reflect"', 'mode="replicate"'),
    Fault(IMAGE_LOSSES, "square off its centre", "box.left - (size - width) // 2", "box.left"),
    Fault(IMAGE_LOSSES, "resized without antialiasing", "antialias=True", "antialias=False"),
    Fault(IMAGE_LOSSES, "patches never at the far end", "fraction * (room + 1)", "fraction * room"),
    Fault(IMAGE_LOSSES, "band about the edge", "EDGE_WIDTH = 4", "EDGE_WIDTH = 3"),
    Fault(IMAGE_LOSSES, "what is kept painted over", "torch.where(keep[..., None],", "torch.where(~keep[..., None],"),
    Fault(IMAGE_LOSSES, "perceptual size", "PERCEPTUAL_SIZE = 512", "PERCEPTUAL_SIZE = 256"),
    Fault(PERCEPTUAL, "a digit of the deviation", "SCALE = (0.458,", "SCALE = (0.485,"),
    Fault(PERCEPTUAL, "sign of the mean", "SHIFT = (-0.030,", "SHIFT = (0.030,"),
    Fault(PERCEPTUAL, "images in [0, 1]", "(2 * channels_first - 1 - self.shift)", "(channels_first - self.shift)"),
    Fault(PERCEPTUAL, "features not unit length", "+ NORM_EPS).sqrt()", "+ NORM_EPS)"),
    Fault(PERCEPTUAL, "sum over the picture", ".mean((0, 2, 3))", ".sum((0, 2, 3))"),
    # How parameters move (method, section 6).
    Fault(OPTIMISERS, "first beta", "BETAS = (0.9,", "BETAS = (0.95,"),
    Fault(OPTIMISERS, "second beta", "0.999)", "0.99)"),
    Fault(OPTIMISERS, "epsilon", "EPS = 1e-15", "EPS = 1e-8"),
    Fault(OPTIMISERS, "decay twice as fast", '** progress', '** (2 * progress)'),
    Fault(OPTIMISERS, "decay linear", 'group["decay"] ** progress', '(1 - progress)'),
    Fault(OPTIMISERS, "everyone's decay that of colours", "getattr(config.lr_decay, name)",
          "config.lr_decay.color"),
    Fault(OPTIMISERS, "square-root rule linear", "math.sqrt(poses)", "float(poses)"),
    Fault(OPTIMISERS, "square-root rule only at the start", 'self.rate_factor * group["first_lr"]',
          'group["first_lr"]'),
    Fault(OPTIMISERS, "bases not scaled by the scene", '("position", "position_basis")', '("position",)'),
    Fault(OPTIMISERS, "everything scaled by the scene", "name in SCALED_BY_SCENE else 1.0", "name else 1.0"),
    Fault(OPTIMISERS, "weight decay gone", 'encoder["weight_decay"] = config.encoder_weight_decay',
          'encoder["weight_decay"] = 0.0'),
    Fault(OPTIMISERS, "weight decay in the gradient", "AdamW([encoder]", "Adam([encoder]"),
    Fault(OPTIMISERS, "a group's wrong name", '"opacity": "opacity_logits"', '"color": "opacity_logits"'),
    Fault(LOOP, "sum over poses instead of mean", "torch.tensor(1 / self.poses_per_step", "torch.tensor(1.0"),
    Fault(LOOP, "terms summed over poses", "term / len(samples)", "term"),
    Fault(LOOP, "patches one iteration late", "self.iteration >= config.iteration_lpips_random_patch",
          "self.iteration > config.iteration_lpips_random_patch"),
    Fault(LOOP, "rates never set", "self.optimisers.set_rates(self.iteration)", "self.optimisers.set_rates(0)"),
    Fault(LOOP, "background always the configured one", "if config.random_background else self.background",
          "if not config.random_background else self.background"),
    Fault(POSE_ROWS, "order of a basis's numbers", '("sh0", "log_scales", "quats", "opacity_logits")',
          '("log_scales", "sh0", "quats", "opacity_logits")'),
    Fault(POSE_ROWS, "degree 1 without its bases", "active.property_bases and active.sh1", "active.sh1"),
    # The body, the cameras, the pictures.
    Fault(KINEMATICS, "sine near zero", "1 - squared / 6", "1 - squared"),
    Fault(KINEMATICS, "versine", "(1 - angle.cos()) / safe", "(1 - angle.cos()) / angle"),
    Fault(KINEMATICS, "versine near zero", "0.5 - squared / 24", "1.0 - squared / 24"),
    Fault(KINEMATICS, "left-handed rotations", "[zero, -z, y, z, zero, -x, -y, x, zero]",
          "[zero, z, -y, -z, zero, x, y, -x, zero]"),
    Fault(KINEMATICS, "canonical angle", "torch.pi * 25 / 180", "torch.pi * 30 / 180"),
    Fault(KINEMATICS, "legs crossed", "pose[5] = CANONICAL_LEG_ANGLE", "pose[5] = -CANONICAL_LEG_ANGLE"),
    Fault(KINEMATICS, "about the wrong point", "world[..., :3, 3] - moved", "world[..., :3, 3]"),
    Fault(KINEMATICS, "bones from the root", "joints[list(parents[1:])]", "joints[:1]"),
    Fault(KINEMATICS, "inverse's translation", "-(rotation @ transforms", "(rotation @ transforms"),
    Fault(WEIGHT_VOLUME, "margin of the cube", "CUBE_MARGIN = 1.1", "CUBE_MARGIN = 1.2"),
    Fault(WEIGHT_VOLUME, "nodes off by one", "* (dims - 1)", "* dims"),
    Fault(WEIGHT_VOLUME, "axes exchanged", "yield (x * dims[1] + y) * dims[2] + z",
          "yield (z * dims[1] + y) * dims[2] + x"),
    Fault(WEIGHT_VOLUME, "shares exchanged", "fraction, 1 - fraction)", "1 - fraction, fraction)"),
    Fault(WEIGHT_VOLUME, "nodes numbered wrongly",
          "(x * dims[1] + y) * dims[2] + z", "(x * dims[0] + y) * dims[2] + z"),
    Fault(CAPTURE_DATASET, "scene scale about the origin", "centers - centers.mean(0)", "centers"),
    Fault(CAPTURE_DATASET, "scene scale's margin", "SCENE_SCALE_MARGIN = 1.1", "SCENE_SCALE_MARGIN = 1.0"),
    Fault(CAPTURE_IMAGES, "intrinsics not scaled", "ratio[:, None] * camera.K", "camera.K"),
    Fault(CAPTURE_IMAGES, "band only outside", "cv2.dilate(pixels, disk) != cv2.erode(pixels, disk)",
          "cv2.dilate(pixels, disk) != pixels"),
    Fault(CAPTURE_IMAGES, "square instead of disk", "offsets[:, None] ** 2 + offsets**2 <= radius**2",
          "offsets[:, None] ** 2 + offsets**2 <= 2 * radius**2"),
    Fault(CROP, "share of whole images", "sample.share * rows * columns / (height * width)", "sample.share"),
    Fault(CROP, "principal point shifted the wrong way", "intrinsics[:, 0, 2] -=", "intrinsics[:, 0, 2] +="),
    Fault(CROP, "margin", "MARGIN = 0.1", "MARGIN = 0.01"),
    Fault(METRICS, "PSNR as amplitude", "-10 * math.log10(mean)", "-20 * math.log10(mean)"),
    Fault(METRICS, "share of the inside", "squared_error[edge].sum", "squared_error[inside].sum"),
    Fault(TYPES, "camera centres' sign", "return -(rotation.transpose(1, 2)", "return (rotation.transpose(1, 2)"),
    Fault(TYPES, "camera centres' rotation", "(rotation.transpose(1, 2) @ translation", "(rotation @ translation"),
    Fault(TYPES, "order of covariances", "xx, xy, xz, yy, yz, zz = upper", "xx, xy, yy, xz, yz, zz = upper"),
    Fault(POSE_LAYOUT, "the MLPs see the root", "BODY_POSE = slice(3, 66)", "BODY_POSE = slice(0, 63)"),
)  # fmt: skip
