'use strict';
// One connection of a client: requests in, answers out, strictly in turn.

const http = require('./http');

const END_OF_HEAD = Buffer.from('\r\n\r\n');
const LINGER = 2000; // ms that a refused client gets to read its answer before it is cut off
const TOO_MUCH = 'more bytes came than content-length says; pipelining is not part of the protocol';

/**
 * Reads one request, waits for its `answer`, reads the next.
 *
 * While an answer is due no further byte may come: a client that sends some is cut off. A client that goes
 * away does not end what it started; the answer is dropped then.
 *
 * `application` has serve(connection, head, body) for requests that came whole, receive(connection, head)
 * that returns a sink {write, done, abandon} for longer ones (or null where it has refused), and
 * closed(connection).
 */
class Connection {
  constructor(socket, application) {
    this._socket = socket;
    this._application = application;
    this._head = null; // bytes of a head that is not complete yet
    this._sink = null;
    this._missing = 0; // bytes of the body that the sink still waits for
    this._busy = false; // a request is being served
    this._closing = false; // refused: what still comes is dropped
    this.trusted = false; // it has sent the right secret
    socket.setNoDelay(true);
    socket.on('data', (data) => this._receive(data));
    socket.on('end', () => this.close());
    socket.on('error', () => this.close());
    socket.on('close', () => this._closed());
  }

  /** Send the answer to the present request; without effect where the client is gone. */
  answer(data) {
    this._busy = false;
    if (!this._socket.destroyed) this._socket.write(data);
  }

  /** Answer, and close the connection: what follows on it cannot be understood or is not wanted. */
  refuse(status, message) {
    this._closing = true;
    this._socket.end(http.answer(status, message));
    // A socket that is closed while bytes lie unread is reset, and the answer may be lost with it.
    this._socket.setTimeout(LINGER, () => this.close());
  }

  close() {
    this._socket.destroy();
  }

  _closed() {
    if (this._sink !== null) {
      this._sink.abandon();
      this._sink = null;
    }
    this._application.closed(this);
  }

  _receive(data) {
    if (this._closing) return;
    if (this._busy) {
      this.close();
    } else if (this._sink !== null) {
      this._feed(data);
    } else {
      this._parse(this._head === null ? data : Buffer.concat([this._head, data]));
    }
  }

  _parse(data) {
    const end = data.indexOf(END_OF_HEAD);
    if (end + END_OF_HEAD.length > http.MAX_HEAD || (end < 0 && data.length >= http.MAX_HEAD)) {
      this.refuse(400, `the head of the request is longer than ${http.MAX_HEAD} bytes`);
      return;
    }
    if (end < 0) {
      this._head = data;
      return;
    }
    this._head = null;
    let head;
    try {
      head = http.parse(data.latin1Slice(0, end));
    } catch (error) {
      if (!(error instanceof http.BadRequest)) throw error;
      this.refuse(400, error.message);
      return;
    }
    this._begin(head, data.subarray(end + END_OF_HEAD.length));
  }

  _begin(head, body) {
    if (body.length > head.length) {
      this.refuse(400, TOO_MUCH);
    } else if (body.length === head.length) {
      this._busy = true;
      this._application.serve(this, head, body);
    } else {
      this._sink = this._application.receive(this, head);
      this._missing = head.length;
      if (this._sink !== null && body.length) this._feed(body);
    }
  }

  _feed(data) {
    this._missing -= data.length;
    if (this._missing < 0) {
      this.refuse(400, TOO_MUCH);
      return;
    }
    this._sink.write(data);
    if (this._missing === 0) {
      const sink = this._sink;
      this._sink = null;
      this._busy = true;
      sink.done(this);
    }
  }
}

module.exports = { Connection };
