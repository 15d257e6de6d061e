"""Our way to find which Gaussian touches which tile, against every pixel looked at and against gsplat's own; and the
recorded rasteriser against gsplat's."""

from dataclasses import replace

import pytest
import torch

from mmlphuman.capture.loader import SampleStream
from mmlphuman.capture.sampler import EndlessSampler
from mmlphuman.render.gsplat_rasterizer import rasterize_gsplat
from mmlphuman.render.rasterize import rasterize
from mmlphuman.types import Cameras, PosedGaussians, upper_triangles
from tests.builders import look_at_origin

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="gsplat, CUDA graphs and pinned memory need a GPU"
)

COUNT = 4000
TILE = 16


def flat_splats(views: int, count: int, columns: int, rows: int):
    """As a projection gives them, in and about a picture: thin and round, faint and solid; some not seen at all, and
    some boxes that cut their ellipse off."""
    generator = torch.Generator().manual_seed(4)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    centers = (rand(views, count, 2) * 1.4 - 0.2) * torch.tensor([columns, rows]) * TILE
    angles, variances = rand(views, count) * torch.pi, 0.3 + 200 * rand(views, count, 2) ** 4
    sines, cosines = angles.sin(), angles.cos()
    xx = cosines**2 * variances[..., 0] + sines**2 * variances[..., 1]
    yy = sines**2 * variances[..., 0] + cosines**2 * variances[..., 1]
    xy = sines * cosines * (variances[..., 0] - variances[..., 1])
    conics = torch.stack([yy, -xy, xx], -1) / variances.prod(-1, keepdim=True)
    opacities = torch.cat([torch.full((4,), 0.003), rand(count - 4)])
    reach = torch.where(rand(views, count) < 0.1, 1.0, 3.4)
    radii = (reach[..., None] * torch.stack([xx, yy], -1).sqrt()).ceil().int()
    radii[:, 4:8] = 0  # behind the camera
    return centers, radii, rand(views, count), conics, opacities


def exponents_at_pixels(centers, conics, columns, rows) -> torch.Tensor:
    """(V, N, rows, columns) the least of each tile's pixels."""
    at = [torch.arange(tiles * TILE).double() + 0.5 for tiles in (columns, rows)]
    x, y = at[0] - centers[..., :1].double(), at[1] - centers[..., 1:].double()
    a, b, c = (conics[..., each, None, None].double() for each in range(3))
    x, y = x[..., None, :], y[..., None]
    exponents = 0.5 * (a * x * x + c * y * y) + b * x * y
    return exponents.unflatten(-1, (columns, TILE)).unflatten(-3, (rows, TILE)).amin((-1, -3))


def exponents_between_pixels(centers, conics, columns, rows) -> torch.Tensor:
    """(V, N, rows, columns) the least on the rectangle that each tile's pixel centres span: one coordinate's best
    place by turns, which for a bowl ends at its lowest point."""
    left = (torch.arange(columns) * TILE + 0.5 - centers[..., :1].double())[..., None, :]
    top = (torch.arange(rows) * TILE + 0.5 - centers[..., 1:].double())[..., None]
    a, b, c = (conics[..., each, None, None].double() for each in range(3))
    x, y = torch.broadcast_tensors(left, top)
    for _ in range(300):
        x = (-b * y / a).clamp(left, left + TILE - 1)
        y = (-b * x / c).clamp(top, top + TILE - 1)
    return 0.5 * (a * x * x + c * y * y) + b * x * y


def boxes(centers, radii, columns, rows) -> torch.Tensor:
    """(V, N, rows, columns) whether a tile meets the box about each Gaussian."""
    inside = []
    for axis, tiles in ((1, rows), (0, columns)):
        begin = torch.arange(tiles) * TILE
        low, high = centers[..., axis] - radii[..., axis], centers[..., axis] + radii[..., axis]
        inside.append((high[..., None] > begin) & (low[..., None] < begin + TILE))
    return inside[0][..., None] & inside[1][..., None, :] & (radii > 0).all(-1)[..., None, None]


@pytest.mark.parametrize("grid", [(1, 70, 5, 4), (2, 50, 3, 6)])
def test_pairs_are_those_that_looking_at_every_pixel_finds(device, grid):
    """Front to back in each tile; none missing that a pixel would show, and none of a tile that none could."""
    from mmlphuman.render.tile_kernels import find_pairs

    views, count, columns, rows = grid
    splats = flat_splats(*grid)
    centers, radii, depths, conics, opacities = splats
    limit = (255 * opacities.double()).log()[:, None, None]
    box = boxes(centers, radii, columns, rows)
    shown = box & (exponents_at_pixels(centers, conics, columns, rows) <= limit)
    least = exponents_between_pixels(centers, conics, columns, rows)
    possible, sure = box & (least <= limit + 2e-3), box & (least <= limit)
    assert (shown <= sure).all() and shown.sum() > 100 and box.sum() > 1.2 * sure.sum()

    room = int(possible.sum()) + 50
    pairs = find_pairs(*(each.to(device) for each in splats), columns, rows, TILE, room=room)
    starts = [*pairs.offsets.flatten().tolist(), room]
    gaussians, found = pairs.gaussians.cpu(), torch.zeros_like(box)
    for tile, (begin, end) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
        view, row, column = tile // (rows * columns), tile // columns % rows, tile % columns
        own = gaussians[begin:end].long()
        assert (own // count == view).all() and (depths.flatten()[own].diff() > 0).all(), tile
        found[view, own % count, row, column] = True
    assert len(gaussians) == room and int(pairs.needed) == room - starts[0] == found.sum()
    assert (shown <= found).all() and (sure <= found).all() and (found <= possible).all()

    short = find_pairs(*(each.to(device) for each in splats), columns, rows, TILE, room=int(found.sum()) // 2)
    assert int(short.needed) == found.sum() and int(short.offsets.flatten()[0]) == 0
    nearest = gaussians[starts[0] :].long()
    nearest = nearest[depths.flatten()[nearest].argsort(stable=True)][: len(short.gaussians)]
    assert torch.equal(short.gaussians.cpu().long().sort().values, nearest.sort().values)


def splats(seed=0, size=0.02, opacity=1.0):
    """About the origin, some behind the camera; sizes from a point to many tiles."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(COUNT, 3, 3, generator=generator) * size
    factors *= torch.rand(COUNT, 1, 1, generator=generator) ** 2 * 4 + 0.1
    xyz = torch.randn(COUNT, 3, generator=generator)
    opacities = torch.rand(COUNT, generator=generator) * opacity
    return [t.cuda() for t in (xyz, upper_triangles(factors @ factors.transpose(1, 2)), opacities)]


def posed(**options) -> PosedGaussians:
    xyz, covariances, opacities = splats(**options)
    sh = torch.rand(COUNT, 4, 3, generator=torch.Generator().manual_seed(2)).cuda() - 0.3
    return PosedGaussians(xyz, covariances, opacities, sh, torch.eye(3, device="cuda").repeat(COUNT, 1, 1))


def draw(finder, leaves, colors, cameras):
    white = torch.ones(len(cameras), 3, device="cuda")
    image, alphas = rasterize_gsplat(*leaves, colors, cameras, white, finder)
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(image.shape, generator=generator).cuda()
    return image.detach(), torch.autograd.grad((image * cotangent).sum() + alphas.sum(), [*leaves, colors])


@needs_gpu
@pytest.mark.parametrize(
    ("views", "size"), [(1, 64), (3, 301), (4, 1100)]
)  # the last: more tiles than short keys
def test_pictures_and_gradients_are_gsplat_s(views, size):
    from mmlphuman.render.pair_finder import PairFinder

    leaves = [leaf.requires_grad_() for leaf in splats()]
    colors = torch.rand(views, COUNT, 3, device="cuda").requires_grad_()
    cameras = look_at_origin(distance=2.0, size=size, views=views).to("cuda")
    if size > 1000:
        cameras = replace(cameras, width=2 * size, height=2 * size)
    finder = PairFinder()
    theirs, their_gradients = draw(None, leaves, colors, cameras)
    _, again = draw(None, leaves, colors, cameras)  # atomic additions come in another order every time
    noise = max((g - a).norm() / g.norm() for g, a in zip(their_gradients, again, strict=True))
    for _ in range(2):  # the first call counts
        ours, our_gradients = draw(finder, leaves, colors, cameras)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        for mine, gradient in zip(our_gradients, their_gradients, strict=True):
            assert (mine - gradient).norm() / gradient.norm() < 1e-4 + 3 * noise


@needs_gpu
def test_fewer_pairs_than_boxes_hold_and_room_grows():
    from mmlphuman.render.pair_finder import GRANULE, PairFinder

    finder, seen = PairFinder(), []
    cameras = look_at_origin(distance=2.0, size=1024, views=1).to("cuda")

    def both(*args):
        from mmlphuman.render.gsplat_rasterizer import gsplat_pairs

        offsets, order = finder(*args)
        torch.cuda.synchronize()
        seen.append((int(finder.needed), len(gsplat_pairs(*args)[1]), finder.room, len(order)))
        return offsets, order

    colors = torch.rand(1, COUNT, 3, device="cuda")
    for size in (0.005, 0.3, 0.3):
        rasterize_gsplat(*splats(size=size), colors, cameras, torch.ones(1, 3, device="cuda"), both)
    needed, boxes, rooms, taken = zip(*seen, strict=True)
    assert all(ours < theirs for ours, theirs in zip(needed, boxes, strict=True))
    assert rooms == taken and needed[1] > rooms[1] >= GRANULE and rooms[2] > needed[2]


@needs_gpu
@pytest.mark.parametrize("opacity", [1.0, 0.02])
def test_recorded_drawing_follows_gaussians_cameras_and_background(opacity):
    from mmlphuman.render.recorded import RecordedDrawing

    drawer, gaussians = RecordedDrawing(), posed(opacity=opacity)
    for step in range(4):
        cameras = look_at_origin(distance=1.5 + 0.7 * step, size=256, views=1)
        background = torch.tensor([0.9, 0.1, 0.3]).roll(step)
        gaussians.xyz.add_(0.05)
        if step == 2:
            gaussians.covariances.mul_(400)  # far more pairs than there was room for
        image = drawer(gaussians, cameras, background)
        expected = rasterize(gaussians, cameras.to("cuda"), background.cuda(), "gsplat").colors[0]
        difference = (image.float() - expected.clamp(0, 1) * 255).abs()
        assert difference.max() <= 0.51
        assert (expected - background.cuda()).abs().mean() > 0.01  # there is something to see
    assert len(drawer.recordings) == 1


@needs_gpu
def test_recordings_are_few():
    from mmlphuman.render.recorded import MOST_RECORDINGS, RecordedDrawing

    drawer, gaussians = RecordedDrawing(), posed()
    for size in range(32, 32 + 16 * (MOST_RECORDINGS + 2), 16):
        image = drawer(gaussians, look_at_origin(size=size, views=1), torch.ones(3))
        assert image.shape == (size, size, 3)
    assert len(drawer.recordings) == MOST_RECORDINGS


@needs_gpu
def test_samples_arrive_on_the_gpu_in_order_and_whole(tiny_capture):
    from mmlphuman.capture.dataset import CaptureDataset
    from mmlphuman.capture.formats import open_capture
    from mmlphuman.capture.poses import read_smpl_params

    layout = open_capture(tiny_capture)
    dataset = CaptureDataset(layout, read_smpl_params(layout.pose_path), range(3), (0, 1))
    streams = [
        SampleStream(dataset, EndlessSampler(dataset.pairs, 1, 0), workers, device=device)
        for workers, device in ((0, None), (2, torch.device("cuda")))
    ]
    with streams[0] as on_cpu, streams[1] as on_gpu:
        for _ in range(20):
            one, other = next(on_cpu), next(on_gpu)
            assert other.images.is_cuda and other.cameras.w2c.is_cuda and other.pose.joints.is_cuda
            assert one.name() == other.name() and torch.equal(one.images, other.images.cpu())
            on_gpu.read_ahead()
            busy = torch.rand(2000, 2000, device="cuda")
            assert (busy @ busy).isfinite().all()


@needs_gpu
def test_a_view_behind_everything_is_background():
    from mmlphuman.render.pair_finder import PairFinder

    cameras = look_at_origin(distance=2.0, size=64, views=1)
    away = cameras.w2c.clone()
    away[:, 2, 3] = -50.0
    cameras = Cameras(away, cameras.intrinsics, 64, 64).to("cuda")
    image, alphas = rasterize_gsplat(
        *splats(), torch.rand(1, COUNT, 3).cuda(), cameras, torch.full((1, 3), 0.25).cuda(), PairFinder()
    )
    assert (alphas == 0).all() and (image == 0.25).all()
