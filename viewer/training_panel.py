"""How far a run is, and its loss: the lowest section of the controls, there while the server trains. DearPyGui."""

from __future__ import annotations

import dearpygui.dearpygui as dpg

from viewer.app import ViewerApp
from viewer.bindings import Bindings
from viewer.viewer_state import MAX_RATE

PLOT_HEIGHT = 100  # pixels, at the default font size
PLOT_MARGIN = 0.05  # beside the curve, of its extent
CURVE_COLOR = (240, 170, 80)


class TrainingPanel:
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
