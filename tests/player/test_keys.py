"""Which key presses the pages take as theirs, and which they leave to the browser, fields and the open help."""

from __future__ import annotations

from tests.player.node import run_node

SCRIPT = """
    const help = { open: args[0].help, close() { this.open = false; } };
    globalThis.document = { getElementById: (id) => id === "help" ? help : null };
    const { press } = await load("../page/dom.js");
    const done = [];
    // Of an element's selectors only its tag and type are asked for.
    const matches = ({ tag, type }) => (selectors) => selectors.includes(":not")
      ? tag === "select" || tag === "input" && !["range", "checkbox"].includes(type)
      : ["input", "button", "summary"].includes(tag);
    for (const { key, on, ...modifiers } of args[0].events) {
      let kept = true;
      press({ key, ...modifiers, target: { matches: matches(on) }, preventDefault: () => { kept = false; } },
        { p: () => done.push("p") }, { " ": () => done.push("space") });
      done.push(kept ? "left" : "taken");
    }
    return [done, help.open];
"""
BODY, BUTTON, TEXT = {"tag": "body"}, {"tag": "button"}, {"tag": "input", "type": "text"}
SLIDER, SELECT = {"tag": "input", "type": "range"}, {"tag": "select"}


def press(*events: dict, help: bool = False) -> tuple[list[str], bool]:
    """What was done, after each press whether the page took it; whether the help is still open."""
    done, is_open = run_node(SCRIPT, {"help": help, "events": events})
    return done, is_open


def test_a_key_is_taken_in_either_case():
    done, _ = press({"key": "p", "on": BODY}, {"key": "P", "on": BODY}, {"key": "q", "on": BODY})
    assert done == ["p", "taken", "p", "taken", "left"]


def test_browsers_shortcuts_are_left():
    for modifier in ("ctrlKey", "altKey", "metaKey"):
        assert press({"key": "p", "on": BODY, modifier: True})[0] == ["left"]
    assert press({"key": "P", "on": BODY, "shiftKey": True})[0] == ["p", "taken"]


def test_fields_have_their_keys():
    for field in (TEXT, SELECT):
        assert press({"key": "p", "on": field}, {"key": " ", "on": field})[0] == ["left", "left"]
    for control in (BUTTON, SLIDER):
        assert press({"key": "p", "on": control}, {"key": " ", "on": control})[0] == ["p", "taken", "left"]
    assert press({"key": " ", "on": BODY})[0] == ["space", "taken"]


def test_the_open_help_takes_h_alone():
    assert press({"key": "p", "on": BODY}, {"key": " ", "on": BODY}, help=True) == (["left", "left"], True)
    assert press({"key": "H", "on": BODY}, help=True) == (["left"], False)
