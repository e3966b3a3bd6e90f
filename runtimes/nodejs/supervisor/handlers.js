'use strict';
// The supervisor's view of one handler process: its life, deadline, output and verdict.

const childProcess = require('child_process');
const fs = require('fs');
const os = require('os');
const path = require('path');

const frames = require('../frames');
const { Log } = require('./log');
const { MARK } = require('./tree');
const verdicts = require('./verdicts');

// Node.js cannot put both streams of a child on one pipe, which keeps their order; a shell can. And when the
// worker's memory is used up the kernel shall kill a handler, also one that only starts, not the supervisor.
const SHELL = 'echo 1000 >/proc/self/oom_score_adj; exec "$@" 2>&1';
const PROGRAM = path.join(__dirname, '..', 'handler', 'main.js');
const HEAP_SHARE = 0.75; // of the worker's memory; the rest is code, buffers and the other processes
const MIB = 1024 * 1024;
const BUFFER = Buffer.alloc(64 * 1024);
// Bytes that are taken from a socket at once at most: more than it holds, less than a flood.
const DRAIN = 512 * 1024;
// Time for a handler whose channel is closed to turn out to be dead, which is what that mostly means; ms.
const SEVERED = 1000;
// Bytes of a report beyond the largest result: a failure's text may be longer.
const SLACK = frames.MAX_MESSAGE + frames.MAX_EXPLANATION;
const UNREAD = ['ECONNRESET', 'EPIPE']; // of a socket whose other end was closed before all was read there
const LONGEST = 2 ** 31 - 1; // ms that a timer of Node.js can take

const State = { BLANK: 0, IMPORTING: 1, IDLE: 2, BUSY: 3, DYING: 4 }; // dying: killed or dead, not reaped yet

/** One handler process. Whatever comes from it may be a lie of user code. */
class Handler {
  /** Start a process; null where that fails, and `failed(error)` is called. */
  static spawn(pool, mark, environment, failed) {
    let child;
    try {
      child = start(pool.host, { [MARK]: mark, ...variables(pool.host), ...environment, [MARK]: mark });
    } catch (error) {
      failed(error);
      return null;
    }
    if (child.pid === undefined) {
      child.once('error', failed);
      return null;
    }
    return new Handler(pool, child, mark);
  }

  constructor(pool, child, mark) {
    this.pid = child.pid;
    this.mark = mark;
    this.state = State.BLANK;
    this.call = null;
    this.log = new Log(0);
    this._pool = pool;
    this._child = child;
    [, this._output, , this._channel] = child.stdio;
    this._frames = new frames.Assembler(0);
    this._sequence = frames.IMPORTING;
    this._startedAt = 0; // ms
    this._timer = null;
    this._fresh = true; // its log still holds what the import wrote
    this._severed = false; // its end of the channel is closed
    this._mute = false; // its output is closed
    this._deaf = false; // it has not read all that was sent to it, and never will
    this.exited = false;
    this._listen();
  }

  _listen() {
    this._output.on('data', (data) => this._written(data));
    this._output.on('end', () => (this._mute = true));
    this._channel.on('data', (data) => this._receive(data));
    this._channel.on('end', () => this._sever());
    // What a write or read of a dead handler's sockets says, its end says better.
    this._output.on('error', () => (this._mute = true));
    this._channel.on('error', (error) => {
      this._deaf ||= UNREAD.includes(error.code);
      this._sever();
    });
    this._child.on('error', () => this._sever());
    this._child.once('exit', (code, signal) => this._exited(code, signal));
  }

  /** Whether it waits for a revision. */
  get isBlank() {
    return this.state === State.BLANK && !this._severed;
  }

  /** Whether it was killed, or has died, and is not reaped yet. */
  get isDying() {
    return this.state === State.DYING;
  }

  /** Whether it still imports and no call waits for that. */
  get takesFirstCall() {
    return this.state === State.IMPORTING && this.call === null;
  }

  /** Import this revision. */
  serve(revision) {
    this.state = State.IMPORTING;
    this.log = new Log(revision.maxLog);
    this._frames = new frames.Assembler(revision.maxResult + SLACK);
    this._startedAt = performance.now();
    this._expireIn(revision.importTimeout);
    const { entry, path, maxResult, environment, functionId, functionVersion } = revision;
    this._channel.write(frames.birth({ entry, path, maxResult, environment, functionId, functionVersion }));
  }

  /** End it; it has run nothing. */
  discard() {
    this._kill();
  }

  /** Run a call; the handler is idle. */
  begin(call) {
    this._startedAt = performance.now();
    this._pool.sample(this._startedAt);
    if (this._fresh) {
      this._fresh = false;
    } else {
      this.drain(); // what was written between calls belongs to none
      while (this._output.read() !== null);
      this.log = new Log(this._pool.revision.maxLog);
    }
    if (this._output.isPaused()) this._output.resume();
    this.call = call;
    this.state = State.BUSY;
    this._sequence = (this._sequence % 0xffffffff) + 1;
    this._expireIn(call.timeout);
    this._channel.write(frames.call(this._sequence, call.execution, call.body));
  }

  /** Kill what it runs; false: its call was not begun. */
  cancel() {
    if (this.state !== State.BUSY) return false;
    this._kill();
    this._fail(verdicts.cancelled(), this._elapsed());
    return true;
  }

  /** Move what was written so far to the log. */
  drain() {
    take(this._output, (data) => this.log.write(data));
  }

  // -- events ---------------------------------------------------------------------------------------

  _written(data) {
    if (this.state === State.IMPORTING || this.state === State.BUSY) {
      this.log.write(data);
    } else if (this.state === State.IDLE) {
      // Output outside an execution is dropped, and what follows is not read before the next call, so that
      // who goes on printing blocks instead of keeping the supervisor busy.
      this._output.pause();
    }
  }

  _receive(data) {
    if (this.state === State.DYING) return;
    let frame;
    try {
      frame = this._frames.add(data);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this._break('sent something that is not a report of its execution');
      return;
    }
    if (frame === null) return;
    const report = frames.parseReport(frame);
    if (report === null) this._break('sent something that is not a report of its execution');
    else this._report(report);
  }

  _exited(code, signal) {
    this.exited = true;
    const running = () => this.state === State.IMPORTING || this.state === State.BUSY;
    // A report may have come right before the end.
    if (running()) this._deaf ||= take(this._channel, (data) => this._receive(data));
    // One that was idle may have died right before it was given a call, which then nobody has begun.
    const unheard = this._deaf && this.state === State.BUSY && !this.call.again ? this.call : null;
    if (unheard !== null) this.call = null;
    else if (running()) this._died(code, signal);
    if (this.state === State.IDLE) this._pool.withdraw(this);
    this.state = State.DYING;
    clearTimeout(this._timer);
    this._output.destroy();
    this._channel.destroy();
    this._pool.gone(this);
    if (unheard !== null) this._pool.repeat(unheard);
  }

  // -- reports --------------------------------------------------------------------------------------

  _report(report) {
    const { sequence, kind } = report;
    if (this.state === State.IMPORTING && sequence === frames.IMPORTING && kind === frames.READY) {
      if (!this.exited) this._ready();
    } else if (this.state === State.IMPORTING && sequence === frames.IMPORTING && kind === frames.FAILURE) {
      this._kill();
      this._fail(reported(report), 0);
    } else if (
      this.state === State.BUSY &&
      sequence === this._sequence &&
      (kind === frames.SUCCESS || kind === frames.FAILURE)
    ) {
      this._result(report);
    } else {
      this._break('sent a report that nobody waits for');
    }
  }

  _ready() {
    clearTimeout(this._timer);
    this.state = State.IDLE;
    if (this.call !== null) {
      this.begin(this.call);
    } else {
      this.drain();
      this._pool.free(this);
    }
  }

  _result(report) {
    const elapsed = this._elapsed();
    const duration = report.duration >= 0 && report.duration <= elapsed ? report.duration : elapsed;
    clearTimeout(this._timer);
    this.drain();
    const left = !this.exited && this._pool.tree.hasOthers(this);
    const { call, log } = this;
    this.call = null;
    if (left || report.flags || this._mute) this._kill();
    else this.state = State.IDLE;
    const outcome =
      report.kind === frames.SUCCESS
        ? verdicts.succeeded(report.result, verdicts.remark(left, log))
        : this._blame(reported(report));
    this._pool.finish(call, outcome, log, duration);
    if (this.state === State.IDLE && !this.exited) this._pool.free(this);
  }

  /** The outcome, with what the kernel counted meanwhile as its reason where that explains it. */
  _blame(outcome) {
    if (!['function_raised', 'import_failed', 'timeout'].includes(outcome.reason)) return outcome;
    const { oomKilled, pidsRefused } = this._pool.counted();
    if (pidsRefused) return verdicts.withPidsRefused(outcome);
    if (oomKilled && outcome.reason !== 'timeout') return verdicts.withOomKill(outcome);
    return outcome;
  }

  // -- ends -----------------------------------------------------------------------------------------

  /** The channel is at its end: the handler is dead, which its exit will tell, or closed it. */
  _sever() {
    if (this._severed || this.state === State.DYING) return;
    this._severed = true;
    if (this.state === State.IDLE || this.state === State.BLANK) this._break('');
    else this._timer = this._after(SEVERED);
  }

  _expire() {
    if (this.state === State.DYING) return;
    if (this._severed) {
      this._break('closed the channel on which results are returned');
      return;
    }
    const { revision } = this._pool;
    const importing = this.state === State.IMPORTING;
    const outcome = importing
      ? verdicts.importTimedOut(revision.importTimeout, revision.entry)
      : verdicts.timedOut(this.call.timeout);
    const duration = importing ? 0 : this._elapsed();
    this._kill();
    this._fail(this._blame(outcome), duration);
  }

  _died(code, signal) {
    const importing = this.state === State.IMPORTING;
    this.drain();
    const heapExhausted = signal !== null && this.log.tellsOfMemory;
    const outcome = verdicts.died({ code, signal, importing, heapExhausted, ...this._pool.counted() });
    this.state = State.DYING;
    this._fail(outcome, importing ? 0 : this._elapsed());
  }

  /** User code meddled with the channel. */
  _break(what) {
    const running = this.state === State.IMPORTING || this.state === State.BUSY;
    this._kill();
    if (running) this._fail(verdicts.hijacked(what), this._elapsed());
  }

  _fail(outcome, duration) {
    const { call, log } = this;
    this.call = null;
    if (call !== null) this._pool.finish(call, outcome, log, duration);
    else this._pool.importFailed(outcome, log);
  }

  /** Kill the process tree and take its last output; `_exited` comes when it is dead. */
  _kill() {
    if (this.state === State.IDLE) this._pool.withdraw(this);
    this.state = State.DYING;
    clearTimeout(this._timer);
    if (this.exited) return;
    this._pool.kill(this);
    this.drain();
  }

  /** Seconds since the call, or the import, began. */
  _elapsed() {
    return (performance.now() - this._startedAt) / 1000;
  }

  _expireIn(seconds) {
    this._timer = this._after(Math.min(seconds * 1000, LONGEST));
  }

  _after(milliseconds) {
    clearTimeout(this._timer);
    return setTimeout(() => this._expire(), milliseconds);
  }
}

function start(host, env) {
  const command = ['-c', SHELL, 'sh', process.execPath, ...flags(host.memory), PROGRAM];
  return childProcess.spawn('/bin/sh', command, {
    cwd: host.scratch,
    detached: true, // a session of its own, which `tree` counts on
    env,
    stdio: ['ignore', 'pipe', 'ignore', 'pipe'],
    ...host.user,
  });
}

/**
 * Options of V8. `memory`: bytes of the whole worker, or null: then the kernel alone says when there is no
 * more.
 */
function flags(memory) {
  const heap = memory === null ? os.totalmem() : Math.max(8 * MIB, memory * HEAP_SHARE);
  // New objects live in three of these; by itself V8 takes up to 96 MiB for them.
  const semiSpace = memory === null ? 4 : Math.min(16, Math.max(1, memory / (32 * MIB)));
  return [
    `--max-old-space-size=${Math.floor(heap / MIB)}`,
    `--max-semi-space-size=${Math.floor(semiSpace)}`,
    '--v8-pool-size=1', // threads, each of which counts against the worker's processes
  ];
}

/** The environment of every function. */
function variables(host) {
  return { PATH: '/usr/local/bin:/usr/bin:/bin', HOME: host.scratch, LANG: 'C.UTF-8', TMPDIR: host.scratch };
}

/**
 * Read what a socket holds now, past its events. Node.js has no public way to ask that; `_handle` is what
 * there is. Returns whether the other end was closed before all was read there.
 */
function take(socket, see) {
  for (let room = DRAIN; room > 0;) {
    const descriptor = socket._handle?.fd ?? -1;
    if (descriptor < 0) return false;
    let length;
    try {
      length = fs.readSync(descriptor, BUFFER, 0, BUFFER.length, null);
    } catch (error) {
      if (error.code === 'EAGAIN' || error.code === 'ECONNRESET') return error.code === 'ECONNRESET';
      throw error;
    }
    if (length === 0) return false;
    see(BUFFER.subarray(0, length));
    room -= length;
  }
  return false;
}

function reported({ result, reason, message }) {
  return { success: false, result, reason, message };
}

module.exports = { Handler };
