/* Mouse and fingers on the picture -> orbit, pan and zoom; clicks, of one place. */

const ORBIT_HEIGHTS = Math.PI; // radians for a drag over the picture's whole height
const ZOOM_STEP = 0.9; // of the distance, one notch of the wheel
const NOTCH = 100; // pixels that browsers report for one
const WHEEL_UNITS = [1, 33, NOTCH]; // pixels of a pixel, a line and a page

const STILL = 4; // pixels that a click may move

/* move(change): change(camera) gives the moved camera. hover, click, doubleClick(x, y): pixels of the stage. */
export function watchMouse(stage, { move, hover, click, doubleClick }) {
  const pointers = new Map(); // id -> {x, y, pan}
  let pressed = null; // where the last click may have begun
  const place = (event) => {
    const { left, top } = stage.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  };
  const still = ({ clientX, clientY }) => pressed && Math.hypot(clientX - pressed[0], clientY - pressed[1]) <= STILL;

  stage.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button, form")) return; // what lies on the picture
    stage.setPointerCapture(event.pointerId);
    pressed = pointers.size || event.button !== 0 ? null : [event.clientX, event.clientY];
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, pan: event.button !== 0 || event.shiftKey });
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
  stage.addEventListener("click", (event) => still(event) && event.detail === 1 && click(...place(event)));
  stage.addEventListener("dblclick", (event) => still(event) && doubleClick(...place(event)));
  stage.addEventListener("contextmenu", (event) => event.preventDefault()); // the right button moves the picture

  stage.addEventListener("pointermove", (event) => {
    const pointer = pointers.get(event.pointerId);
    if (!pointer) return hover(...place(event));
    const { clientWidth: width, clientHeight: height } = stage;
    const [right, down] = [event.clientX - pointer.x, event.clientY - pointer.y];
    const other = [...pointers.values()].find((each) => each !== pointer);
    if (other) {
      const apart = (x, y) => Math.max(Math.hypot(x - other.x, y - other.y), 1);
      const factor = apart(pointer.x, pointer.y) / apart(event.clientX, event.clientY);
      move((camera) => camera.zoom(factor).pan(right / 2, down / 2, width, height)); // with the fingers' middle
    } else if (pointer.pan) {
      move((camera) => camera.pan(right, down, width, height));
    } else {
      move((camera) => camera.orbit(right * ORBIT_HEIGHTS / height, down * ORBIT_HEIGHTS / height));
    }
    Object.assign(pointer, { x: event.clientX, y: event.clientY });
  });

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const notches = event.deltaY * WHEEL_UNITS[event.deltaMode] / NOTCH;
    move((camera) => camera.zoom(ZOOM_STEP ** -notches));
  }, { passive: false });
}
