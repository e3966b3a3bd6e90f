'use strict';
// Killing whole process trees, whatever the processes in them do.
//
// Node.js cannot make itself a subreaper, so a process whose parent has ended becomes the child of an
// ancestor of the supervisor. Where the pid namespace holds nothing but the worker, all such orphans are the
// worker's. Elsewhere they are known by their session, or by the variable that each handler's environment has
// and its children inherit.

const fs = require('fs');

/** The environment variable by which a process tells which handler it comes from. */
const MARK = 'FUNCPLAT_HANDLER';
const PAGE = 4096;
const BUFFER = Buffer.alloc(16 * PAGE);
const MOST = 1024 * 1024; // characters that are read of one file
const PASSES = 200; // rounds of scanning at most, in one go; a fork bomb takes a few

class Tree {
  /** `handlers`: a Map of pid to {pid, mark}, of all that are not reaped yet. */
  constructor(handlers) {
    this._handlers = handlers;
    this._processes = scan();
    this._ancestors = new Set(chain(this._processes, process.pid));
    const alone = [...this._processes.keys()].every((pid) => pid === process.pid || this._ancestors.has(pid));
    this._alone = alone && (process.pid === 1 || this._ancestors.has(1));
    this._dead = new Map(); // handlers that ended, by pid, until nothing of them is left
    this._cleanAt = null; // what `lastPid` was when there was no process but handlers
  }

  /** Whether a handler has processes that live. Kills what belongs to no handler. */
  hasOthers(handler) {
    // PERF: a look at /proc/loadavg costs 15 us, one at every process 15 us each.
    const last = lastPid();
    if (last !== null && last === this._cleanAt) return false;
    this._processes = scan();
    const others = [...this._handlers.values()].filter((each) => this._below(each).length > 0);
    const clean = this._strays().length === 0 || this.sweep();
    this._cleanAt = others.length === 0 && clean ? last : null;
    return others.includes(handler);
  }

  /** Kill a handler with all that it started, so far as that can be told from others now. */
  kill(handler) {
    this._stop(() => [handler.pid, ...this._below(handler)]);
    signal(-handler.pid, 'SIGKILL');
  }

  /** A handler has ended; what it left is killed by the next `sweep`. */
  ended(handler) {
    this._dead.set(handler.pid, handler);
  }

  /** Kill what belongs to no handler. Returns whether nothing was left; else call it again a moment later. */
  sweep() {
    const clean = this._stop(() => this._strays());
    if (clean) this._dead.clear();
    return clean;
  }

  /** Whether at the last look whoever has to had waited for all that has ended; till then it counts. */
  get isBuried() {
    return !this._orphans().some((pid) => {
      const { parent, state } = this._processes.get(pid);
      return state === 'Z' && parent !== process.pid && this._isOurs(pid);
    });
  }

  /**
   * Stop all processes that `find` finds until it finds no new ones, then kill them: what is stopped cannot
   * fork.
   */
  _stop(find) {
    const stopped = new Set();
    for (let pass = 0; pass < PASSES; pass++) {
      this._processes = scan();
      const fresh = find().filter((pid) => !stopped.has(pid));
      if (fresh.length === 0) break;
      for (const pid of fresh) {
        stopped.add(pid);
        signal(pid, 'SIGSTOP');
      }
    }
    for (const pid of stopped) signal(pid, 'SIGKILL');
    return stopped.size === 0;
  }

  /** Living processes of a handler besides itself. */
  _below(handler) {
    const orphans = this._orphans().filter((pid) => this._comesFrom(pid, handler));
    return this._living([...orphans, ...this._descendants([handler.pid, ...orphans])]);
  }

  /** Living processes that belong to none of the handlers. */
  _strays() {
    const handlers = [...this._handlers.values()];
    const roots = this._orphans().filter(
      (pid) => this._isOurs(pid) && !handlers.some((handler) => this._comesFrom(pid, handler)),
    );
    return this._living([...roots, ...this._descendants(roots)]);
  }

  /** Processes whose parent may have ended: what has it now is the supervisor or an ancestor of it. */
  _orphans() {
    const adopts = (pid) => pid === process.pid || this._ancestors.has(pid);
    return [...this._processes]
      .filter(([pid, { parent }]) => adopts(parent) && !adopts(pid) && !this._handlers.has(pid))
      .map(([pid]) => pid);
  }

  _comesFrom(pid, handler) {
    const entry = this._processes.get(pid);
    if (entry.session === handler.pid) return true;
    entry.mark ??= mark(pid);
    return entry.mark === handler.mark;
  }

  _isOurs(pid) {
    if (this._alone || this._processes.get(pid).parent === process.pid) return true;
    return [...this._dead.values()].some((handler) => this._comesFrom(pid, handler));
  }

  _descendants(roots) {
    const children = new Map();
    for (const [pid, { parent }] of this._processes) {
      if (!children.has(parent)) children.set(parent, []);
      children.get(parent).push(pid);
    }
    const found = [];
    const pending = [...roots];
    while (pending.length) {
      const next = children.get(pending.pop()) ?? [];
      found.push(...next);
      pending.push(...next);
    }
    return found;
  }

  _living(pids) {
    return pids.filter((pid) => !'ZX'.includes(this._processes.get(pid).state));
  }
}

function signal(pid, name) {
  try {
    process.kill(pid, name);
  } catch (error) {
    // EPERM: it changed its user and this supervisor is not root; then only whoever ends the container, or
    // the namespace, can do more.
    if (error.code !== 'ESRCH' && error.code !== 'EPERM') throw error;
  }
}

/** All processes that /proc shows: by pid, {parent, session, state}. */
function scan() {
  const found = new Map();
  for (const name of fs.readdirSync('/proc')) {
    if (name.charCodeAt(0) > 57) continue; // not a digit
    const text = read(`/proc/${name}/stat`);
    if (text === '') continue;
    // The program's name, in parentheses, may hold anything, also parentheses.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ', 4);
    found.set(Number(name), { state: fields[0], parent: Number(fields[1]), session: Number(fields[3]) });
  }
  return found;
}

function chain(processes, pid) {
  const found = [];
  for (let next = processes.get(pid)?.parent; next; next = processes.get(next)?.parent) found.push(next);
  return found;
}

/** The process or thread made last in this pid namespace, or null where that is not to be seen. */
function lastPid() {
  return read('/proc/loadavg').split(' ')[4] ?? null;
}

function mark(pid) {
  return new RegExp(`(?:^|\0)${MARK}=([^\0]*)`).exec(read(`/proc/${pid}/environ`))?.[1] ?? '';
}

/** The text of a file in /proc; empty for a process that is gone, or that is another user's. */
function read(place) {
  let file;
  try {
    file = fs.openSync(place, 'r');
    let text = '';
    for (let length = 1; length > 0 && text.length < MOST;) {
      length = fs.readSync(file, BUFFER, 0, BUFFER.length, null);
      text += BUFFER.latin1Slice(0, length);
      if (length < PAGE) break; // PERF: without asking for an end that is certain
    }
    return text;
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes(error.code)) return '';
    throw error;
  } finally {
    if (file !== undefined) fs.closeSync(file);
  }
}

module.exports = { MARK, Tree };
