"""Controls that follow the state, and the state that follows the controls. DearPyGui.

A control is bound to a function that reads its value from the state. What the user does goes to the state through the
control's callback, never from control to control; whatever changed the state, `refresh` shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dearpygui.dearpygui as dpg

LABEL_WIDTH = 112  # pixels, at the default font size


class Bindings:
    def __init__(self, scale: float):
        """scale: of the font, over its default size."""
        self.label_width = round(LABEL_WIDTH * scale)
        self._values: list[tuple[int, Callable[[], Any]]] = []
        self._shown: dict[int, Any] = {}
        self._settings: list[tuple[int, str, Callable[[], Any]]] = []

    @contextmanager
    def row(self, label: str, hint: str = "") -> Iterator[int | str]:
        """A line with its name on the left; `hint` appears under the mouse. Gives the line."""
        with dpg.group(horizontal=True, xoffset=self.label_width) as line:
            with dpg.group():  # with its hint, which would take a column of its own
                text = dpg.add_text(label)
                if hint:
                    self.hint(text, hint)
            with dpg.group(horizontal=True):
                yield line

    def hint(self, item: int | str, text: str) -> None:
        with dpg.tooltip(item, delay=0.5):
            dpg.add_text(text, wrap=320)

    def value(self, item: int, read: Callable[[], Any]) -> int:
        """Shows what `read` returns in `item`."""
        self._values.append((item, read))
        return item

    def setting(self, item: int | str, name: str, read: Callable[[], Any]) -> None:
        """Keeps a setting of `item` (label, show, items, max_value ...) at what `read` returns."""
        self._settings.append((item, name, read))

    def choice(
        self,
        choices: dict[Any, str],
        read: Callable[[], Any],
        write: Callable[[Any], None],
        width: int = -1,
    ) -> int:
        """A drop-down list; choices: value -> words."""
        values = {words: value for value, words in choices.items()}
        item = dpg.add_combo(
            list(choices.values()), callback=lambda _, words: write(values[words]), width=width
        )
        return self.value(item, lambda: choices.get(read(), ""))

    def refresh(self) -> None:
        """Shows the state. What the user types in is left alone until it is done."""
        for item, name, read in self._settings:
            value = read()
            if self._shown.get((item, name)) != value:
                self._shown[item, name] = value
                dpg.configure_item(item, **{name: value})
        for item, read in self._values:
            value = read()
            if self._shown.get(item) != value and not _active(item):
                self._shown[item] = value
                dpg.set_value(item, value)
        # A control that was used shows its own value, which the state may have refused or rounded.
        for item, _ in self._values:
            if _active(item):
                self._shown.pop(item, None)

    def typing(self) -> bool:
        """A control has the keyboard."""
        return any(_active(item) for item, _ in self._values)


def _active(item: int) -> bool:
    """Under the mouse button, or with the cursor in it; drop-down lists do not tell and do not need to."""
    return dpg.get_item_state(item).get("active", False)
