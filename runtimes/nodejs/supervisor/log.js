'use strict';
// The output of one execution, up to a cap.

const TAIL = 16 * 1024;
// What V8 says, at the end, of a process that it aborts for want of memory.
const OUT_OF_MEMORY = /FATAL ERROR: .*out of memory|Fatal process out of memory|OOM error in V8/;

/** The first `cap` bytes of what was written, and a count of the rest. */
class Log {
  constructor(cap) {
    this.cap = cap;
    this.dropped = 0;
    this._data = Buffer.alloc(0);
    this._length = 0; // of the data, the rest of which is room
    this._tail = ''; // the last of what was dropped
  }

  /** Add a chunk, which is copied. */
  write(chunk) {
    const kept = chunk.subarray(0, this.cap - this._length);
    this._grow(this._length + kept.length);
    this._length += kept.copy(this._data, this._length);
    if (kept.length < chunk.length) {
      this.dropped += chunk.length - kept.length;
      this._tail = (this._tail + chunk.latin1Slice(Math.max(0, chunk.length - TAIL))).slice(-TAIL);
    }
  }

  /** What is kept, from byte `offset` on. */
  bytes(offset = 0) {
    return this._data.subarray(Math.min(offset, this._length), this._length);
  }

  _grow(length) {
    if (length <= this._data.length) return;
    const room = Math.min(this.cap, Math.max(length, 2 * this._data.length));
    this._data = Buffer.concat([this._data], room);
  }

  /** Whether its end is the complaint of a V8 that found no memory. The function can write that, too. */
  get tellsOfMemory() {
    const bytes = this.bytes();
    return OUT_OF_MEMORY.test(bytes.latin1Slice(Math.max(0, bytes.length - TAIL)) + this._tail);
  }
}

module.exports = { Log };
