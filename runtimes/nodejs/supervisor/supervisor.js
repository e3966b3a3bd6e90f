'use strict';
// The process that a worker consists of, beside its handlers. It never runs code of the user, and everything
// it hears from a handler may be a lie.

const fs = require('fs');
const net = require('net');

const { Service } = require('./service');

/** Serve a worker until SIGTERM, or until the lifeline ends. */
function serve(surroundings) {
  process.umask(0o022);
  process.title = 'funcplat-worker';
  if (process.pid === 1) {
    process.stderr.write(
      'funcplat: Node.js as the first process cannot bury processes that functions left behind; ' +
        'start the worker below an init, as docker run --init does\n',
    );
  }
  const service = new Service(surroundings);
  const end = () => {
    service.end();
    process.exit(0);
  };
  process.on('SIGTERM', end);
  if (surroundings.lifeline !== null) watch(surroundings.lifeline, end);
  listen(surroundings.listen, service);
}

function listen(address, service) {
  if (address.path !== undefined) fs.rmSync(address.path, { force: true }); // left over
  // A client that closes its sending side is cut off, by the connection.
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => service.accept(socket));
  // A socket of its own: who may connect is said by the directory that it is in, as drivers make it.
  server.listen({ ...address, backlog: 128, readableAll: true, writableAll: true });
}

function watch(descriptor, end) {
  const lifeline = new net.Socket({ fd: descriptor, readable: true, writable: false });
  for (const event of ['data', 'end', 'error', 'close']) lifeline.once(event, end);
}

module.exports = { serve };
