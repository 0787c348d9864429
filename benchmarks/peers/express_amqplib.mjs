// Express and amqplib: one reply queue, correlation ids, one AMQP message for each call.
//
// `POST /` `{"text": ...}` becomes a message to the queue of the service, whose reply `{"text": ...}` is answered.
// Tuned: `noDelay` (without it amqplib waits for Nagle's algorithm: forty times slower), messages not persistent,
// no acknowledgements, a prepared router without ETags and without the `X-Powered-By` header; NODE_ENV=production.
// With `--durable` a call is persistent, confirmed, in a quorum queue, and acknowledged after its reply.
// Source of truth: amqp-node.github.io/amqplib (channel API reference, `connect`), the RabbitMQ tutorial "RPC" for
// JavaScript, expressjs.com ("Production best practices: performance and reliability").
import { parseArgs } from 'node:util';
import amqp from 'amqplib';

process.env.NODE_ENV ??= 'production';
const { default: express } = await import('express');

const { positionals: [role], values: { port, durable } } = parseArgs({
  allowPositionals: true,
  options: { port: { type: 'string' }, durable: { type: 'boolean', default: false } },
});
const QUEUE = durable ? 'express_amqplib_durable' : 'express_amqplib';
const QUEUE_OPTIONS = durable
  ? { durable: true, arguments: { 'x-queue-type': 'quorum' } }
  : { durable: false, autoDelete: true };
const MILLISECONDS = 10_000;

async function connect(confirms = false) {
  const connection = await amqp.connect(process.env.BENCH_AMQP_URL, { noDelay: true });
  const channel = await (confirms ? connection.createConfirmChannel() : connection.createChannel());
  return { connection, channel };
}

function serveUntilStopped(close) {
  process.once('SIGTERM', async () => {
    await close();
    process.exit(0);
  });
  console.log('ready');
}

/** Calls that wait, by their correlation id. */
async function rpc(channel) {
  const waiting = new Map();
  let number = 0;
  const { queue: replyTo } = await channel.assertQueue('', { exclusive: true });
  await channel.consume(replyTo, (message) => {
    const call = waiting.get(message.properties.correlationId);
    if (call) call.resolve(message.content);
  }, { noAck: true });
  return async function ask(body) {
    const correlationId = String(++number);
    const { promise, resolve, reject } = Promise.withResolvers();
    const timer = setTimeout(() => reject(new Error('no reply')), MILLISECONDS);
    waiting.set(correlationId, { resolve });
    if (durable) {
      channel.sendToQueue(QUEUE, body, { correlationId, replyTo, persistent: true }, (error) => error && reject(error));
    } else {
      channel.sendToQueue(QUEUE, body, { correlationId, replyTo });
    }
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      waiting.delete(correlationId);
    }
  };
}

/** HTTP in front of the calls. */
async function serveWeb(port) {
  const { connection, channel } = await connect(durable);
  const ask = await rpc(channel);
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.post('/', express.json(), async (request, response) => {
    const reply = await ask(Buffer.from(JSON.stringify({ text: request.body.text })));
    response.json(JSON.parse(reply));
  });
  const server = app.listen(port, '127.0.0.1', () => serveUntilStopped(async () => {
    server.close();
    await connection.close();
  }));
}

/** The service: answer each call. */
async function serveCalls() {
  const { connection, channel } = await connect();
  await channel.assertQueue(QUEUE, QUEUE_OPTIONS);
  await channel.consume(QUEUE, (message) => {
    const { text } = JSON.parse(message.content);
    const { correlationId, replyTo } = message.properties;
    channel.sendToQueue(replyTo, Buffer.from(JSON.stringify({ text })), { correlationId });
    if (durable) channel.ack(message);
  }, { noAck: !durable });
  serveUntilStopped(() => connection.close());
}

await (role === 'web' ? serveWeb(Number(port)) : serveCalls());
