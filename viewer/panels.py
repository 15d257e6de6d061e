"""The controls at the window's right side, from top to bottom. DearPyGui.

Every control reads the state and writes the state, or calls a method of the app; no control knows another one.
"""

from __future__ import annotations

from pathlib import Path

import dearpygui.dearpygui as dpg

from mmlphuman.animation.pose_file import UNITS, UP_ROTATIONS
from mmlphuman.streaming.messages import MAX_NAME, MAX_SCALE, MIN_SCALE
from viewer.app import ViewerApp
from viewer.bindings import Bindings
from viewer.orbit_camera import MAX_FOVX, MIN_FOVX
from viewer.viewer_state import MAX_RATE

KINDS = {"training": "Training frames", "given": "Pose file", "t": "T pose", "big": "Big pose (canonical)"}
HANDS = {"file": "As in the poses", "relaxed": "Relaxed", "fist": "Fists"}
SHOWS = {
    "color": "Colour",
    "depth": "Depth",
    "alpha": "Alpha",
    "normals": "Normals",
    "anchors": "Anchors' regions",
    "distance": "Distance of the pose",
}
CLEAN_UPS = {"none": "None", "published": "As published"}
UPS = {up: up for up in UP_ROTATIONS}
LENGTHS = {None: "m, checked", **{unit: unit for unit in UNITS}}
SHARES = {1.0: "100%", 0.75: "75%", 0.5: "50%", 0.25: "25%"}
MOVING_SHARES = {None: "automatic", **SHARES}
SPEEDS = {0.1: "0.1x", 0.25: "0.25x", 0.5: "0.5x", 1.0: "1x", 2.0: "2x", 4.0: "4x"}
MAX_PORT = 65535
PLOT_HEIGHT = 100  # pixels, at the default font size
PLOT_MARGIN = 0.05  # beside the curve, of its extent
CURVE_COLOR = (240, 170, 80)


class Panel:
    def __init__(self, app: ViewerApp, bindings: Bindings, scale: float):
        self.app, self.state, self.bind, self.scale = app, app.state, bindings, scale
        self._phase = ""
        self.connection()
        self.training = TrainingPanel(app, bindings, scale)
        self.poses()
        self.camera()
        self.picture()

    # --- sections ----------------------------------------------------------------------------------------

    def connection(self) -> None:
        address = self.app.client.address
        with dpg.collapsing_header(label="Connection", default_open=True) as self.connection_header:
            with self.bind.row("Address", "The server's address and port"):
                self.host = dpg.add_input_text(default_value=address.host, width=self.pixels(-88))
                self.port = dpg.add_input_int(
                    default_value=address.port, step=0, width=-1, min_value=1, max_value=MAX_PORT, min_clamped=True,
                    max_clamped=True,
                )  # fmt: skip
            with self.bind.row("Token", "The server prints it when it starts; 127.0.0.1 needs none"):
                self.token = dpg.add_input_text(
                    default_value=address.token, password=True, width=self.pixels(-88)
                )
                dpg.add_button(label="Reconnect", width=-1, callback=self.reconnect)
        for item in (self.host, self.port, self.token):
            self.bind.value(item, lambda item=item: dpg.get_value(item))

    def poses(self) -> None:
        state, bind = self.state, self.bind
        with dpg.collapsing_header(label="Pose", default_open=True):
            with bind.row("Pose"):
                bind.choice(KINDS, lambda: state.kind, self.app.choose_kind)
            with bind.row("Frame", "Left and right arrow: one frame back and on"):
                frame = dpg.add_slider_int(
                    width=-1, clamped=True, callback=lambda _, value: state.set_position(value)
                )
                bind.value(frame, state.position)
                bind.setting(frame, "max_value", lambda: max(state.frame_count() - 1, 0))
                bind.setting(frame, "format", self.frame_format)
                bind.setting(frame, "enabled", lambda: state.frame_count() > 1)
            with bind.row("Play", "Space: play and pause. Pose files play at their own frame rate"):
                button = dpg.add_button(label="Play", width=self.pixels(76), callback=self.toggle_playing)
                bind.setting(button, "label", lambda: "Pause" if state.playing else "Play")
                dpg.add_button(arrow=True, direction=dpg.mvDir_Left, callback=lambda: self.step_frame(-1))
                dpg.add_button(arrow=True, direction=dpg.mvDir_Right, callback=lambda: self.step_frame(1))
                bind.choice(SPEEDS, lambda: state.speed, lambda value: self.set("speed", value))
            with bind.row("Hands"):
                bind.choice(HANDS, lambda: state.hands, lambda value: self.set("hands", value))
            with bind.row("Options"):
                still = dpg.add_checkbox(
                    label="No translation", callback=lambda _, value: self.set("use_translation", not value)
                )
                bind.value(still, lambda: not state.use_translation)
                test = dpg.add_checkbox(label="Test mode", callback=self.change("project"))
                bind.value(test, lambda: state.project)
                bind.hint(test, "Brings novel poses into training's range, as test.py --test does")
            self.pose_file()

    def pose_file(self) -> None:
        app, bind = self.app, self.bind
        hint = "poses of a capture, a video estimator, AMASS or EasyMocap: npz, JSON, or a folder; on this machine"
        with bind.row("Pose file", hint):
            path = dpg.add_input_text(
                hint="path of a file or folder",
                width=self.pixels(-36),
                on_enter=True,
                callback=self.type_pose_path,
            )
            bind.value(path, lambda: app.pose_path)
            self.pose_path = path
            dpg.add_button(label="...", width=-1, callback=lambda: dpg.show_item(self.pose_dialog))
        hint = (
            "The file's axis that points up (AMASS: z), and its translations' unit; "
            "checked: metres, refused where they look otherwise"
        )
        with bind.row("Up, units", hint):
            bind.choice(
                UPS,
                lambda: app.pose_options.up,
                lambda value: app.change_pose_options(up=value),
                self.pixels(58),
            )
            bind.choice(
                LENGTHS,
                lambda: app.pose_options.units,
                lambda value: app.change_pose_options(units=value),
            )
        with bind.row("Clean-up", "What the published viewer does to poses of motion capture"):
            bind.choice(
                CLEAN_UPS,
                lambda: app.pose_options.clean_up,
                lambda value: app.change_pose_options(clean_up=value),
            )
        self.pose_dialog = self.file_dialog("Pose file", self.choose_pose_path, ".npz")

    def camera(self) -> None:
        app, state, bind = self.app, self.state, self.bind
        with dpg.collapsing_header(label="Camera", default_open=True):
            with bind.row(
                "Camera",
                "Jumps to a camera of the capture; held out: training did not see it. Up and down arrow: one back "
                "and on",
            ):
                cameras = dpg.add_combo(width=self.pixels(-66), callback=self.choose_camera)
                bind.setting(cameras, "items", self.camera_names)
                bind.value(cameras, self.camera_name)
                dpg.add_button(arrow=True, direction=dpg.mvDir_Left, callback=lambda: self.step_camera(-1))
                dpg.add_button(arrow=True, direction=dpg.mvDir_Right, callback=lambda: self.step_camera(1))
            with bind.row("Field of view", "Degrees across the picture's width"):
                fov = dpg.add_slider_float(
                    min_value=MIN_FOVX, max_value=MAX_FOVX, width=-1, clamped=True, format="%.1f°",
                    callback=self.change_fovx,
                )  # fmt: skip
                bind.value(fov, lambda: state.camera.picture_fovx(*state.panel))
            with bind.row("Camera file", "JSON that test.py --cam_path reads, with the picture's size"):
                path = dpg.add_input_text(
                    width=self.pixels(-36), callback=lambda _, value: setattr(app, "camera_path", value)
                )
                bind.value(path, lambda: app.camera_path)
                dpg.add_button(label="...", width=-1, callback=lambda: dpg.show_item(self.camera_dialog))
            with bind.row(""):
                dpg.add_button(label="Save", width=self.pixels(50), callback=lambda: app.save_camera())
                dpg.add_button(label="Load", width=self.pixels(50), callback=lambda: app.load_camera())
                level = dpg.add_button(label="Level", width=self.pixels(50), callback=self.level)
                bind.hint(level, "Takes the camera's tilt away")
                reset = dpg.add_button(label="Reset", width=-1, callback=lambda: state.reset_view())
                bind.hint(reset, "Back to the first view (R)")
        self.camera_dialog = self.file_dialog("Camera file", self.choose_camera_path, ".json")

    def picture(self) -> None:
        state, bind = self.state, self.bind
        with dpg.collapsing_header(label="Picture", default_open=True):
            with bind.row(
                "Show",
                "Keys 1 to 6. Distance: how far test mode turns the joints that each region's MLPs see",
            ):
                bind.choice(SHOWS, lambda: state.show, lambda value: self.set("show", value))
            with bind.row("Light", "The light of the scene that was learnt with the avatar (L)") as line:
                light = dpg.add_checkbox(callback=self.change("light"))
                bind.value(light, lambda: state.light)
                bind.setting(line, "show", state.has_light)
            with bind.row("Background"):
                color = dpg.add_color_edit(
                    no_alpha=True,
                    width=-1,
                    display_type=dpg.mvColorEdit_uint8,
                    callback=self.change_background,
                )
                bind.value(color, lambda: [*(255 * part for part in state.background), 255])
            with bind.row("Gaussian scale", "Factor on the size of every Gaussian"):
                scale = dpg.add_slider_float(
                    min_value=MIN_SCALE, max_value=MAX_SCALE, clamped=True, width=-1, format="%.2f",
                    callback=self.change("gaussian_scale"),
                )  # fmt: skip
                bind.value(scale, lambda: state.gaussian_scale)
            with bind.row(
                "Lines", "Floor, a metre from line to line (G); world axes (X); training cameras (V)"
            ):
                for name, label in (("grid", "Grid"), ("axes", "Axes"), ("cameras", "Cameras")):
                    switch = dpg.add_checkbox(label=label, callback=self.change(name))
                    bind.value(switch, lambda name=name: getattr(state, name))
            hint = (
                "Of the picture; and while it moves: automatic is as large as comes quickly, then sharp again"
            )
            with bind.row("Resolution", hint):
                bind.choice(
                    SHARES,
                    lambda: state.resolution,
                    lambda value: self.set("resolution", value),
                    self.pixels(70),
                )
                dpg.add_text("moving")
                bind.choice(
                    MOVING_SHARES,
                    lambda: state.moving_resolution,
                    lambda value: self.set("moving_resolution", value),
                )
            with bind.row("JPEG quality", "Lower is faster on slow links"):
                quality = dpg.add_slider_int(
                    min_value=1, max_value=100, clamped=True, width=-1, callback=self.change("quality")
                )
                bind.value(quality, lambda: state.quality)
            with bind.row(""):
                dpg.add_button(
                    label="Screenshot (P)",
                    width=self.pixels(130),
                    callback=lambda: self.app.take_screenshot(),
                )
                dpg.add_button(label="Help (H)", width=-1, callback=lambda: toggle("help"))

    # --- once for each frame of the window ---------------------------------------------------------------

    def refresh(self) -> None:
        self.bind.refresh()
        self.training.refresh()
        phase = self.app.client.status.phase
        if phase != self._phase and phase in ("connected", "waiting"):
            self._phase = phase  # out of the way once it works
            dpg.set_value(self.connection_header, phase != "connected")

    def typing(self) -> bool:
        """Keys belong to a control or to a dialog."""
        return self.bind.typing() or any(
            dpg.is_item_shown(item) for item in (self.pose_dialog, self.camera_dialog)
        )

    # --- small steps, also for keys ----------------------------------------------------------------------

    def reconnect(self) -> None:
        self.app.reconnect(
            dpg.get_value(self.host), dpg.get_value(self.port), dpg.get_value(self.token)[:MAX_NAME]
        )

    def toggle_light(self) -> None:
        if self.state.has_light():
            self.state.light = not self.state.light

    def toggle_playing(self) -> None:
        self.state.playing = not self.state.playing

    def step_frame(self, steps: int) -> None:
        self.state.playing = False
        self.state.set_position(self.state.position() + steps)

    def step_camera(self, steps: int) -> None:
        self.state.jump_to_camera(self.state.camera_position + steps)

    def level(self) -> None:
        self.state.camera = self.state.camera.levelled()

    # --- what controls show and do -----------------------------------------------------------------------

    def pixels(self, size: int) -> int:
        """At the default font size -> at this one."""
        return round(size * self.scale)

    def set(self, name: str, value: object) -> None:
        setattr(self.state, name, value)

    def change(self, name: str):
        """A callback that puts the control's value into the state."""
        return lambda _, value: setattr(self.state, name, value)

    def frame_format(self) -> str:
        """The slider's text; %d is the position."""
        state, count = self.state, self.state.frame_count()
        if not count:
            return "none"
        numbers = state.welcome.frames if state.kind == "training" else state.sequence.frames
        return f"%d of 0-{count - 1} (frame {numbers[state.position()]})"

    def camera_names(self) -> list[str]:
        cameras = self.state.welcome.cameras if self.state.welcome else ()
        return [f"camera {entry.id}" + ("" if entry.trained else ", held out") for entry in cameras]

    def camera_name(self) -> str:
        names = self.camera_names()
        return names[self.state.camera_position] if names else "none"

    def choose_camera(self, _: int, name: str) -> None:
        self.state.jump_to_camera(self.camera_names().index(name))

    def change_fovx(self, _: int, fovx: float) -> None:
        self.state.camera = self.state.camera.with_fovx(fovx, *self.state.panel)
        self.app.touch()

    def change_background(self, _: int, color: list[float]) -> None:
        self.state.background = tuple(color[:3])

    def type_pose_path(self, _: int, path: str) -> None:
        self.app.pose_path = path
        self.app.read_poses()

    def choose_pose_path(self, path: str) -> None:
        self.app.pose_path = path
        self.app.read_poses()

    def choose_camera_path(self, path: str) -> None:
        self.app.camera_path = path

    def file_dialog(self, label: str, choose, suffix: str) -> int:
        """A dialog, hidden until it is asked for."""
        with dpg.file_dialog(
            label=label, show=False, modal=True, width=640, height=420, default_path=str(Path.home()),
            callback=lambda _, chosen: choose(chosen["file_path_name"]), cancel_callback=lambda: None,
        ) as dialog:  # fmt: skip
            dpg.add_file_extension(suffix)
            dpg.add_file_extension(".*")
        return dialog


class TrainingPanel:
    """How far a run is, and its loss: a section of the controls that is there while the server trains."""

    def __init__(self, app: ViewerApp, bindings: Bindings, scale: float):
        self.app = app
        self._plotted: tuple = ()
        with dpg.collapsing_header(label="Training", default_open=True) as header:
            bar = dpg.add_progress_bar(width=-1)
            bindings.value(bar, self.progress_share)
            bindings.setting(bar, "overlay", self.progress_text)
            with bindings.row("Pictures / s", "How often the picture is renewed while training, at most"):
                rate = dpg.add_slider_float(
                    min_value=0.5, max_value=MAX_RATE, clamped=True, width=-1, format="%.1f",
                    callback=lambda _, value: setattr(app.state, "rate", value),
                )  # fmt: skip
                bindings.value(rate, lambda: app.state.rate)
            self._add_plot(round(PLOT_HEIGHT * scale))
        bindings.setting(header, "show", self.training)

    def refresh(self) -> None:
        """Draws the curve, if it has grown."""
        points = self.app.losses.points
        if points == self._plotted:
            return
        self._plotted = points
        columns = [float(iteration) for iteration, _ in points], [loss for _, loss in points]
        dpg.set_value(self.curve, list(columns))
        for axis, values in zip(self.axes, columns, strict=True):
            low, high = min(values, default=0.0), max(values, default=1.0)
            margin = PLOT_MARGIN * (high - low) or 1.0
            dpg.set_axis_limits(axis, low - margin, high + margin)

    def training(self) -> bool:
        welcome = self.app.state.welcome
        return self.app.progress is not None or (welcome is not None and welcome.training)

    def progress_share(self) -> float:
        progress = self.app.progress
        return progress.iteration / max(progress.iterations, 1) if progress else 0.0

    def progress_text(self) -> str:
        progress = self.app.progress
        if progress is None:
            return "waiting for the first report"
        return f"{progress.iteration:,} of {progress.iterations:,}, {progress.steps_per_second:.1f} / s"

    def _add_plot(self, height: int) -> None:
        with dpg.plot(height=height, width=-1, no_menus=True, no_mouse_pos=True, no_title=True):
            self.axes = [
                dpg.add_plot_axis(dpg.mvXAxis, no_highlight=True, tick_format="%.0f"),
                dpg.add_plot_axis(dpg.mvYAxis, label="loss", no_highlight=True, tick_format="%.2g"),
            ]
            self.curve = dpg.add_line_series([], [], parent=self.axes[1])
        with dpg.theme() as theme, dpg.theme_component(dpg.mvLineSeries):
            dpg.add_theme_color(dpg.mvPlotCol_Line, CURVE_COLOR, category=dpg.mvThemeCat_Plots)
        dpg.bind_item_theme(self.curve, theme)


def toggle(item: str) -> None:
    dpg.configure_item(item, show=not dpg.is_item_shown(item))
