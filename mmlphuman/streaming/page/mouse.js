/* Mouse and fingers on the picture -> orbit, pan and zoom. */

const ORBIT_HEIGHTS = Math.PI; // radians for a drag over the picture's whole height
const ZOOM_STEP = 0.9; // of the distance, one notch of the wheel
const NOTCH = 100; // pixels that browsers report for one
const WHEEL_UNITS = [1, 33, NOTCH]; // pixels of a pixel, a line and a page

/* move(change): change(camera) gives the moved camera. */
export function watchMouse(stage, move) {
  const pointers = new Map(); // id -> {x, y, pan}

  stage.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button, form")) return; // what lies on the picture
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, pan: event.button !== 0 || event.shiftKey });
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
  stage.addEventListener("contextmenu", (event) => event.preventDefault()); // the right button moves the picture

  stage.addEventListener("pointermove", (event) => {
    const pointer = pointers.get(event.pointerId);
    if (!pointer) return;
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
