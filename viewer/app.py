"""What the viewer does, without its window: connects state, network thread and files.

Data path: ViewerState -> Client -> server; pictures, progress and problems -> what the window shows.

The window calls `step` for each of its frames, and the other methods for buttons and keys. Everything that goes wrong
for a reason outside the program ends as a line in `message`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mmlphuman.animation.camera_file import CameraView, read_camera_file, write_camera_file
from mmlphuman.animation.pose_file import PoseOptions, read_pose_file
from mmlphuman.files import atomic_write
from mmlphuman.streaming.messages import LossCurve, Problem, RenderRequest, ServerMessage, State, Welcome
from mmlphuman.text import one_line
from viewer.client import CONNECTED, Client, ReceivedPicture, ServerAddress
from viewer.pace import Pace
from viewer.picture import png_bytes
from viewer.viewer_state import Playback, Requester, ViewerState, build_screenshot

SCREENSHOT_SECONDS = 30.0  # a picture that has not come by then will not
MESSAGE_SECONDS = 12.0  # a message stays on the screen so long


class ViewerApp:
    def __init__(self, client: Client, out_dir: Path):
        self.client, self.out_dir = client, out_dir
        self.state = ViewerState()
        self.picture: ReceivedPicture | None = None  # the last one shown
        self.view: CameraView | None = None  # of that
        self.progress: State | None = None
        self.losses = LossCurve()
        # The pose file's settings; reading it again follows them.
        self.pose_path = ""
        self.pose_options = PoseOptions(face=True)  # the server knows whether the avatar has learnt it
        self.camera_path = str(out_dir / "camera.json")
        self._requester, self._playback = Requester(), Playback()
        self._pace = Pace()
        # Requests that were not answered yet: their views, shares of the panel's side, and when they were made.
        self._asked: dict[int, tuple[CameraView, float, float]] = {}
        self._came_at = 0.0  # the last picture
        self._screenshot: tuple[int, float] | None = None  # id of the request under way, when it is given up
        self._message, self._message_until = "", 0.0
        self._now = 0.0

    # --- once for each frame of the window ---------------------------------------------------------------

    def step(self, now: float) -> ReceivedPicture | None:
        """Takes in what came, moves on, asks for what is missing. now: seconds -> a new picture to show, if any."""
        self._now = now
        for event in self.client.take_events():
            self._take_event(event)
        picture = self.client.take_picture()
        if picture is not None:
            self._take_picture(picture)
            self._finish_screenshot(picture)
        self.state.quick_share = self._pace.share
        self._playback.advance(self.state, now)
        if self._screenshot is not None:
            if now > self._screenshot[1]:
                self._screenshot = None
                self.say("the screenshot's picture did not come; try again")
            return picture  # a newer request would take its place
        request = self._requester.next_request(self.state, now, self.client.idle)
        if request is not None:
            self._submit(request)
        return picture

    @property
    def waiting(self) -> bool:
        """A picture is being drawn that somebody waits for: a sign is due."""
        return self.client.status.phase == CONNECTED and self._pace.waits(self._now)

    @property
    def message(self) -> str:
        return self._message if self._now < self._message_until else ""

    def say(self, message: str) -> None:
        self._message, self._message_until = message, self._now + MESSAGE_SECONDS

    def _submit(self, request: RenderRequest) -> None:
        self.client.submit(request)
        share = request.camera.width / max(self.state.panel[0], 1)
        self._asked[request.id] = request.camera, share, self._now
        self._pace.asked(self._now)

    def _take_picture(self, picture: ReceivedPicture) -> None:
        self.picture = picture
        frame = picture.frame
        asked = self._asked.get(frame.id)
        if asked is not None:
            self.view, share, asked_at = asked
            took = self._now - max(asked_at, self._came_at)
            if self.state.welcome is not None and self.state.welcome.training:
                took = (frame.render_ms + frame.encode_ms) / 1000  # the time between is training's
            self._pace.note(took, share)
        self._came_at = self._now
        self._answered(frame.id)

    def _answered(self, request_id: int) -> None:
        """That one, and all older ones, which are stale."""
        self._asked = {other: asked for other, asked in self._asked.items() if other > request_id}
        self._pace.answered(self._now, last=not self._asked)

    def _take_event(self, event: ServerMessage) -> None:
        if isinstance(event, Welcome):
            if self.state.welcome is not None and self.state.welcome.title != event.title:
                self.progress, self.losses = None, LossCurve()
            self.state.take_welcome(event)
            self._requester.forget()
            self._screenshot = None
            self._asked = {}
            self._pace.answered(self._now, last=True)
        elif isinstance(event, State):
            # A new connection, or a run that was resumed, tells the course from its beginning.
            known = self.losses.points
            if event.history and known and event.history[0][0] <= known[-1][0]:
                self.losses = LossCurve()
            self.losses.add(event.history)
            self.progress = event
        elif isinstance(event, Problem):
            self.say(event.message)
            if event.id is not None:
                self._answered(event.id)
            if self._screenshot is not None and event.id == self._screenshot[0]:
                self._screenshot = None

    # --- what buttons and keys do ------------------------------------------------------------------------

    def reconnect(self, host: str, port: int, token: str) -> None:
        self.client.reconnect(ServerAddress(host.strip(), port, token.strip()))

    def touch(self) -> None:
        """The view moves: until it stands still, pictures are asked for in the lower resolution."""
        self._requester.touch(self._now)

    def read_poses(self) -> None:
        """Reads `pose_path` and shows it."""
        path = self.pose_path.strip().strip('"')
        if not path:
            self.say("write the path of a pose file, or choose one with the button beside it")
            return
        try:
            sequence = read_pose_file(Path(path).expanduser(), self.pose_options)
        except (ValueError, OSError) as error:
            self.say(one_line(error))
            return
        self.state.take_sequence(sequence)
        self.say("; ".join((sequence.told, *sequence.doubts)))

    def change_pose_options(self, **changes: str | None) -> None:
        """`up`, `units` and `clean_up` of PoseOptions; a file that is shown, or was refused, is read again."""
        self.pose_options = replace(self.pose_options, **changes)
        if self.pose_path.strip():
            self.read_poses()

    def choose_kind(self, kind: str) -> None:
        """Training frame, pose file, T pose or big pose."""
        self.state.kind = kind
        if kind == "given" and self.state.sequence is None:
            self.read_poses()

    def save_camera(self) -> None:
        """The view as it is shown, in the panel's size: test.py --cam_path renders the same picture."""
        path = Path(self.camera_path).expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_camera_file(path, self.state.camera.view(*self.state.panel))
        except (ValueError, OSError) as error:
            self.say(one_line(error))
        else:
            self.say(f"wrote {path}")

    def load_camera(self) -> None:
        try:
            self.state.take_view(read_camera_file(Path(self.camera_path).expanduser()))
        except (ValueError, OSError) as error:
            self.say(one_line(error))
        else:
            self.say(f"camera of {self.camera_path}")

    def take_screenshot(self) -> None:
        """Asks for the picture in full size and without loss; it is written when it comes."""
        if self.picture is None or self.client.status.phase != "connected":
            self.say("there is no picture yet")
            return
        request = build_screenshot(self.state, self._requester.new_id())
        self._screenshot = request.id, self._now + SCREENSHOT_SECONDS
        self._submit(request)

    def _finish_screenshot(self, picture: ReceivedPicture) -> None:
        if self._screenshot is None or picture.frame.id != self._screenshot[0]:
            return
        self._screenshot = None
        try:
            self.out_dir.mkdir(parents=True, exist_ok=True)
            path = _free_name(self.out_dir, "screenshot", ".png")
            with atomic_write(path) as file:
                file.write(png_bytes(picture.frame, picture.image))
        except OSError as error:
            self.say(f"the screenshot cannot be written: {one_line(error)}")
        else:
            self.say(f"wrote {path}")

    # --- what the status line tells ----------------------------------------------------------------------

    def numbers(self) -> tuple[str, ...]:
        """Speed and facts of the last picture, for the status line, what matters most first."""
        if self.picture is None:
            return ()
        status, frame = self.client.status, self.picture.frame
        return (
            f"{status.fps:.1f} fps",
            f"{frame.width} x {frame.height}",
            f"drawn in {frame.render_ms:.0f} ms",
            f"pose {frame.distance:.1f}° from training",
            f"iteration {frame.iteration:,}",
            f"{frame.gaussians:,} Gaussians",
            f"{status.megabytes:.2f} MB/s",
        )

    def connection(self) -> str:
        """The connection, in words."""
        status = self.client.status
        if status.phase == "waiting":
            return f"{status.text}; next try in {max(status.retry_at - self._now, 0):.0f} s"
        return status.text


def _free_name(folder: Path, stem: str, suffix: str) -> Path:
    """The first numbered name that no file has."""
    number = 1
    while (path := folder / f"{stem}_{number:04d}{suffix}").exists():
        number += 1
    return path
