'use strict';
// What the kernel counts in the control group of the worker.

const fs = require('fs');

/** A count in a file of a control group; 0 where there is no such file. */
class Counter {
  /** `place`: a path, fd:N, or null; `name`: the word before the count. */
  constructor(place, name) {
    this._file = open(place);
    this._pattern = new RegExp(`^${name} ([0-9]+)$`, 'm');
    this._buffer = Buffer.alloc(1024);
  }

  read() {
    if (this._file < 0) return 0;
    const length = fs.readSync(this._file, this._buffer, 0, this._buffer.length, 0);
    const found = this._pattern.exec(this._buffer.latin1Slice(0, length));
    return found ? Number(found[1]) : 0;
  }
}

function open(place) {
  if (place === null) return -1;
  return place.startsWith('fd:') ? Number(place.slice(3)) : fs.openSync(place, 'r');
}

/** How often the kernel has killed for memory. */
function oomKills(place) {
  return new Counter(place ?? find('memory', ['memory.events', 'memory.oom_control']), 'oom_kill');
}

/** How often the kernel has refused a process or thread. */
function pidsHits(place) {
  return new Counter(place ?? find('pids', ['pids.events']), 'max');
}

/**
 * The file of this process's control group for a controller, in either version; null where none is readable.
 */
function find(controller, names) {
  const places = groups(controller).flatMap((group) => names.map((name) => `${group}/${name}`));
  return places.find(readable) ?? null;
}

function groups(controller) {
  const found = [];
  for (const line of readIfThere('/proc/self/cgroup').split('\n')) {
    const [, controllers, group] = /^[0-9]+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === '') found.push(`/sys/fs/cgroup${group}`, '/sys/fs/cgroup');
    if (controllers !== undefined && controllers.split(',').includes(controller)) {
      // A container with version 1 sees its own group at the top, but reads the host's name of it.
      found.push(`/sys/fs/cgroup/${controller}${group}`, `/sys/fs/cgroup/${controller}`);
    }
  }
  return found;
}

function readIfThere(place) {
  return readable(place) ? fs.readFileSync(place, 'latin1') : '';
}

function readable(place) {
  try {
    fs.accessSync(place, fs.constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

module.exports = { oomKills, pidsHits };
