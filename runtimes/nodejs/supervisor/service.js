'use strict';
// The requests of the worker protocol.

const fs = require('fs');
const path = require('path');

const { Memory, Skip, Upload } = require('./bodies');
const { Connection } = require('./connection');
const http = require('./http');
const load = require('./load');
const { Pool } = require('./pool');
const { unpack } = require('./unzip');

const MAX_CONNECTIONS = 512; // beyond, one that has never shown the secret gives way
const EXECUTION = /^[A-Za-z0-9_-]{1,64}$/;
const TIMEOUT = /^[0-9]{1,9}(?:\.[0-9]{1,9})?$/;
const LOG = /^execution=([A-Za-z0-9_-]{1,64})(?:&offset=([0-9]{1,15}))?$/;
const METHODS = new Map([
  ['/ready', 'GET'],
  ['/load', 'POST'],
  ['/invoke', 'POST'],
  ['/log', 'GET'],
  ['/cancel', 'POST'],
  ['/drain', 'POST'],
]);

// paths that have a query
const ASKED = new Set(['/log', '/cancel']);

/** Answers requests; the application of every Connection. */
class Service {
  constructor(surroundings) {
    this._host = surroundings;
    this._connections = new Set();
    this._loading = false;
    this._draining = false;
    this._loaded = false;
    this._secret = Buffer.alloc(0);
    this._concurrency = surroundings.concurrency;
    this._pool = new Pool(surroundings);
  }

  // -- connections ----------------------------------------------------------------------------------

  /** A client has connected. */
  accept(socket) {
    if (this._connections.size >= MAX_CONNECTIONS) {
      const [oldest] = this._connections;
      const victim = [...this._connections].find((each) => !each.trusted) ?? oldest;
      this._connections.delete(victim);
      victim.close();
    }
    this._connections.add(new Connection(socket, this));
  }

  closed(connection) {
    this._connections.delete(connection);
  }

  /** Kill everything that runs. */
  end() {
    this._pool.end();
  }

  // -- requests -------------------------------------------------------------------------------------

  serve(connection, { line, headers }, body) {
    if (line === 'POST /invoke') {
      const refusal = this._judgeInvoke(connection, headers);
      if (refusal === null) this._invoke(connection, headers, body);
      else connection.answer(refusal);
    } else if (line === 'POST /load') {
      const sink = this._receivePackage(body.length);
      sink.write(body);
      sink.done(connection);
    } else if (body.length) {
      connection.refuse(400, 'this request has no body');
    } else {
      connection.answer(this._answer(connection, line, headers));
    }
  }

  receive(connection, { line, headers, length }) {
    if (line === 'POST /invoke' && length <= http.MAX_INPUT) {
      const refusal = this._judgeInvoke(connection, headers);
      if (refusal !== null) return new Skip(refusal);
      return new Memory((sender, body) => this._inputReceived(sender, headers, body));
    }
    if (line === 'POST /load' && length <= http.MAX_LOAD) return this._receivePackage(length);
    if (line === 'POST /invoke' || line === 'POST /load') {
      connection.refuse(413, 'the body is larger than a worker takes');
    } else {
      connection.refuse(400, 'this request has no body');
    }
    return null;
  }

  _answer(connection, line, headers) {
    const [method, target] = line.split(' ');
    const mark = target.indexOf('?');
    const [place, query] = mark < 0 ? [target, ''] : [target.slice(0, mark), target.slice(mark + 1)];
    if (!METHODS.has(place) || (query && !ASKED.has(place))) return http.answer(404, 'no such path');
    if (METHODS.get(place) !== method) return http.answer(405, 'wrong method');
    if (place === '/ready') return this._ready();
    const refusal = this._judge(connection, headers);
    if (refusal !== null) return refusal;
    if (place === '/cancel') return this._cancel(query);
    return place === '/drain' ? this._drain() : this._log(query);
  }

  _ready() {
    const state = this._draining ? 'draining' : this._loaded ? 'loaded' : 'blank';
    return http.answer(200, JSON.stringify({ state, busy: this._pool.busy, concurrency: this._concurrency }));
  }

  _drain() {
    this._draining = true;
    return http.answer(200);
  }

  _log(query) {
    const fields = LOG.exec(query);
    if (fields === null) return http.answer(400, 'the query is not execution=ID&offset=N');
    const log = this._pool.outputOf(fields[1]);
    if (log === null) return http.answer(404, 'no such execution runs here');
    const dropped = log.dropped ? `x-log-dropped: ${log.dropped}\r\n` : '';
    return http.answer(200, log.bytes(Number(fields[2] ?? 0)), dropped);
  }

  _cancel(query) {
    const fields = LOG.exec(query);
    if (fields === null) return http.answer(400, 'the query is not execution=ID');
    return http.answer(200, JSON.stringify({ cancelled: this._pool.cancel(fields[1]) }));
  }

  // -- invoke ---------------------------------------------------------------------------------------

  _judge(connection, headers) {
    if (!this._loaded) return http.answer(409, 'nothing is loaded yet');
    if (!equal(Buffer.from(headers.get('x-secret') ?? '', 'latin1'), this._secret)) {
      return http.answer(403, 'x-secret is wrong');
    }
    connection.trusted = true;
    return null;
  }

  _judgeInvoke(connection, headers) {
    const refusal = this._judge(connection, headers);
    if (refusal !== null) return refusal;
    if (this._draining) return http.answer(503, 'the worker drains');
    if (this._pool.busy >= this._concurrency) return http.answer(429, 'as many executions run as may');
    if (!EXECUTION.test(headers.get('x-execution') ?? '')) {
      return http.answer(400, 'x-execution is missing or malformed');
    }
    const timeout = headers.get('x-timeout') ?? '';
    if (!TIMEOUT.test(timeout) || Number(timeout) <= 0) {
      return http.answer(400, 'x-timeout is not a positive decimal');
    }
    return null;
  }

  _invoke(connection, headers, body) {
    this._pool.run({
      connection,
      execution: headers.get('x-execution'),
      timeout: Number(headers.get('x-timeout')), // seconds
      body,
    });
  }

  _inputReceived(connection, headers, body) {
    // Judged again: others may have taken the room while the body came in.
    const refusal = this._judgeInvoke(connection, headers);
    if (refusal !== null) connection.answer(refusal);
    else this._invoke(connection, headers, body);
  }

  // -- load -----------------------------------------------------------------------------------------

  _receivePackage(length) {
    if (this._loading || this._loaded) {
      return new Skip(http.answer(409, 'a worker serves one revision for its life'));
    }
    this._loading = true;
    return new Upload(length, path.dirname(this._host.codeDir), this);
  }

  /** The upload broke off. */
  abandoned() {
    this._loading = false;
  }

  /** The upload could not be kept. */
  failed(connection, error) {
    this._loading = false;
    connection.answer(unusable(`the package cannot be stored: ${error.message}`));
  }

  /** The body of /load is here. */
  async loaded(connection, upload) {
    let line;
    try {
      line = await this._take(upload);
    } catch (error) {
      if (!(error instanceof load.LoadError)) throw error;
      connection.answer(unusable(error.message));
      return;
    } finally {
      upload.close();
      this._loading = false;
    }
    this._secret = line.secret;
    this._concurrency = line.revision.concurrency;
    this._loaded = true;
    this._pool.load(line.revision);
    connection.trusted = true;
    connection.answer(http.answer(200));
  }

  async _take(upload) {
    const line = firstLine(upload);
    const parsed = load.parseLine(line, this._host.concurrency, this._host.carried);
    const start = line.length + 1;
    const given = parsed.revision.path;
    if (given === null) {
      if (start === upload.length) throw new load.LoadError('there is neither a path nor a package');
      await unpack(upload, start, this._host.codeDir);
      parsed.revision.path = this._host.codeDir;
    } else if (start !== upload.length) {
      throw new load.LoadError('there is a path and a package');
    } else if (!isDirectory(given)) {
      throw new load.LoadError(`'${given}' is not a directory of this worker`);
    }
    return parsed;
  }
}

function firstLine(upload) {
  const data = upload.read(0, load.MAX_LINE);
  const end = data.indexOf('\n');
  if (end < 0) throw new load.LoadError(`the first line is longer than ${load.MAX_LINE} bytes or has no end`);
  return data.subarray(0, end);
}

function isDirectory(place) {
  return fs.statSync(place, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function unusable(message) {
  return http.answer(400, JSON.stringify({ message }));
}

/** Whether two Buffers are alike, in a time that tells nothing of the second. */
function equal(given, secret) {
  // Not of the crypto module, which would cost every worker the memory of OpenSSL.
  let difference = given.length ^ secret.length;
  for (let index = 0; index < given.length; index++)
    difference |= given[index] ^ secret[index % secret.length];
  return difference === 0;
}

module.exports = { Service };
