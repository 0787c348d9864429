-- Log lines that services shipped, a partition a day; whole days are dropped after LOG_DAYS.
-- Columns in order of their width, so that no row has padding; a line costs about 100 bytes and its text.

CREATE TABLE log_line (
    at timestamptz NOT NULL,
    trace_id uuid,                -- W3C trace ids are 128 bits
    level smallint NOT NULL,      -- 10 debug, 20 info, 30 warning, 40 error, 50 critical
    service text NOT NULL,
    event text NOT NULL,
    request_id text,
    fields jsonb
) PARTITION BY RANGE (at);

CREATE INDEX log_line_at ON log_line USING brin (at) WITH (autosummarize);
CREATE INDEX log_line_trace ON log_line (trace_id) WHERE trace_id IS NOT NULL;
CREATE INDEX log_line_grave ON log_line (at) WHERE level >= 30;

-- For a line whose day has no partition: a wrong clock must not lose it.
CREATE TABLE log_line_other PARTITION OF log_line DEFAULT;

-- Make the days from today to `ahead_days` from now, drop those more than `keep_days` old.
-- Rows of a new day that came early move out of the default partition first, else ATTACH refuses it.
CREATE FUNCTION keep_log(keep_days integer, ahead_days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout TO '2s' AS $$
DECLARE
    today timestamptz := date_trunc('day', now(), 'UTC');
    day timestamptz;
    name text;
    made integer := 0;
    old record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('keep_log'), hashtext(current_schema())) THEN
        RETURN 0;
    END IF;
    FOR day IN SELECT today + make_interval(hours => 24 * n) FROM generate_series(0, ahead_days) AS n
    LOOP
        name := 'log_line_' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD');
        CONTINUE WHEN to_regclass(quote_ident(current_schema()) || '.' || name) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE log_line INCLUDING ALL)', name);
        EXECUTE format('WITH early AS (DELETE FROM log_line_other WHERE at >= %L AND at < %L RETURNING *) '
                       'INSERT INTO %I SELECT * FROM early', day, day + interval '24 hours', name);
        EXECUTE format('ALTER TABLE log_line ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       name, day, day + interval '24 hours');
        made := made + 1;
    END LOOP;
    FOR old IN
        SELECT c.relname FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = (quote_ident(current_schema()) || '.log_line')::regclass
          AND c.relname ~ '^log_line_[0-9]{8}$'
          AND c.relname < 'log_line_' || to_char(
              (today - make_interval(hours => 24 * keep_days)) AT TIME ZONE 'UTC', 'YYYYMMDD')
    LOOP
        EXECUTE format('DROP TABLE %I', old.relname);
    END LOOP;
    DELETE FROM log_line_other WHERE at < today - make_interval(hours => 24 * keep_days);
    RETURN made;
END $$;

-- Today and the coming week, so that the first line finds its day.
SELECT keep_log(0, 7);
