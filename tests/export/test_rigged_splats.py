"""Gaussians with a skeleton: by glTF's formula as we skin them; and by three.js and Spark in a browser, where they are.

`SPARK_MODULES` may name a node_modules folder: npm install three@0.187 @sparkjsdev/spark@2.2.
"""

import copy
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.avatar.light import OF_PLACE_TOO, SceneLight
from mmlphuman.avatar.offset_bases import covariance_factors
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.body.kinematics import canonical_pose
from mmlphuman.config import default_config
from mmlphuman.export.gltf import byte_weights, strongest_weights
from mmlphuman.export.splat_files import write_rigged_splat_glb
from mmlphuman.export.splats import average_splats, splats_of
from mmlphuman.render.rasterize import rasterize
from mmlphuman.types import Cameras, Pose, PosedGaussians, symmetric_matrices
from tests.builders import random_pose, randomise, small_avatar
from tests.export.test_mesh_export import Gltf
from tests.player.pictures import BACKGROUND, WEBGPU, psnr, served, to_bytes, view_from
from tests.streaming.browser import Browser, decode_png, missing_programs

DOCUMENT = Path(__file__).parents[2] / "docs" / "exports.md"
MODULES = Path(os.environ.get("SPARK_MODULES", "node_modules"))
SIZE = (180, 320)
PAGE = """<!doctype html>
<script type="importmap">{"imports": {
  "three": "/node_modules/three/build/three.module.js",
  "three/addons/": "/node_modules/three/examples/jsm/",
  "@sparkjsdev/spark": "/node_modules/@sparkjsdev/spark/dist/spark.module.js"
}}</script>
<script type="module">
import * as THREE from "three";
import { SparkRenderer } from "@sparkjsdev/spark";
import { loadRiggedSplats } from "/rigged.js";

const renderer = new THREE.WebGLRenderer({ preserveDrawingBuffer: true });
const scene = new THREE.Scene();
scene.background = new THREE.Color(BACKGROUND).convertSRGBToLinear();
const spark = new SparkRenderer({ renderer, covSplats: true, accumExtSplats: true });
scene.add(spark);
const loaded = loadRiggedSplats("/avatar.glb");

window.picture = async (time, w2c, fovx, [width, height]) => {
  const { gltf, follow } = await loaded;
  const mixer = new THREE.AnimationMixer(gltf.scene);
  mixer.clipAction(gltf.animations[0]).play();
  mixer.setTime(time);
  const group = new THREE.Group(); // somewhere else, where it must look the same to a camera that comes along
  group.position.set(1, 2, 3);
  scene.add(group.add(gltf.scene));
  follow();
  renderer.setPixelRatio(1);
  renderer.setSize(width, height);
  const tangent = (Math.tan((fovx * Math.PI) / 360) * height) / width;
  const camera = new THREE.PerspectiveCamera((Math.atan(tangent) * 360) / Math.PI, width / height, 0.05, 50);
  const place = new THREE.Matrix4().fromArray(w2c).transpose().invert();
  place.multiply(new THREE.Matrix4().makeScale(1, -1, -1)); // ours: y down, z forward
  place.decompose(camera.position, camera.quaternion, camera.scale);
  camera.position.add(group.position);
  camera.updateMatrixWorld(true);
  for (let i = 0; i < 6; i++) { // sorting is another thread's
    await spark.update({ scene, camera });
    renderer.render(scene, camera);
    await new Promise((then) => setTimeout(then, 100));
  }
  renderer.render(scene, camera);
  return renderer.domElement.toDataURL("image/png").split(",")[1];
};
</script>
""".replace("BACKGROUND", ", ".join(map(str, BACKGROUND)))


@pytest.fixture(scope="module")
def trained(synthetic_body) -> TrainedAvatar:
    poses = torch.stack([random_pose(seed).features for seed in range(8)])
    avatar = randomise(small_avatar(synthetic_body), seed=1)
    avatar.light = None
    return TrainedAvatar(avatar, PoseSpace.fit(poses, 3), default_config(), iteration=10**6)


@pytest.fixture(scope="module")
def sequence() -> PoseSequence:
    poses = torch.stack([random_pose(seed, size=0.4).joints for seed in range(3)]).numpy()
    return PoseSequence(
        poses=poses,
        translations=np.random.default_rng(0).normal(scale=0.2, size=(3, 3)).astype(np.float32),
        rotation=np.eye(3, dtype=np.float32),
        frames=np.arange(3),
        fps=10.0,
        source="test",
    )


def skinned(trained: TrainedAvatar, pose: Pose) -> PosedGaussians:
    """The average Gaussians, skinned by all joints: straight from the avatar, without the colours' view dependence."""
    active, features = trained.active, trained.pose_space.training_poses.mean(0)
    with torch.no_grad():
        posed = trained.avatar(pose, active, features).posed
    sh = posed.sh.clone()
    sh[:, 1:] = 0
    return replace(posed, sh=sh)


def test_gltf_skinning_poses_centres_and_shapes_as_the_avatar_does(trained, sequence, tmp_path):
    write_rigged_splat_glb(tmp_path / "a.glb", average_splats(trained), trained.avatar, sequence)
    gltf = Gltf(tmp_path / "a.glb")
    of = {name: gltf.attribute(f"KHR_gaussian_splatting:{name}") for name in ("ROTATION", "SCALE", "OPACITY")}
    skin = gltf.json["skins"][0]
    inverse_bind = gltf.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    weights, joints = gltf.attribute("WEIGHTS_0"), gltf.attribute("JOINTS_0")
    assert weights.dtype == joints.dtype == np.uint8 and (weights.sum(1, dtype=int) == 255).all()
    assert gltf.json["accessors"][gltf.json["meshes"][0]["primitives"][0]["attributes"]["WEIGHTS_0"]][
        "normalized"
    ]
    assert (joints[weights == 0] == 0).all()
    quats = torch.from_numpy(of["ROTATION"].copy()).roll(1, 1)
    factors = covariance_factors(quats, torch.from_numpy(of["SCALE"].copy())).numpy()
    avatar = copy.deepcopy(trained.avatar)
    avatar.lbs_weights = torch.zeros(len(joints), 55).scatter_add(
        1, torch.from_numpy(joints.astype(int)), torch.from_numpy(weights / 255).float()
    )
    for key in range(3):
        matrices = gltf.node_places(key)[skin["joints"]] @ inverse_bind
        blended = np.einsum("nk,nkij->nij", weights / 255, matrices[joints])
        centres = np.einsum("nij,nj->ni", blended[:, :3, :3], gltf.attribute("POSITION")) + blended[:, :3, 3]
        moved = blended[:, :3, :3] @ factors
        truth = skinned(replace(trained, avatar=avatar), sequence.pose(key))
        np.testing.assert_allclose(centres, truth.xyz.numpy(), atol=1e-4)
        covariances = symmetric_matrices(truth.covariances).numpy()
        np.testing.assert_allclose(
            moved @ moved.transpose(0, 2, 1), covariances, atol=1e-5 * covariances.max()
        )
        # By all joints, in fractions: what the file leaves out is small.
        far = np.linalg.norm(centres - skinned(trained, sequence.pose(key)).xyz.numpy(), axis=1)
        assert far.mean() < 0.002 and far.max() < 0.05
    assert np.abs(of["OPACITY"][:, 0] - truth.opacities.numpy()).max() < 1e-5
    colors = gltf.attribute("KHR_gaussian_splatting:SH_DEGREE_0_COEF_0")
    assert np.abs(colors - truth.sh[:, 0].numpy()).max() < 1e-5


def test_weights_in_bytes_sum_to_255_and_unused_ones_name_joint_0():
    weights = np.random.default_rng(0).dirichlet(np.full(55, 0.05), 500)
    joints, small = byte_weights(*strongest_weights(weights))
    assert small.dtype == joints.dtype == np.uint8 and (small.sum(1, dtype=int) == 255).all()
    assert (joints[small == 0] == 0).all() and (small == 0).any()
    back = np.zeros((500, 55))
    np.add.at(back, (np.arange(500)[:, None], joints), small / 255)
    kept = strongest_weights(weights)
    truth = np.zeros((500, 55))
    np.add.at(truth, (np.arange(500)[:, None], kept[0]), kept[1])
    assert np.abs(back - truth).max() < 2.01 / 255


def test_the_average_has_the_mean_light_of_training(trained):
    """Without a light it is the canonical pose's; with one colours are those of a person who stands as in training."""
    pose = Pose(canonical_pose(), torch.zeros(3), torch.eye(3))
    features = trained.pose_space.training_poses.mean(0)
    with torch.no_grad():
        plain = splats_of(trained.avatar(pose, trained.active, features).posed)
    found = average_splats(trained)
    for name in ("xyz", "sh", "opacities", "scales", "quats"):
        assert torch.equal(getattr(found, name), getattr(plain, name)), name

    poses = trained.pose_space.training_poses
    avatar = copy.deepcopy(trained.avatar)
    lowest, highest = torch.tensor([1.0, 0, 1]), torch.tensor([2.0, 1, 3])
    avatar.register_buffer("normals", torch.nn.functional.normalize(avatar.xyz, dim=1))
    avatar.light = SceneLight(OF_PLACE_TOO, lowest, highest)
    with torch.no_grad():
        avatar.light.coefficients.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    lit = average_splats(replace(trained, avatar=avatar))
    middle = (lowest + highest) / 2
    with torch.no_grad():
        each = [
            avatar(Pose(row[:165], middle, torch.eye(3)), trained.active, features).posed.sh[:, 0]
            for row in poses
        ]
    assert (lit.sh[:, 0] - torch.stack(each).mean(0)).abs().max() < 1e-5
    assert (lit.sh[:, 0] - plain.sh[:, 0]).abs().max() > 0.1
    assert torch.equal(lit.xyz, plain.xyz)


def test_three_and_spark_pose_it_by_the_lines_of_the_document(trained, sequence, tmp_path):
    missing = [name for name in ("three", "@sparkjsdev/spark") if not (MODULES / name).is_dir()]
    if missing := missing + missing_programs():
        pytest.skip(
            f"no {', '.join(missing)}; SPARK_MODULES names a node_modules folder; Debian: apt install chromium-driver"
        )
    site = tmp_path / "site"
    site.mkdir()
    (site / "node_modules").symlink_to(MODULES.resolve())
    (site / "index.html").write_text(PAGE)
    found = re.search(r"```js\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found
    (site / "rigged.js").write_text(found[1])
    write_rigged_splat_glb(site / "avatar.glb", average_splats(trained), trained.avatar, sequence)
    browser = Browser(tmp_path / "browser", WEBGPU)
    try:
        with served(site) as (address, _):
            browser.go(f"{address}/index.html")
            for key in range(3):
                pose = sequence.pose(key)
                root = pose.rotation @ trained.avatar.joints[0] + pose.translation
                view = view_from(2.0 * key, root.numpy(), 3.5, SIZE)
                asked = (key / 10, view.w2c.ravel().tolist(), view.fovx, SIZE)
                picture = decode_png(browser.run("return window.picture(...args);", *asked))
                ours = drawn(skinned(trained, pose), view)
                assert psnr(picture, ours) > 32
                assert (
                    psnr(picture, ours)
                    > psnr(picture, drawn(skinned(trained, sequence.pose((key + 1) % 3)), view)) + 8
                )
    finally:
        browser.close()


def drawn(posed: PosedGaussians, view) -> np.ndarray:
    cameras = Cameras(
        torch.from_numpy(view.w2c[None]).float(),
        torch.from_numpy(view.intrinsics[None]).float(),
        view.width,
        view.height,
    )
    return to_bytes(rasterize(posed, cameras, torch.tensor(BACKGROUND)).colors)[0].numpy()
