'use strict';
// Unpacking a package. The platform has checked it before: here nothing may leave the directory, or be more
// than it says.

const fs = require('fs');
const path = require('path');
const { Transform, Writable } = require('stream');
const { pipeline } = require('stream/promises');
const zlib = require('zlib');

const { writeAll } = require('./bodies');
const { LoadError } = require('./load');
const { Archive, broken, crc32 } = require('./zip');

const [STORED, DEFLATED] = [0, 8];
const [KIND, REGULAR, DIRECTORY] = [0o170000, 0o100000, 0o040000];
const AT_ONCE = 1024 * 1024; // bytes of a member that is unpacked in memory; a longer one is streamed
const BREATH = 32; // members after which others get a turn

/**
 * Unpack the ZIP file that is an Upload from byte `start` on into a directory that does not exist yet or is
 * empty. Only files and directories with names that stay inside are taken. Throws LoadError; nothing is left
 * then.
 */
async function unpack(upload, start, directory) {
  try {
    fs.mkdirSync(directory, { recursive: true, mode: 0o755 });
    if (fs.readdirSync(directory).length) throw new LoadError(`${directory} is not empty`);
  } catch (error) {
    throw asLoadError(error);
  }
  try {
    const archive = new Archive(upload, start);
    let count = 0;
    for (const member of archive.members()) {
      await extract(archive, member, directory);
      if (++count % BREATH === 0) await new Promise(setImmediate);
    }
  } catch (error) {
    for (const name of fs.readdirSync(directory)) fs.rmSync(path.join(directory, name), { recursive: true });
    throw asLoadError(error);
  }
}

function asLoadError(error) {
  if (error instanceof LoadError) return error;
  if (error.code === undefined) throw error; // a defect of this worker: neither the system's nor zlib's
  return new LoadError(`the package cannot be unpacked: ${error.message}`);
}

/** Where a member goes, below `directory`; throws LoadError for a name that would leave it. */
function target(directory, name) {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (name.startsWith('/') || parts.includes('..') || /[\0\\]/.test(name) || !parts.length) {
    throw new LoadError(`the package has a member with an unsafe name: ${JSON.stringify(name)}`);
  }
  return path.join(directory, ...parts);
}

async function extract(archive, member, directory) {
  const place = target(directory, member.name);
  const kind = member.mode & KIND;
  if (member.name.endsWith('/') && (kind === 0 || kind === DIRECTORY)) {
    fs.mkdirSync(place, { recursive: true, mode: 0o755 });
    return;
  }
  if (kind !== 0 && kind !== REGULAR) {
    const name = JSON.stringify(member.name);
    throw new LoadError(`the package has a member that is neither file nor directory: ${name}`);
  }
  fs.mkdirSync(path.dirname(place), { recursive: true, mode: 0o755 });
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = fs.constants;
  // O_EXCL: a member that comes twice is refused
  const out = fs.openSync(
    place,
    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW,
    member.mode & 0o111 ? 0o755 : 0o644,
  );
  try {
    await copy(archive, member, out);
  } finally {
    fs.closeSync(out);
  }
}

/** Write a member's contents to a descriptor; throws LoadError where they are not what the directory says. */
async function copy(archive, member, out) {
  if (member.method !== STORED && member.method !== DEFLATED) {
    throw broken(`${member.name} is packed by a method other than deflate`);
  }
  const [start, end] = archive.place(member);
  const check = new Check(member);
  if (member.size <= AT_ONCE && member.packed <= AT_ONCE) {
    const packed = archive.read(start, end);
    // One byte more, so that a lie about the size is seen.
    const plain =
      member.method === STORED ? packed : zlib.inflateRawSync(packed, { maxOutputLength: member.size + 1 });
    check.see(plain);
    writeAll(out, plain);
  } else {
    const inflate = member.method === STORED ? [] : [zlib.createInflateRaw()];
    await pipeline(archive.stream(start, end), ...inflate, check.stream(), sink(out));
  }
  check.end();
}

/** Counts and sums what comes out of a member. */
class Check {
  constructor(member) {
    this._member = member;
    this._size = 0;
    this._crc = 0;
  }

  see(data) {
    this._size += data.length;
    if (this._size > this._member.size)
      throw broken(`${this._member.name} is larger than the directory says`);
    this._crc = crc32(data, this._crc);
  }

  stream() {
    const transform = (data, _encoding, done) => {
      try {
        this.see(data);
      } catch (error) {
        done(error);
        return;
      }
      done(null, data);
    };
    return new Transform({ transform });
  }

  end() {
    if (this._size !== this._member.size || this._crc !== this._member.crc) {
      throw broken(`${this._member.name} is damaged`);
    }
  }
}

function sink(out) {
  const write = (data, _encoding, done) => {
    try {
      writeAll(out, data);
    } catch (error) {
      done(error);
      return;
    }
    done();
  };
  return new Writable({ write });
}

module.exports = { unpack };
