// Express and pg without a queue: one row for each request.
//
// `POST /readings` `{"values": {"temperature": 22.5}}` inserts one row. A single statement is its own transaction,
// so no BEGIN and COMMIT are paid for, and 201 is sent after the commit. Nothing protects against a repeat.
// Tuned: a named statement (prepared once on each connection), a pool of 10, no ETag, no `X-Powered-By`,
// NODE_ENV=production. Source of truth: node-postgres.com ("Pooling", "Queries: prepared statements"),
// expressjs.com ("Production best practices: performance and reliability").
import { parseArgs } from 'node:util';
import pg from 'pg';

process.env.NODE_ENV ??= 'production';
const { default: express } = await import('express');

const TABLES = `
  CREATE SCHEMA IF NOT EXISTS express_pg;
  CREATE TABLE IF NOT EXISTS express_pg.reading (
    series_id integer NOT NULL,
    ts timestamptz NOT NULL,
    temperature float8,
    humidity float8
  );
  CREATE INDEX IF NOT EXISTS reading_of_series ON express_pg.reading (series_id, ts);
`;
const ADD_READING = {
  name: 'add_reading',
  text: 'INSERT INTO express_pg.reading (series_id, ts, temperature, humidity) VALUES ($1, $2, $3, $4)',
};

const { values } = parseArgs({ allowPositionals: true, options: { port: { type: 'string' } } });
const pool = new pg.Pool({ connectionString: process.env.BENCH_DATABASE_URL, min: 10, max: 10 });
await pool.query(TABLES);

const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.post('/readings', express.json(), async (request, response) => {
  const { values: { temperature, humidity }, at } = request.body;
  await pool.query({ ...ADD_READING, values: [1, at ?? new Date(), temperature ?? null, humidity ?? null] });
  response.status(201).end();
});
const server = app.listen(Number(values.port), '127.0.0.1', () => console.log('ready'));
process.once('SIGTERM', async () => {
  server.close();
  await pool.end();
  process.exit(0);
});
