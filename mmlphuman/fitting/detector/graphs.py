"""MediaPipe's networks as graphs that take a picture and a region. All that knows of MediaPipe is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mediapipe as mp
import mediapipe.calculators.core.constant_side_packet_calculator_pb2  # noqa: F401  which the graphs' texts name
import numpy as np
from google.protobuf import text_format
from mediapipe.framework import calculator_pb2
from mediapipe.framework.formats.rect_pb2 import NormalizedRect
from mediapipe.python._framework_bindings import resource_util

from mmlphuman.fitting.detector.landmarks import MIRRORED
from mmlphuman.fitting.detector.regions import Crop, Pass, Rectangle, Region

POSE_DETECTION = """
input_stream: "image" output_stream: "detections"
node { calculator: "PoseDetectionCpu" input_stream: "IMAGE:image" output_stream: "DETECTIONS:detections" }
"""
POSE_LANDMARKS = """
input_stream: "image" input_stream: "roi"
output_stream: "landmarks" output_stream: "auxiliary" output_stream: "mask"
node {
  calculator: "ConstantSidePacketCalculator"
  output_side_packet: "PACKET:0:complexity" output_side_packet: "PACKET:1:segmentation"
  options: { [mediapipe.ConstantSidePacketCalculatorOptions.ext]: {
    packet { int_value: 1 } packet { bool_value: true } } }
}
node {
  calculator: "PoseLandmarkByRoiCpu"
  input_side_packet: "MODEL_COMPLEXITY:complexity" input_side_packet: "ENABLE_SEGMENTATION:segmentation"
  input_stream: "IMAGE:image" input_stream: "ROI:roi"
  output_stream: "LANDMARKS:landmarks" output_stream: "AUXILIARY_LANDMARKS:auxiliary"
  output_stream: "SEGMENTATION_MASK:mask"
}
"""
HAND_LANDMARKS = """
input_stream: "image" input_stream: "roi" output_stream: "landmarks" output_stream: "handedness"
node {
  calculator: "ConstantSidePacketCalculator" output_side_packet: "PACKET:0:complexity"
  options: { [mediapipe.ConstantSidePacketCalculatorOptions.ext]: { packet { int_value: 1 } } }
}
node {
  calculator: "HandLandmarkCpu" input_side_packet: "MODEL_COMPLEXITY:complexity"
  input_stream: "IMAGE:image" input_stream: "ROI:roi"
  output_stream: "LANDMARKS:landmarks" output_stream: "HANDEDNESS:handedness"
}
"""


class Networks:
    """Nothing is kept from picture to picture."""

    def __init__(self):
        # Where the graphs' networks lie in the package, as its own solutions set it.
        resource_util.set_resource_dir(str(Path(str(mp.__file__)).parents[1]))
        self._detection = _Graph(POSE_DETECTION, "detections")
        self._body = _Graph(POSE_LANDMARKS, "landmarks", "auxiliary", "mask")
        self._hand = _Graph(HAND_LANDMARKS, "landmarks", "handedness")

    def find(self, image: np.ndarray) -> list[Region]:
        """The people in a picture (H, W, 3) RGB."""
        height, width = image.shape[:2]
        packets = self._detection(image)
        if "detections" not in packets:
            return []
        regions = []
        for found in mp.packet_getter.get_proto_list(packets["detections"]):
            points = [(p.x * width, p.y * height) for p in found.location_data.relative_keypoints]
            regions.append(Region.of_body(np.array(points[0]), np.array(points[1])))
        return [region for region in regions if region.side > 1]

    def body_pass(
        self, crop: Crop, region: Region, look: Pass
    ) -> tuple[np.ndarray, np.ndarray | None] | None:
        """(35, 3) points in the picture and their visibility, and the outline in the crop; or None."""
        packets = self._body(*crop.seen_by(look, region))
        if "landmarks" not in packets or "auxiliary" not in packets:
            return None
        points = np.concatenate([_points(packets["landmarks"]), _points(packets["auxiliary"])])
        points[:, :2] = crop.to_picture(points[:, :2], look.mirrored)
        outline = None
        if "mask" in packets:
            outline = mp.packet_getter.get_image(packets["mask"]).numpy_view()
            outline = (
                (outline[:, ::-1] if look.mirrored else outline).reshape(crop.pixels, crop.pixels).copy()
            )
        return (points[list(MIRRORED)] if look.mirrored else points), outline

    def hand_pass(self, crop: Crop, region: Region, look: Pass) -> tuple[np.ndarray, float] | None:
        """(21, 2) points in the picture and how surely it is a left hand, 0 to 1; or None."""
        packets = self._hand(*crop.seen_by(look, region))
        if "landmarks" not in packets or "handedness" not in packets:
            return None
        best = mp.packet_getter.get_proto(packets["handedness"]).classification[0]
        # The network's words are for pictures from a mirror.
        left = best.score if (best.label == "Right") != look.mirrored else 1 - best.score
        return crop.to_picture(_points(packets["landmarks"])[:, :2], look.mirrored), left


class _Graph:
    """(H, W, 3) RGB and a region -> packets by the output's name; an output that found nothing has none."""

    def __init__(self, text: str, *outputs: str):
        config = text_format.Parse(text, calculator_pb2.CalculatorGraphConfig())
        self._graph, self._packets, self._time = mp.CalculatorGraph(graph_config=config), {}, 0
        for output in outputs:
            self._graph.observe_output_stream(output, self._packets.__setitem__)
        self._graph.start_run()

    def __call__(self, pixels: np.ndarray, region: Rectangle | None = None) -> dict[str, Any]:
        self._packets.clear()
        self._time += 1
        image = mp.packet_creator.create_image_frame(
            data=np.ascontiguousarray(pixels), image_format=mp.ImageFormat.SRGB
        )
        self._graph.add_packet_to_input_stream("image", image.at(self._time))
        if region is not None:
            x, y, size, angle = region
            rectangle = NormalizedRect(x_center=x, y_center=y, width=size, height=size, rotation=angle)
            roi = mp.packet_creator.create_proto(rectangle)
            self._graph.add_packet_to_input_stream("roi", roi.at(self._time))
        self._graph.wait_until_idle()
        return dict(self._packets)


def _points(packet: Any) -> np.ndarray:
    """(N, 3) x, y in the unit square that is the crop, visibility."""
    return np.array([(p.x, p.y, p.visibility) for p in mp.packet_getter.get_proto(packet).landmark])
