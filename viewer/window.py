"""The window: the picture on the left, the controls on the right, the state of things below. DearPyGui.

Data path: ReceivedPicture of the app -> texture, with lines over it; mouse and keys -> ViewerState, by way of the app
and the panel.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dearpygui.dearpygui as dpg
import numpy as np

from viewer.app import ViewerApp
from viewer.bindings import Bindings
from viewer.client import CONNECTED, CONNECTING
from viewer.overlay import Eye, overlay_lines
from viewer.panels import SHOWS, Panel, toggle
from viewer.picture import fill_buffer, fit, grown, make_buffer

WIDTH, HEIGHT = 1000, 680  # fits any screen, with its bars and a title; a user makes it larger
LEFT_EDGE, TOP_EDGE = 10, 40  # of the screen, where it opens
DEFAULT_FONT_SIZE = 16  # pixels; what all sizes here are meant for
PANEL_WIDTH, STATUS_HEIGHT = 372, 26
FRAME_SECONDS = 1 / 60  # a window is drawn no more often, where the screen does not set the pace
ZOOM_STEP = 0.9  # of the distance, one notch of the wheel
ORBIT_HEIGHTS = np.pi  # radians for a drag over the picture's whole height
LEFT, RIGHT, MIDDLE = 0, 1, 2
GAP = 8  # pixels
NAME_SIZE, NAME_GAP = 14, 4  # pixels, of words in the picture
SIGN_WIDTH, SIGN_MARGIN = 84, 6
BETWEEN = "  |  "
GREEN, YELLOW, RED, GREY = (110, 200, 120), (230, 190, 90), (240, 110, 100), (160, 160, 165)

# Fonts that systems have; DearPyGui's own is small and coarse.
FONTS = (
    "C:/Windows/Fonts/segoeui.ttf",
    "/System/Library/Fonts/Supplemental/Arial.ttf",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",
)
OWN_FONT_SIZE = 13  # pixels, of DearPyGui's

HELP = (
    ("Left drag", "turn about the person"),
    ("Right or middle drag", "move"),
    ("Wheel", "nearer, farther"),
    ("Up, Down", "camera of the capture before, after"),
    ("R", "back to the first view"),
    ("Space", "play, pause"),
    ("Left, Right", "frame before, after"),
    ("1 to 6", ", ".join(words.lower() for words in SHOWS.values())),
    ("G, X, V", "floor grid, world axes, training cameras"),
    ("T", "test mode on, off"),
    ("L", "light of the scene on, off, where the avatar has one"),
    ("P", "screenshot, a PNG file in full resolution"),
    ("H", "this help"),
    ("Ctrl + click", "on a slider: type a number"),
)


class PictureTexture:
    """The graphics card's copy of the newest picture, in the corner of a texture that grows with the window.

    It never shrinks: DearPyGui does not give the memory of a deleted texture back, so one for each size would fill
    it while a window is resized.
    """

    def __init__(self):
        # Three channels are a quarter less to copy; macOS has only four.
        self.channels, self.format = (
            (4, dpg.mvFormat_Float_rgba) if sys.platform == "darwin" else (3, dpg.mvFormat_Float_rgb)
        )
        self.registry = dpg.add_texture_registry()
        self.buffer = make_buffer(1, 1, self.channels)
        self.texture = self._add()
        self.size = 1, 1  # of the picture

    def show(self, image: np.ndarray, item: int) -> None:
        """image (H, W, 3) uint8 RGB into the drawn image `item`."""
        self.size = image.shape[1], image.shape[0]
        held = self.buffer.shape[1], self.buffer.shape[0]
        needed = grown(held, *self.size)
        if needed != held:
            old, self.buffer = self.texture, make_buffer(*needed, self.channels)
            self.texture = self._add()
            dpg.configure_item(item, texture_tag=self.texture)
            dpg.delete_item(old)
        fill_buffer(self.buffer, image)  # the card reads this memory again for every frame of the window
        dpg.configure_item(item, uv_max=(self.size[0] / needed[0], self.size[1] / needed[1]))

    def _add(self) -> int:
        height, width, _ = self.buffer.shape
        return dpg.add_raw_texture(width, height, self.buffer, format=self.format, parent=self.registry)


@dataclass
class Drag:
    button: int
    at: tuple[float, float]  # where the mouse was last


class ViewerWindow:
    def __init__(self, app: ViewerApp, font_size: int = DEFAULT_FONT_SIZE):
        self.app, self.scale = app, font_size / DEFAULT_FONT_SIZE
        self.drag: Drag | None = None
        self._shown_lines: tuple = ()
        dpg.create_context()
        # Callbacks run in this thread, between two frames: nothing here is changed while it is read.
        dpg.configure_app(manual_callback_management=True)
        dpg.create_viewport(
            title="Avatar viewer", width=WIDTH, height=HEIGHT, x_pos=LEFT_EDGE, y_pos=TOP_EDGE, min_width=640,
            min_height=400,
        )  # fmt: skip
        self._load_font(font_size)
        dpg.bind_theme(_theme())
        self.texture = PictureTexture()
        self.bindings = Bindings(self.scale)
        self._build()
        self._add_handlers()
        dpg.setup_dearpygui()
        dpg.show_viewport()
        dpg.set_primary_window("main", True)

    def run(self) -> None:
        """Until the window is closed."""
        try:
            while dpg.is_dearpygui_running():
                began = time.monotonic()
                dpg.run_callbacks(dpg.get_callback_queue())
                self._frame(began)
                dpg.render_dearpygui_frame()
                time.sleep(max(0.0, FRAME_SECONDS - (time.monotonic() - began)))
        finally:
            dpg.destroy_context()

    # --- building ----------------------------------------------------------------------------------------

    def _load_font(self, size: int) -> None:
        path = next((path for path in FONTS if Path(path).is_file()), None)
        if path is None:
            dpg.set_global_font_scale(size / OWN_FONT_SIZE)
            return
        with dpg.font_registry():
            dpg.bind_font(dpg.add_font(path, size))

    def _build(self) -> None:
        with dpg.window(tag="main", no_scrollbar=True, no_scroll_with_mouse=True):
            with dpg.group(horizontal=True):
                with dpg.child_window(tag="view", border=False, no_scrollbar=True, no_scroll_with_mouse=True):
                    self.canvas = dpg.add_drawlist(1, 1)
                    self.image = dpg.draw_image(
                        self.texture.texture, (0, 0), (1, 1), show=False, parent=self.canvas
                    )
                    self.lines = dpg.add_draw_layer(parent=self.canvas)
                    self.sign = dpg.add_draw_layer(parent=self.canvas, show=False)
                    self.hint = dpg.add_text("", color=GREY, pos=(8, 8))
                with dpg.child_window(tag="panel", width=self._panel_width(), border=False):
                    self.panel = Panel(self.app, self.bindings, self.scale)
            with (
                dpg.child_window(tag="status", border=False, no_scrollbar=True, height=self._status_height()),
                dpg.group(horizontal=True),
            ):
                self.connection = dpg.add_text("")
                self.numbers = dpg.add_text("", color=GREY)
        with dpg.window(tag="message_box", show=False, autosize=True, no_title_bar=True, no_move=True,
                        no_focus_on_appearing=True, no_resize=True, no_saved_settings=True):  # fmt: skip
            self.message = dpg.add_text("", color=YELLOW)
        with dpg.window(label="Help", tag="help", show=False, autosize=True, pos=(60, 60), no_collapse=True):
            for keys, words in HELP:
                with dpg.group(horizontal=True, xoffset=round(190 * self.scale)):
                    dpg.add_text(keys)
                    dpg.add_text(words, wrap=round(420 * self.scale))

    def _add_handlers(self) -> None:
        app, panel, state = self.app, self.panel, self.app.state
        keys = {
            dpg.mvKey_H: lambda: toggle("help"),
            dpg.mvKey_P: app.take_screenshot,
            dpg.mvKey_R: state.reset_view,
            dpg.mvKey_T: lambda: panel.set("project", not state.project),
            dpg.mvKey_L: panel.toggle_light,
            dpg.mvKey_G: lambda: panel.set("grid", not state.grid),
            dpg.mvKey_X: lambda: panel.set("axes", not state.axes),
            dpg.mvKey_V: lambda: panel.set("cameras", not state.cameras),
            dpg.mvKey_Spacebar: panel.toggle_playing,
            dpg.mvKey_Left: lambda: panel.step_frame(-1),
            dpg.mvKey_Right: lambda: panel.step_frame(1),
            dpg.mvKey_Up: lambda: panel.step_camera(-1),
            dpg.mvKey_Down: lambda: panel.step_camera(1),
        }
        for number, show in enumerate(SHOWS):
            keys[dpg.mvKey_1 + number] = lambda show=show: panel.set("show", show)
        with dpg.handler_registry():
            for key, act in keys.items():
                dpg.add_key_press_handler(key, callback=lambda _, __, act: self._press(act), user_data=act)
            for button in (LEFT, RIGHT, MIDDLE):
                dpg.add_mouse_click_handler(button, callback=lambda _, button: self._grab(button))
            dpg.add_mouse_wheel_handler(callback=lambda _, notches: self._wheel(notches))

    # --- once for each frame of the window ---------------------------------------------------------------

    def _frame(self, now: float) -> None:
        self._lay_out()
        self._move()
        picture = self.app.step(now)
        if picture is not None:
            self.texture.show(picture.image, self.image)
        self._place_image()
        self._show_status()
        self._show_message()
        self.panel.refresh()

    def _lay_out(self) -> None:
        """The picture takes what the controls leave."""
        width = dpg.get_viewport_client_width() - self._panel_width() - 3 * GAP
        height = dpg.get_viewport_client_height() - self._status_height() - 3 * GAP
        panel = max(width, 1), max(height, 1)
        if panel != self.app.state.panel:
            self.app.state.panel = panel
            dpg.configure_item("view", width=panel[0], height=panel[1])
            dpg.configure_item(self.canvas, width=panel[0], height=panel[1])
            dpg.configure_item("panel", height=panel[1])
            self._place_sign()

    def _place_image(self) -> None:
        shown = self.app.picture is not None
        dpg.configure_item(self.image, show=shown)
        if shown:
            x, y, width, height = fit(*self.app.state.panel, *self.texture.size)
            dpg.configure_item(self.image, pmin=(x, y), pmax=(x + width, y + height))
            self._draw_lines(x, y, width)
        dpg.configure_item(self.sign, show=self.app.waiting)

    def _draw_lines(self, x: int, y: int, width: int) -> None:
        """Over the picture; anew only where something has changed."""
        state, view = self.app.state, self.app.view
        switches = state.grid, state.axes, state.cameras
        shown = (id(state.welcome), id(view), state.background, *switches, x, y, width, state.panel)
        if shown == self._shown_lines or state.welcome is None or view is None:
            return
        self._shown_lines = shown
        dpg.delete_item(self.lines, children_only=True)
        eye = Eye(view, x, y, width)
        for line in overlay_lines(state.welcome, eye, state.background, *switches):
            dpg.draw_line(line.start, line.end, color=line.color, thickness=line.width, parent=self.lines)
            if line.name:
                at = line.end[0] + NAME_GAP, line.end[1] - NAME_GAP - NAME_SIZE
                dpg.draw_text(at, line.name, color=line.color, size=NAME_SIZE, parent=self.lines)

    def _place_sign(self) -> None:
        """ "drawing", in the picture's lower right corner."""
        dpg.delete_item(self.sign, children_only=True)
        size = round(DEFAULT_FONT_SIZE * self.scale)
        right, bottom = self.app.state.panel
        corner = right - SIGN_WIDTH * self.scale, bottom - size - 3 * SIGN_MARGIN
        dpg.draw_rectangle(
            corner, (right - SIGN_MARGIN, bottom - SIGN_MARGIN), color=(0, 0, 0, 0), fill=(30, 30, 34, 200),
            rounding=4, parent=self.sign,
        )  # fmt: skip
        at = corner[0] + SIGN_MARGIN, corner[1] + SIGN_MARGIN - 1
        dpg.draw_text(at, "drawing", color=YELLOW, size=size, parent=self.sign)

    def _show_status(self) -> None:
        phase = self.app.client.status.phase
        width = dpg.get_viewport_client_width() - 3 * GAP
        connection = _fitting(self.app.connection(), width)
        dpg.set_value(self.connection, connection)
        dpg.configure_item(
            self.connection, color=GREEN if phase == CONNECTED else YELLOW if phase == CONNECTING else RED
        )
        left = width - _text_width(connection) - GAP
        dpg.set_value(self.numbers, _fitting_parts(self.app.numbers(), left))
        waiting = self.app.picture is None
        dpg.configure_item(self.hint, show=waiting)
        if waiting and phase == CONNECTED:
            dpg.set_value(self.hint, "The first picture is being drawn.\nH: help")
        elif waiting:
            advice = "No picture yet. Start train.py or visualize.py on the other machine."
            lines = (self.app.connection(), advice, "H: help")
            dpg.set_value(self.hint, "\n".join(lines))
            dpg.configure_item(self.hint, wrap=self.app.state.panel[0] - 2 * GAP)

    def _show_message(self) -> None:
        """At the picture's lower end, in as many lines as it needs."""
        message = self.app.message
        dpg.configure_item("message_box", show=bool(message))
        if message:
            dpg.set_value(self.message, message)
            dpg.configure_item(self.message, wrap=self.app.state.panel[0] - 4 * GAP)
            height = dpg.get_item_rect_size("message_box")[1]
            dpg.set_item_pos("message_box", (2 * GAP, self.app.state.panel[1] - height))

    # --- mouse and keys ----------------------------------------------------------------------------------

    def _over_picture(self) -> bool:
        return dpg.is_item_hovered("view") or dpg.is_item_hovered(self.canvas)

    def _grab(self, button: int) -> None:
        if self.drag is None and self._over_picture():
            self.drag = Drag(button, tuple(dpg.get_mouse_pos(local=False)))

    def _move(self) -> None:
        """Follows the mouse while its button is down."""
        if self.drag is None:
            return
        at = tuple(dpg.get_mouse_pos(local=False))
        right, down = at[0] - self.drag.at[0], at[1] - self.drag.at[1]
        if right or down:
            state, height = self.app.state, self.app.state.panel[1]
            if self.drag.button == LEFT:
                turn = ORBIT_HEIGHTS / height
                state.camera = state.camera.orbit(right * turn, down * turn)
            else:
                state.camera = state.camera.pan(right, down, *state.panel)
            self.app.touch()
        self.drag.at = at
        if not dpg.is_mouse_button_down(self.drag.button):
            self.drag = None

    def _wheel(self, notches: float) -> None:
        if self._over_picture():
            self.app.state.camera = self.app.state.camera.zoom(ZOOM_STEP**notches)
            self.app.touch()

    def _press(self, act) -> None:
        if not self.panel.typing():
            act()

    # --- sizes -------------------------------------------------------------------------------------------

    def _panel_width(self) -> int:
        return round(PANEL_WIDTH * self.scale)

    def _status_height(self) -> int:
        return round(STATUS_HEIGHT * self.scale)


def _text_width(text: str) -> float:
    size = dpg.get_text_size(text)  # None before the first frame
    return size[0] if size else 0.0


def _fitting(text: str, width: float) -> str:
    """As much of it as `width` pixels hold."""
    if _text_width(text) <= width:
        return text
    while text and _text_width(f"{text}...") > width:
        text = text[: -max(1, len(text) // 20)]
    return f"{text}..."


def _fitting_parts(parts: Sequence[str], width: float) -> str:
    """As many of the first parts as `width` pixels hold."""
    while parts and _text_width(BETWEEN + BETWEEN.join(parts)) > width:
        parts = parts[:-1]
    return BETWEEN + BETWEEN.join(parts) if parts else ""


def _theme() -> int:
    with dpg.theme() as theme, dpg.theme_component(dpg.mvAll):
        dpg.add_theme_style(dpg.mvStyleVar_FramePadding, 5, 3)
        dpg.add_theme_style(dpg.mvStyleVar_ItemSpacing, 6, 4)
        dpg.add_theme_style(dpg.mvStyleVar_FrameRounding, 3)
        dpg.add_theme_style(dpg.mvStyleVar_WindowPadding, 8, 8)
        dpg.add_theme_color(dpg.mvThemeCol_Header, (52, 74, 104))
        dpg.add_theme_color(dpg.mvThemeCol_HeaderHovered, (66, 94, 132))
        dpg.add_theme_color(dpg.mvThemeCol_Button, (60, 68, 82))
        dpg.add_theme_color(dpg.mvThemeCol_ButtonHovered, (76, 104, 144))
        dpg.add_theme_color(dpg.mvThemeCol_FrameBg, (56, 56, 62))
        dpg.add_theme_color(dpg.mvThemeCol_PlotHistogram, (70, 130, 90))
    return theme
