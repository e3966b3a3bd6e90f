'use strict';
// What supervisor and handler say to each other over their channel.
//
// A frame is a length (of what follows it, four bytes) and fixed fields, then bytes; numbers are big-endian.
// The handler side is not to be believed: user code can write to its channel, so the supervisor checks every
// field.
//
// Down: first BIRTH, the revision as JSON, then one call at a time, CALL: sequence, length of the execution
// id (one byte), id, input (JSON). Up: one report for the import and one for each call, REPORT: sequence,
// kind, reason and flags (one byte each), duration (double, seconds), length of the result, result (JSON),
// message (UTF-8).

const LENGTH = 4;
const CALL = LENGTH + 4 + 1;
const REPORT = LENGTH + 4 + 3 + 8 + 4;

// Kinds of a report: the import worked; the call with this sequence succeeded; it (or the import) failed.
const [READY, SUCCESS, FAILURE] = [0, 1, 2];
// Flag: the handler cannot serve another call.
const SPENT = 1;
// The sequence of reports about the import; calls count from 1.
const IMPORTING = 0;
// The reasons that a handler can report, by their number in the frame.
const REASONS = [
  '',
  'function_raised',
  'import_failed',
  'entry_not_found',
  'bad_arguments',
  'result_not_json',
  'result_too_large',
  'memory_exceeded',
  'disk_full',
  'platform_error',
];
const MAX_MESSAGE = 2048; // bytes; a longer one is cut
const MAX_EXPLANATION = 64 * 1024; // bytes of the result of a failure; a longer one is cut
const LONGEST_CHARACTER = 7; // bytes of a UTF-16 unit as JSON: an escape; and there are quotation marks

/** The first frame: what the handler is to serve, an object that JSON can hold. */
function birth(revision) {
  const body = Buffer.from(JSON.stringify(revision));
  const head = Buffer.alloc(LENGTH);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}

/** The frame of a call; the id (a string) has at most 255 bytes, the body is a Buffer. */
function call(sequence, execution, body) {
  const head = Buffer.alloc(CALL + execution.length);
  head.writeUInt32BE(CALL - LENGTH + execution.length + body.length, 0);
  head.writeUInt32BE(sequence, LENGTH);
  head.writeUInt8(execution.length, LENGTH + 4);
  head.latin1Write(execution, CALL);
  return Buffer.concat([head, body]);
}

/** The fields of a complete call. */
function parseCall(frame) {
  const split = CALL + frame.readUInt8(LENGTH + 4);
  return {
    sequence: frame.readUInt32BE(LENGTH),
    execution: frame.latin1Slice(CALL, split),
    body: frame.subarray(split),
  };
}

/** The frame of a report; `result` is a Buffer. */
function report(
  sequence,
  kind,
  { result = Buffer.alloc(0), reason = '', message = '', duration = 0, flags = 0 },
) {
  const text = Buffer.from(message).subarray(0, MAX_MESSAGE);
  const head = Buffer.alloc(REPORT);
  head.writeUInt32BE(REPORT - LENGTH + result.length + text.length, 0);
  head.writeUInt32BE(sequence, LENGTH);
  head.writeUInt8(kind, LENGTH + 4);
  head.writeUInt8(REASONS.indexOf(reason), LENGTH + 5);
  head.writeUInt8(flags, LENGTH + 6);
  head.writeDoubleBE(duration, LENGTH + 7);
  head.writeUInt32BE(result.length, LENGTH + 15);
  return Buffer.concat([head, result, text]);
}

/** The result of a failure: a text for people, as JSON. */
function explanation(text) {
  const data = Buffer.from(JSON.stringify(text));
  if (data.length <= MAX_EXPLANATION) return data;
  return Buffer.from(JSON.stringify(text.slice(0, Math.floor(MAX_EXPLANATION / LONGEST_CHARACTER))));
}

/**
 * The fields of a complete report, of which any may be a lie; null for one that is too short or ends too
 * early.
 */
function parseReport(frame) {
  if (frame.length < REPORT) return null;
  const split = REPORT + frame.readUInt32BE(LENGTH + 15);
  if (split > frame.length) return null;
  return {
    sequence: frame.readUInt32BE(LENGTH),
    kind: frame.readUInt8(LENGTH + 4),
    reason: REASONS[frame.readUInt8(LENGTH + 5)] || 'function_raised',
    flags: frame.readUInt8(LENGTH + 6),
    duration: frame.readDoubleBE(LENGTH + 7),
    result: frame.subarray(REPORT, split),
    message: frame.utf8Slice(split),
  };
}

/** Puts frames together from what a socket brings; `limit` bounds a frame's length field. */
class Assembler {
  constructor(limit) {
    this._limit = limit;
    this._start();
  }

  _start() {
    this._frame = Buffer.alloc(LENGTH); // the whole of it, once its first bytes are here
    this._filled = 0;
    this._known = false; // how long it is
  }

  /** Take a chunk. Returns a complete frame or null; throws RangeError for what cannot be one frame. */
  add(chunk) {
    const taken = this._fill(chunk);
    if (this._filled < LENGTH) return null;
    if (!this._known) this._size();
    const rest = this._fill(chunk.subarray(taken));
    if (taken + rest < chunk.length) throw new RangeError('more than one frame');
    if (this._filled < this._frame.length) return null;
    const frame = this._frame;
    this._start();
    return frame;
  }

  _fill(chunk) {
    const taken = chunk.copy(this._frame, this._filled);
    this._filled += taken;
    return taken;
  }

  _size() {
    const length = this._frame.readUInt32BE(0);
    if (length > this._limit) throw new RangeError('a frame that is too long');
    const frame = Buffer.allocUnsafe(LENGTH + length); // no memory is used before it is filled
    this._frame.copy(frame);
    this._frame = frame;
    this._known = true;
  }
}

module.exports = {
  Assembler,
  FAILURE,
  IMPORTING,
  LENGTH,
  MAX_EXPLANATION,
  MAX_MESSAGE,
  READY,
  SPENT,
  SUCCESS,
  birth,
  call,
  explanation,
  parseCall,
  parseReport,
  report,
};
