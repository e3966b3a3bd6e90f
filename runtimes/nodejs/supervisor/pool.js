'use strict';
// The handlers of a worker, and which of them runs which call.

const counters = require('./counters');
const { Handler } = require('./handlers');
const http = require('./http');
const { Log } = require('./log');
const { Tree } = require('./tree');
const verdicts = require('./verdicts');

// Age at which the kernel's counters are read again when a call begins, in ms. What they show at a failure is
// held against the last reading, so this is how far back a refused fork or a kill may lie that a failure is
// blamed on.
const SAMPLE = 50;
const SWEEP = 10; // ms before another try to kill what did not die at once
const CLEARING = 1000; // ms at most that calls wait for a killed handler and what it left to be gone

/** Keeps at most `concurrency` handlers; makes one only when a call finds none idle. */
class Pool {
  constructor(surroundings) {
    this.revision = null;
    this.busy = 0; // calls that run or wait for a handler
    this.host = surroundings;
    this._handlers = new Map(); // by pid, the dying ones too
    this.tree = new Tree(this._handlers);
    this._idle = []; // the last used is last, and taken first: its caches are warm
    this._waiting = []; // calls, for a handler to be gone
    this._importFailure = null; // {outcome, log}
    this._oomKills = counters.oomKills(surroundings.oomKills);
    this._pidsHits = counters.pidsHits(surroundings.pidsHits);
    this._sampled = { at: -Infinity, oomKills: 0, pidsHits: 0 };
    this._sweeper = null;
    this._clear = true; // nothing of a killed handler is left
    this._clearBy = 0; // when that is assumed, in ms
    this._spawned = 0; // handlers so far
    // No other worker's, also where one sees the processes of several pid namespaces.
    this._name = `${process.pid}-${Math.floor(performance.timeOrigin)}`;
    this.sample(performance.now());
    this._blank = this._spawn({}); // a process that is ready for what /load brings
  }

  /** Take the revision that /load brought, and import it. */
  load(revision) {
    this.revision = revision;
    const blank = this._blank;
    this._blank = null;
    // Node.js reads these variables when it starts.
    const fresh = Object.keys(revision.environment).some((name) => name.startsWith('NODE_'));
    if (blank?.isBlank && !fresh) {
      blank.serve(revision);
      return;
    }
    blank?.discard();
    this._spawnFor(null);
  }

  /** Run a call {connection, execution, timeout (seconds), body} and answer on its connection. */
  run(call) {
    this.busy++;
    if (this._idle.length) this._idle.pop().begin(call);
    else this._place(call);
  }

  /** Run a call again that its handler has not read. Only once: more often, the function has a hand in it. */
  repeat(call) {
    call.again = true;
    if (this._idle.length) this._idle.pop().begin(call);
    else this._place(call);
  }

  /** A call has ended; `duration` in seconds. */
  finish(call, outcome, log, duration) {
    this.busy--;
    call.connection.answer(http.executed(outcome, log, duration));
  }

  /** The output so far of an execution that runs here; null where there is none. */
  outputOf(execution) {
    for (const handler of this._handlers.values()) {
      if (handler.call?.execution === execution) {
        handler.drain();
        return handler.log;
      }
    }
    return this._waiting.some((call) => call.execution === execution) ? new Log(0) : null;
  }

  /** Kill an execution that runs here, and answer its call; false where there is none. */
  cancel(execution) {
    const index = this._waiting.findIndex((call) => call.execution === execution);
    if (index >= 0) {
      const [call] = this._waiting.splice(index, 1);
      this.finish(call, verdicts.cancelled(), new Log(0), 0);
      return true;
    }
    const handler = [...this._handlers.values()].find((each) => each.call?.execution === execution);
    if (handler === undefined) return false;
    if (!handler.cancel()) {
      // it waits for an import, which goes on: others will need it
      const { call } = handler;
      handler.call = null;
      this.finish(call, verdicts.cancelled(), new Log(0), 0);
    }
    return true;
  }

  /** Kill every handler and all that they started. */
  end() {
    for (const handler of this._handlers.values()) {
      this.tree.kill(handler);
      this.tree.ended(handler);
    }
    this._handlers.clear();
    this.tree.sweep();
  }

  // -- called by handlers ---------------------------------------------------------------------------

  /** A handler can take a call. */
  free(handler) {
    if (this._waiting.length) handler.begin(this._waiting.shift());
    else this._idle.push(handler);
  }

  /** A handler is to take no further call. */
  withdraw(handler) {
    this._idle = this._idle.filter((each) => each !== handler);
  }

  /** An import failed for which no call waited: the next call gets to know. */
  importFailed(outcome, log) {
    if (this.revision !== null) this._importFailure = { outcome, log };
  }

  /** Kill a handler with all that it started. */
  kill(handler) {
    this._clear = false;
    this._clearBy = performance.now() + CLEARING;
    this.tree.kill(handler);
    this._sweepLater();
  }

  /** A handler is dead and reaped. */
  gone(handler) {
    this._handlers.delete(handler.pid);
    if (this._blank === handler) this._blank = null;
    this.tree.ended(handler);
    this._clearBy = performance.now() + CLEARING;
    this._sweep();
  }

  /** Remember what the kernel has counted so far, unless it was asked just now. */
  sample(now) {
    if (now - this._sampled.at > SAMPLE) {
      this._sampled = { at: now, oomKills: this._oomKills.read(), pidsHits: this._pidsHits.read() };
    }
  }

  /** Whether the kernel killed for memory, and whether it refused forks, since the last sample. */
  counted() {
    return {
      oomKilled: this._oomKills.read() > this._sampled.oomKills,
      pidsRefused: this._pidsHits.read() > this._sampled.pidsHits,
    };
  }

  // -- own ------------------------------------------------------------------------------------------

  _place(call) {
    if (this._importFailure !== null) {
      const { outcome, log } = this._importFailure;
      this._importFailure = null;
      this.finish(call, outcome, log, 0);
      return;
    }
    const importing = [...this._handlers.values()].find((each) => each.takesFirstCall);
    if (importing !== undefined) importing.call = call;
    else if (this._clear && this._handlers.size < this.revision.concurrency) this._spawnFor(call);
    else this._waiting.push(call); // one of them is dying, or what it left still counts as processes
  }

  _spawnFor(call) {
    const handler = this._spawn(this.revision.environment, (error) => {
      const outcome = verdicts.notStarted(error, this.counted().pidsRefused);
      // Where nobody waits for it yet, the first call tries again.
      if (call !== null) this.finish(call, outcome, new Log(0), 0);
    });
    if (handler === null) return;
    handler.call = call;
    handler.serve(this.revision);
  }

  /** A new handler process, or null; then `failed(error)` is called. */
  _spawn(environment, failed = () => {}) {
    const handler = Handler.spawn(this, `${this._name}-${++this._spawned}`, environment, failed);
    if (handler !== null) this._handlers.set(handler.pid, handler);
    return handler;
  }

  _sweepLater() {
    clearTimeout(this._sweeper);
    this._sweeper = setTimeout(() => this._sweep(), SWEEP);
  }

  _sweep() {
    clearTimeout(this._sweeper);
    const swept = this.tree.sweep();
    const dying = [...this._handlers.values()].some((each) => each.isDying);
    this._clear = (swept && !dying && this.tree.isBuried) || performance.now() > this._clearBy;
    if (!swept || !this._clear) this._sweepLater();
    if (this._clear) this._waiting.splice(0).forEach((call) => this._place(call));
  }
}

module.exports = { Pool };
