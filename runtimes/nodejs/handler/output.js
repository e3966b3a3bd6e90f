'use strict';
// process.stdout and process.stderr of functions.

const { fstatSync, writeSync } = require('fs'); // as they are now: a function may put others in their place
const { Writable } = require('stream');

const LOG = 1; // the descriptor of the log; 2 is the same

/** Where both streams end: written at once, so that nothing is lost when the process ends, and in order. */
class Output {
  constructor() {
    this.wanted = false; // an execution runs; what is written between executions belongs to none
    this._broken = false;
    this._identity = fstatSync(LOG).ino;
  }

  /** Make it process.stdout and process.stderr. */
  install() {
    for (const [name, fd] of [
      ['stdout', 1],
      ['stderr', 2],
    ]) {
      const stream = new Stream(this, fd);
      Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => stream });
    }
  }

  write(data) {
    if (!this.wanted) return;
    try {
      for (let sent = 0; sent < data.length;) sent += write(data, sent);
    } catch {
      this._broken = true; // the function closed it
    }
  }

  /** Whether it still leads to the log. */
  get intact() {
    try {
      return !this._broken && fstatSync(LOG).ino === this._identity;
    } catch {
      return false;
    }
  }
}

const cell = new Int32Array(new SharedArrayBuffer(4));

function write(data, from) {
  try {
    return writeSync(LOG, data, from);
  } catch (error) {
    if (error.code !== 'EAGAIN') throw error;
    // A child made the socket, which it shares with us, non-blocking; Node.js cannot wait for one descriptor.
    Atomics.wait(cell, 0, 0, 1);
    return 0;
  }
}

/** Like the original: never ends. */
class Stream extends Writable {
  constructor(output, fd) {
    super({ decodeStrings: true, autoDestroy: false });
    this.fd = fd;
    this._output = output;
  }

  _write(data, _encoding, done) {
    this._output.write(data);
    done();
  }

  end(...args) {
    if (args.length && typeof args[0] !== 'function') this.write(args[0]);
    return this;
  }

  destroy() {
    return this;
  }
}

module.exports = { Output };
