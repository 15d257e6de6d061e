/* How large pictures are while the view moves, and when a sign says that one is awaited.

Times of pictures -> share of their side. Where pictures come quickly nothing ever changes: the share stays 1, and the
sign does not appear. All times are in milliseconds. */

const SLOW = 100, AIM = 70, FAST = 40; // that one picture takes
const LEAST = 0.25; // of a side
const STEP = 0.05; // sizes in between would change from picture to picture
const GROWTH = 1.2;
const WAIT = 300; // before the sign appears
const LINGER = 400; // after which it goes: it does not blink with slow pictures

export class Pace {
  share = 1;
  slow = 0; // pictures, one after the other: a single one says nothing
  awaitedSince = null;
  signUntil = -Infinity;

  /* One picture of this share of the side took so long. */
  note(took, share) {
    this.slow = took > SLOW ? this.slow + 1 : 0;
    if (this.slow > 1) this.aim(share * Math.sqrt(AIM / took));
    if (took < FAST && share >= this.share) this.aim(share * GROWTH);
  }

  aim(share) {
    this.share = Math.min(Math.max(Math.round(share / STEP) * STEP, LEAST), 1);
  }

  /* Somebody waits for a picture from now on, or for the next one, or for none. */
  asked(now) {
    this.awaitedSince ??= now;
  }
  answered(now, last) {
    this.awaitedSince = last ? null : now;
  }

  /* Whether the sign is to be seen. */
  waits(now) {
    if (this.awaitedSince !== null && now - this.awaitedSince > WAIT) this.signUntil = now + LINGER;
    return now < this.signUntil;
  }
}
