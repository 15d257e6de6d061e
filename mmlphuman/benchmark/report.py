"""The benchmark's numbers as tables for a person, and the machine that they were measured on."""

from __future__ import annotations

import torch

from mmlphuman.benchmark import training_step
from mmlphuman.benchmark.rendering import RenderRow
from mmlphuman.benchmark.sample_reading import STEPS
from mmlphuman.benchmark.training_step import StepRow
from mmlphuman.command import versions
from mmlphuman.evaluation.speed import STAGES as FRAME_STAGES
from mmlphuman.evaluation.speed import device_name
from mmlphuman.resources import available_cores
from mmlphuman.text import aligned


def machine(device: torch.device) -> dict:
    """What the numbers depend on besides the program."""
    return {
        **versions(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "device": device_name(device),
        "processor": device_name(torch.device("cpu")),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
    }


def machine_text(machine: dict) -> str:
    packages = machine["packages"]
    rasterizer = f", gsplat {packages['gsplat']}" if "gsplat" in packages else ""
    return f"{machine['device']}, torch {packages['torch']}{rasterizer}, {machine['cores']} cores"


def subject_text(subject: dict) -> str:
    return (
        f"{subject['name']}: {subject['gaussians']:,} Gaussians, {subject['visible']:,} visible, "
        f"{subject['tile_intersections']:,} tile intersections, {subject['control_points']:,} control points, "
        f"{subject['anchors']} MLPs, {subject['width']}x{subject['height']}, person {subject['coverage']:.0%}"
    )


def render_table(rows: list[RenderRow]) -> str:
    table = [["a frame", "median ms", "95% ms", "fps", "PSNR to plain", *FRAME_STAGES]]
    for row in rows:
        psnr = "" if row.psnr is None else f"{row.psnr:.1f} dB"
        fps = f"{1000 / row.frame.median:,.0f}"
        stages = [f"{row.stages[stage].median:.3f}" if row.stages else "" for stage in FRAME_STAGES]
        table.append([row.name, f"{row.frame.median:.3f}", f"{row.frame.p95:.3f}", fps, psnr, *stages])
    return "\n".join(aligned(table))


def training_table(rows: list[StepRow]) -> str:
    headings = ["a training step", "median ms", "95% ms", "back to back", "ms/view", "peak GiB"]
    table = [[*headings, *training_step.STAGES]]
    for row in rows:
        table.append(
            [
                f"{row.name}, {row.views} view{'s' * (row.views > 1)}",
                f"{row.step.median:.2f}",
                f"{row.step.p95:.2f}",
                f"{row.back_to_back:.2f}",
                f"{row.step.median / row.views:.2f}",
                "" if row.peak_gib is None else f"{row.peak_gib:.2f}",
                *(f"{row.stages[stage].median:.2f}" for stage in training_step.STAGES),
            ]
        )
    window = "x".join(map(str, rows[0].window))
    note = f"losses: {', '.join(rows[0].losses)}; windows about the person, the first {window}"
    return "\n".join([*aligned(table), note])


def steady_text(result: dict) -> str:
    def part(name: str) -> str:
        first, last = result[name]["steps"]
        memory = result[name]["memory_bytes"]
        used = "" if memory is None else f", {memory / training_step.GIB:.4f} GiB allocated"
        return f"steps {first:,} to {last:,}: {result[name]['median_ms']:.2f} ms{used}"

    return f"{part('early')}; {part('late')}"


def sample_table(results: list[dict]) -> str:
    lines = []
    for result in results:
        width, height = result["size"]
        sizes = f"{result['image_kilobytes']} kB image, {result['mask_kilobytes']} kB mask"
        lines.append(f"{result['capture']}: samples of {width}x{height}, {sizes}")
    table = [["CPU ms per sample", *(result["capture"] for result in results)]]
    table += [[step, *(f"{result['cpu_ms_per_sample'][step]:.1f}" for result in results)] for step in STEPS]
    table += [
        [
            f"samples/s, {workers} worker{'s' * (workers != '1')}",
            *(f"{result['samples_per_second'][workers]:.1f}" for result in results),
        ]
        for workers in results[0]["samples_per_second"]
    ]
    decoded = [result["gpu_decode"] for result in results]
    if all(decoded):
        for key, name in (
            ("wall_ms", "JPEG on the GPU, ms"),
            ("cpu_ms", "JPEG on the GPU, CPU ms"),
        ):
            table.append([name, *(f"{each[key]:.2f}" if key in each else "cannot" for each in decoded)])
    return "\n".join([*lines, *aligned(table)])


def parallel_table(result: dict) -> str:
    table = [["", "ms a step", "views a second", "times one process"]]
    for name, row in result["ways"].items():
        table.append(
            [name, f"{row['step_ms']:.2f}", f"{row['views_per_second']:.0f}", f"{row['times_one']:.2f}"]
        )
    return "\n".join(aligned(table))
