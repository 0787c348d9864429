// A whole Posthouse service in JavaScript, written after docs/wire.md.
// It answers the query weather.get_forecast and announces weather.storm_seen.
//
//   ./posthouse account add weather --handles weather.get_forecast --publishes weather.storm_seen
//   POSTHOUSE_AMQP_URL=amqp://weather:...@... node weather-service.mjs

import { randomUUID } from "node:crypto";
import { decode } from "@msgpack/msgpack";
import amqp from "amqplib";

const STORM_METRES_PER_SECOND = 25;
const FORECASTS = {
  Seattle: { temperature: 9.5, wind: 4.2 },
  Tromsoe: { temperature: -3, wind: 31 },
};

class Refused extends Error {
  constructor(status, code, detail) {
    super(detail);
    Object.assign(this, { status, code });
  }
}

const handlers = {
  async "weather.get_forecast"({ city }) {
    const forecast = FORECASTS[city];
    if (!forecast) throw new Refused(404, "not_found", `no forecast for ${city}`);
    if (forecast.wind > STORM_METRES_PER_SECOND) await announce("weather.storm_seen", { city, wind: forecast.wind });
    return { city, ...forecast };
  },
};

const url = process.env.POSTHOUSE_AMQP_URL;
const account = decodeURIComponent(new URL(url).username);
const connection = await amqp.connect(`${url}?heartbeat=10`);
const channel = await connection.createConfirmChannel();
channel.on("return", () => console.log("a reply came too late: the requester is gone"));

await channel.prefetch(32);
await channel.consume(`${account}.queries`, take);
process.on("SIGTERM", () => connection.close());
console.log("ready");

async function take(message) {
  for (const frame of decode(message.content)) await answer(frame, message.properties.replyTo);
  channel.ack(message);
}

async function answer(frame, replyTo) {
  const late = frame.mode === "wait" && frame.sent_at + frame.remaining_ms < Date.now();
  if (late || !replyTo) return;
  try {
    const handler = handlers[frame.topic];
    if (!handler) throw new Refused(502, "unknown_topic", `${frame.topic} is not handled here`);
    await reply(frame, replyTo, 200, await handler(frame.body));
  } catch (error) {
    const { status = 500, code = "internal" } = error;
    await reply(frame, replyTo, status, { code, detail: status === 500 ? "" : error.message });
  }
}

function reply(frame, replyTo, status, body) {
  const correlationId = String(frame.call ?? 0);
  const options = { type: "reply", mandatory: true, correlationId, headers: { status } };
  return publish("posthouse.replies", replyTo, body, options);
}

function announce(topic, body) {
  return publish("posthouse.events", topic, body, { type: "event", persistent: true, messageId: randomUUID() });
}

function publish(exchange, key, body, options) {
  const content = Buffer.from(JSON.stringify(body));
  const all = { contentType: "application/json", userId: account, ...options };
  return new Promise((done, failed) =>
    channel.publish(exchange, key, content, all, (error) => (error ? failed(error) : done())),
  );
}
