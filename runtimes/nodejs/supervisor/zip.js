'use strict';
// The records of a ZIP file, read as the platform reads them. The layouts are those of PKWARE's APPNOTE 6.3,
// the field 0x7075 is Info-ZIP's.

const zlib = require('zlib');

const { LoadError } = require('./load');

const END = { signature: 0x06054b50, size: 22, maxComment: 0xffff };
const LOCATOR64 = { signature: 0x07064b50, size: 20 };
const END64 = { signature: 0x06064b50, size: 56 };
const RECORD = { signature: 0x02014b50, size: 46 };
const HEADER = { signature: 0x04034b50, size: 30 };
const [ENCRYPTED, UTF8] = [0x2041, 0x0800]; // flags
const SYSTEMS_OF_BYTES = [3, 19]; // Unix and macOS, where names are bytes
const [ZIP64, UNICODE_PATH] = [0x0001, 0x7075]; // extra fields
const SENTINEL = 0xffffffff; // "see the ZIP64 field"
const CP437 =
  'ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐' +
  '└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0';

/** The error of a package that is damaged. */
function broken(what) {
  return new LoadError(`the package cannot be unpacked: ${what}`);
}

/** The members of the ZIP file that is an Upload from byte `start` on. */
class Archive {
  constructor(upload, start) {
    this._upload = upload;
    this._start = start;
    const end = upload.length;
    const tail = this.read(Math.max(start, end - END.size - END.maxComment), end);
    const at = endRecord(tail);
    const place = end - tail.length + at;
    const narrow = {
      count: tail.readUInt16LE(at + 10),
      size: tail.readUInt32LE(at + 12),
      offset: tail.readUInt32LE(at + 16),
    };
    const { count, size, offset } = this._wide(place) ?? narrow;
    this._directory = start + offset;
    if (this._directory + size > place) throw broken('its directory is not where it says');
    this._size = size;
    this._count = count;
  }

  *members() {
    const directory = this.read(this._directory, this._directory + this._size);
    let at = 0;
    for (let index = 0; index < this._count; index++) {
      if (at + RECORD.size > directory.length || directory.readUInt32LE(at) !== RECORD.signature) {
        throw broken('its directory is damaged');
      }
      const [name, extra, comment] = [28, 30, 32].map((field) => directory.readUInt16LE(at + field));
      const next = at + RECORD.size + name + extra + comment;
      if (next > directory.length) throw broken('its directory is damaged');
      yield member(directory.subarray(at, next), name, extra);
      at = next;
    }
    if (at !== directory.length) throw broken('its directory is damaged');
  }

  /** First and last byte (exclusive) of a member's packed contents. */
  place({ name, offset, packed }) {
    const at = this._start + offset;
    const head = this.read(at, at + HEADER.size);
    if (head.readUInt32LE(0) !== HEADER.signature) throw broken(`${name} is not where the directory says`);
    const start = at + HEADER.size + head.readUInt16LE(26) + head.readUInt16LE(28);
    if (start + packed > this._directory) throw broken(`${name} is longer than the package`);
    return [start, start + packed];
  }

  read(start, end) {
    const data = this._upload.read(start, end);
    if (data.length !== end - start) throw broken('it is cut off');
    return data;
  }

  stream(start, end) {
    return this._upload.stream(start, end);
  }

  /** What the ZIP64 end record before the end record at `place` says, where there is one. */
  _wide(place) {
    if (place - LOCATOR64.size < this._start) return null;
    const locator = this.read(place - LOCATOR64.size, place);
    if (locator.readUInt32LE(0) !== LOCATOR64.signature) return null;
    const at = this._start + wide(locator, 8);
    const record = this.read(at, at + END64.size);
    if (record.readUInt32LE(0) !== END64.signature)
      throw broken('its ZIP64 end record is not where it should be');
    return { count: wide(record, 32), size: wide(record, 40), offset: wide(record, 48) };
  }
}

function endRecord(tail) {
  for (let at = tail.length - END.size; at >= 0; at--) {
    if (
      tail.readUInt32LE(at) === END.signature &&
      at + END.size + tail.readUInt16LE(at + 20) === tail.length
    ) {
      return at;
    }
  }
  throw broken('it is not a ZIP file');
}

/**
 * A record of the directory, with `name` bytes of name and `extra` bytes of extra fields after its fixed
 * part.
 */
function member(record, name, extra) {
  const fields = extraFields(record.subarray(RECORD.size + name, RECORD.size + name + extra));
  const flags = record.readUInt16LE(8);
  const [size, packed, offset] = widened(
    fields,
    [24, 20, 42].map((field) => record.readUInt32LE(field)),
  );
  const raw = record.subarray(RECORD.size, RECORD.size + name);
  const decoded = decodeName(raw, flags, record.readUInt8(5), fields);
  if (flags & ENCRYPTED) throw broken(`${decoded} is encrypted`);
  return {
    name: decoded,
    method: record.readUInt16LE(10),
    crc: record.readUInt32LE(16),
    mode: record.readUInt32LE(38) >>> 16,
    size, // bytes unpacked
    packed, // bytes in the archive
    offset, // of its local header
  };
}

/** The extra fields by their tags. Less than a field's head at the end is padding. */
function extraFields(extra) {
  const fields = new Map();
  for (let at = 0; at + 4 <= extra.length;) {
    const end = at + 4 + extra.readUInt16LE(at + 2);
    if (end > extra.length) throw broken('a member has damaged extra fields');
    fields.set(extra.readUInt16LE(at), extra.subarray(at + 4, end));
    at = end;
  }
  return fields;
}

/** Each value that stands for "see the ZIP64 field" is replaced by the one that stands there. */
function widened(fields, values) {
  const field = fields.get(ZIP64) ?? Buffer.alloc(0);
  let at = -8;
  return values.map((value) => {
    if (value !== SENTINEL || !fields.has(ZIP64)) return value;
    at += 8;
    if (at + 8 > field.length) throw broken('a member has damaged extra fields');
    return wide(field, at);
  });
}

function wide(bytes, at) {
  return Number(bytes.readBigUInt64LE(at)); // what is rounded is no place in this file
}

/** The name, in UTF-8 where the archive says so or was made where names are bytes and these are UTF-8. */
function decodeName(raw, flags, system, fields) {
  const field = fields.get(UNICODE_PATH);
  if (field !== undefined && field.length >= 5 && field[0] === 1 && field.readUInt32LE(1) === crc32(raw, 0)) {
    const path = utf8(field.subarray(5));
    if (path !== null) return path;
  }
  const name = flags & UTF8 || SYSTEMS_OF_BYTES.includes(system) ? utf8(raw) : null;
  if (name !== null) return name;
  if (flags & UTF8) throw broken('a name in it is not UTF-8');
  return Array.from(raw, (byte) => (byte < 128 ? String.fromCharCode(byte) : CP437[byte - 128])).join('');
}

function utf8(bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** The checksum of `data` after that of what was before it. */
function crc32(data, before) {
  if (zlib.crc32) return zlib.crc32(data, before); // Node 20.15, 22.2 and later
  let crc = ~before;
  for (const byte of data) crc = TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

module.exports = { Archive, broken, crc32 };
