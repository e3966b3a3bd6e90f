'use strict';
// Where the bodies of longer requests go while they come in.

const fs = require('fs');
const path = require('path');
const { Readable } = require('stream');

const IN_MEMORY = 1024 * 1024; // bytes of a /load body that are kept in memory

/** Nowhere: the answer is known before the body is here, but the connection shall stay usable. */
class Skip {
  constructor(answer) {
    this._answer = answer;
  }

  write() {}

  done(connection) {
    connection.answer(this._answer);
  }

  abandon() {}
}

/** An input longer than what came with its head. */
class Memory {
  constructor(done) {
    this._done = done;
    this._chunks = [];
  }

  write(data) {
    this._chunks.push(data);
  }

  done(connection) {
    this._done(connection, Buffer.concat(this._chunks));
  }

  abandon() {
    this._chunks = [];
  }
}

/**
 * The body of /load. A long one goes to a file that nobody else can open: it may be larger than the worker's
 * memory bears. `taker` has loaded(connection, upload), which closes it, abandoned() and failed(connection,
 * error).
 */
class Upload {
  constructor(length, directory, taker) {
    this._taker = taker;
    this._error = null;
    this._file = -1; // descriptor
    this._chunks = []; // where there is no file
    this.length = 0; // bytes that have come
    if (length <= IN_MEMORY) return;
    try {
      this._file = nameless(directory);
    } catch (error) {
      this._error = error;
    }
  }

  write(data) {
    if (this._error !== null) return;
    this.length += data.length;
    try {
      if (this._file < 0) this._chunks.push(data);
      else writeAll(this._file, data);
    } catch (error) {
      this._error = error;
    }
  }

  done(connection) {
    if (this._error === null) {
      this._taker.loaded(connection, this);
    } else {
      this.close();
      this._taker.failed(connection, this._error);
    }
  }

  abandon() {
    this.close();
    this._taker.abandoned();
  }

  /** The bytes from `start` to `end`; fewer where it is shorter. */
  read(start, end) {
    if (this._file < 0) {
      if (this._chunks.length > 1) this._chunks = [Buffer.concat(this._chunks)];
      return this._chunks.length ? this._chunks[0].subarray(start, end) : Buffer.alloc(0);
    }
    const data = Buffer.alloc(Math.max(0, Math.min(end, this.length) - start));
    return data.subarray(0, fs.readSync(this._file, data, 0, data.length, start));
  }

  /** The same as a readable stream. */
  stream(start, end) {
    if (this._file < 0) return Readable.from([this.read(start, end)]);
    return fs.createReadStream('', { fd: this._file, autoClose: false, start, end: end - 1 });
  }

  close() {
    if (this._file >= 0) fs.closeSync(this._file);
    this._file = -1;
    this._chunks = [];
  }
}

/** Write a whole Buffer to a descriptor. */
function writeAll(file, data) {
  for (let sent = 0; sent < data.length;) sent += fs.writeSync(file, data, sent);
}

function nameless(directory) {
  fs.mkdirSync(directory, { recursive: true });
  const name = path.join(directory, `.upload-${process.pid}`);
  const file = fs.openSync(name, 'wx+', 0o600);
  fs.unlinkSync(name);
  return file;
}

module.exports = { Memory, Skip, Upload, writeAll };
