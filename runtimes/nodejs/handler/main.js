'use strict';
// The handler process: runs the user's function, one call after the other.
//
// The supervisor starts it, tells it over the channel what to import, and then sends calls.

const { Socket } = require('net');

const frames = require('../frames');
const entry = require('./entry');
const { Output } = require('./output');

const CHANNEL = 3;
const NEVER = new Int32Array(new SharedArrayBuffer(4));
const KEPT = ['PATH', 'HOME', 'LANG', 'TMPDIR', 'FUNCPLAT_HANDLER'];
const OWN = [
  __filename,
  require.resolve('../frames'),
  require.resolve('./entry'),
  require.resolve('./output'),
];

/** Imports the function, then answers calls. */
class Handler {
  constructor(channel, output) {
    this._channel = channel;
    this._output = output;
    this._frames = new frames.Assembler(0xffffffff);
    this._revision = null;
    this._function = null;
    this._sequence = frames.IMPORTING;
    this._startedAt = null; // ms; null: nothing runs
  }

  /** Take what the supervisor sends. */
  receive(data) {
    const frame = this._frames.add(data);
    if (frame === null) return;
    if (this._revision === null) this._import(JSON.parse(frame.subarray(frames.LENGTH)));
    else this._one(frames.parseCall(frame));
  }

  /** An exception that nobody caught, or a rejection. */
  uncaught(error) {
    if (this._startedAt === null)
      leave(); // nobody could be told
    else this._fail(this._sequence, error, frames.SPENT); // what state it left the process in, nobody knows
  }

  /** The event loop has nothing to do any more. */
  ranEmpty() {
    if (this._startedAt !== null)
      this._fail(this._sequence, entry.neverSettled(this._sequence === frames.IMPORTING));
  }

  async _import(revision) {
    this._revision = revision;
    this._begin(frames.IMPORTING);
    try {
      prepare(revision);
      const seen = (file) => (process.argv = [process.execPath, file]);
      this._function = await entry.find(revision.path, revision.entry, seen);
    } catch (error) {
      this._fail(frames.IMPORTING, error);
      return;
    }
    this._report(frames.IMPORTING, frames.READY, {});
  }

  async _one({ sequence, execution, body }) {
    this._begin(sequence);
    let result;
    let duration;
    try {
      const { functionId, functionVersion, maxResult } = this._revision;
      const input = entry.decode(body);
      const run = this._function;
      this._startedAt = performance.now();
      const value = await run({ executionId: execution, functionId, functionVersion }, input);
      if (this._startedAt === null) return; // it has failed already
      duration = (performance.now() - this._startedAt) / 1000;
      result = entry.encode(value, maxResult);
    } catch (error) {
      this._fail(sequence, error);
      return;
    }
    this._report(sequence, frames.SUCCESS, { result, duration });
  }

  _begin(sequence) {
    this._sequence = sequence;
    this._startedAt = performance.now();
    this._output.wanted = true;
    this._channel.unref(); // so that an event loop which waits for nothing else runs empty
  }

  _fail(sequence, error, flags = 0) {
    if (this._startedAt === null || sequence !== this._sequence) return; // told before
    const duration = (performance.now() - this._startedAt) / 1000;
    if (!(error instanceof entry.Failure)) this._output.write(Buffer.from(entry.trace(error)));
    const { text, reason, message } = entry.explain(error, sequence === frames.IMPORTING);
    const result = frames.explanation(text);
    this._report(sequence, frames.FAILURE, { result, reason, message, duration, flags });
  }

  _report(sequence, kind, { flags = 0, ...fields }) {
    if (this._startedAt === null || sequence !== this._sequence) return;
    this._startedAt = null;
    this._output.wanted = false;
    this._channel.ref();
    const spent = this._output.intact ? 0 : frames.SPENT;
    this._channel.write(frames.report(sequence, kind, { ...fields, flags: flags | spent }));
  }
}

/** Make the process the function's: its environment, and nothing of the platform's in its way. */
function prepare(revision) {
  for (const name of Object.keys(process.env)) {
    if (!KEPT.includes(name)) delete process.env[name];
  }
  const { FUNCPLAT_HANDLER } = process.env;
  Object.assign(process.env, revision.environment, { FUNCPLAT_HANDLER });
  for (const file of OWN) delete require.cache[file];
  process.mainModule = undefined;
}

/** End without a trace of it in the user's own exit handlers. */
function leave() {
  process.kill(process.pid, 'SIGKILL');
}

function main() {
  const channel = new Socket({ fd: CHANNEL, readable: true, writable: true });
  const output = new Output();
  output.install();
  const handler = new Handler(channel, output);
  channel.on('data', (data) => handler.receive(data));
  channel.on('end', leave); // the supervisor is gone
  channel.on('error', (error) => {
    // Where the function closed it, the supervisor notices and ends this process.
    if (error.code === 'EBADF') Atomics.wait(NEVER, 0, 0);
    leave();
  });
  process.on('uncaughtException', (error) => handler.uncaught(error));
  process.on('beforeExit', () => handler.ranEmpty());
}

main();
