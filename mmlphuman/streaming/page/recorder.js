/* Pictures -> a video file, in the browser.

All pictures are there before recording begins: browsers stamp a video's frames with the time at which they see them, so
that they are shown at their pace, however long drawing them took. */

const TYPES = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm", "video/mp4"];
const BITS_PER_PIXEL = 0.2; // generous: the picture is compressed twice
const LEAST_BITS = 2e6;

/* pictures: blobs of one size; progress(i) before each. A blob, whose type tells the format. */
export async function recordVideo(pictures, fps, progress) {
  const type = TYPES.find((each) => globalThis.MediaRecorder?.isTypeSupported(each));
  if (!type) throw new Error("this browser cannot record videos");
  const canvas = document.createElement("canvas");
  const first = await createImageBitmap(pictures[0]);
  const [width, height] = [first.width, first.height];
  Object.assign(canvas, { width, height });
  first.close();
  const pen = canvas.getContext("2d");
  const stream = canvas.captureStream(0); // frames are handed over one by one
  const [track] = stream.getVideoTracks();
  const bits = Math.max(BITS_PER_PIXEL * width * height * fps, LEAST_BITS);
  const recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: bits });
  const pieces = [];
  recorder.ondataavailable = (event) => pieces.push(event.data);
  const ended = new Promise((resolve, reject) => {
    recorder.onstop = resolve;
    recorder.onerror = (event) => reject(event.error ?? new Error("the browser could not record"));
  });
  recorder.start();
  const began = performance.now();
  for (const [i, picture] of pictures.entries()) {
    progress(i);
    const bitmap = await createImageBitmap(picture);
    await until(began + 1000 * i / fps);
    pen.drawImage(bitmap, 0, 0);
    bitmap.close();
    track.requestFrame();
  }
  await until(began + 1000 * pictures.length / fps); // the last picture has its time too
  recorder.stop();
  await ended;
  track.stop();
  return new Blob(pieces, { type: type.split(";")[0] });
}

function until(when) {
  return new Promise((resolve) => setTimeout(resolve, when - performance.now()));
}
