// Express and amqplib: one reply queue, correlation ids, one AMQP message for each call.
//
// `POST /` `{"text": ...}` becomes a message to the queue of the service, whose reply `{"text": ...}` is answered.
// Tuned: `noDelay` (without it amqplib waits for Nagle's algorithm: forty times slower), messages not persistent,
// no acknowledgements, a prepared router without ETags and without the `X-Powered-By` header; NODE_ENV=production.
// Source of truth: amqp-node.github.io/amqplib (channel API reference, `connect`), the RabbitMQ tutorial "RPC" for
// JavaScript, expressjs.com ("Production best practices: performance and reliability").
import { parseArgs } from 'node:util';
import amqp from 'amqplib';

process.env.NODE_ENV ??= 'production';
const { default: express } = await import('express');

const QUEUE = 'express_amqplib';
const MILLISECONDS = 10_000;

async function connect() {
  const connection = await amqp.connect(process.env.BENCH_AMQP_URL, { noDelay: true });
  return { connection, channel: await connection.createChannel() };
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
    channel.sendToQueue(QUEUE, body, { correlationId, replyTo });
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
  const { connection, channel } = await connect();
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
  await channel.assertQueue(QUEUE, { durable: false, autoDelete: true });
  await channel.consume(QUEUE, (message) => {
    const { text } = JSON.parse(message.content);
    const { correlationId, replyTo } = message.properties;
    channel.sendToQueue(replyTo, Buffer.from(JSON.stringify({ text })), { correlationId });
  }, { noAck: true });
  serveUntilStopped(() => connection.close());
}

const { positionals: [role], values } = parseArgs({ allowPositionals: true, options: { port: { type: 'string' } } });
await (role === 'web' ? serveWeb(Number(values.port)) : serveCalls());
