-- Readings: partitions by time, wide columns first, eight columns so that the row header is 24 bytes.

-- Position in an array = field of the variable. `numbers` holds the double of a number, or of a text that
-- reads as one; bit field-1 of `whole` says that the number is an integer; `exact` is there only where the
-- double does not tell the value: t<text>, i<integer beyond 2^53>, n (an explicit null).
-- `place` is {latitude, longitude, elevation}.
CREATE TABLE reading (
    entry bigint NOT NULL,
    at timestamptz NOT NULL,
    whole bigint NOT NULL,
    dataset integer NOT NULL,
    numbers float8[],
    exact text[],
    status text,
    place float8[],
    PRIMARY KEY (dataset, at, entry)
) PARTITION BY RANGE (at);
CREATE INDEX reading_entry ON reading (dataset, entry);

-- Takes what no partition is there for, so that a missing one never refuses a reading.
CREATE TABLE reading_other PARTITION OF reading DEFAULT;

CREATE TABLE reading_partition (
    name text PRIMARY KEY,
    starts timestamptz NOT NULL,
    ends timestamptz NOT NULL
);

-- The id a client gave a reading (a hash of it), for as long as the reading is there.
CREATE TABLE reading_identity (
    id_hash uuid NOT NULL,
    entry bigint NOT NULL,
    at timestamptz NOT NULL,
    dataset integer NOT NULL,
    PRIMARY KEY (dataset, id_hash)
);
CREATE INDEX reading_identity_entry ON reading_identity (dataset, entry);

-- Make one partition and move into it what the default one holds of its range.
CREATE FUNCTION add_reading_partition(name text, starts timestamptz, ends timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = ingest, pg_temp AS $$
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE reading INCLUDING ALL)', name);
    LOCK TABLE reading_other IN ACCESS EXCLUSIVE MODE;
    EXECUTE format(
        'WITH moved AS (DELETE FROM reading_other WHERE at >= %L AND at < %L RETURNING *) '
        'INSERT INTO %I SELECT * FROM moved', starts, ends, name);
    EXECUTE format('ALTER TABLE reading ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, starts, ends);
    INSERT INTO reading_partition VALUES (name, starts, ends);
END $$;

-- Make the monthly partitions that are missing up to `months_ahead` months from now. Answers how many were
-- made, or -1 when readers and writers were in the way for too long: try again later.
CREATE FUNCTION make_partitions(months_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ingest, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    month timestamp;
    until timestamp := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => months_ahead + 1);
    made integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('ingest.make_partitions')) THEN
        RETURN 0;
    END IF;
    SELECT max(ends) AT TIME ZONE 'UTC' INTO month FROM reading_partition;
    WHILE month < until LOOP
        PERFORM add_reading_partition('reading_' || to_char(month, 'YYYY_MM'),
            month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
        month := month + interval '1 month';
        made := made + 1;
    END LOOP;
    RETURN made;
EXCEPTION WHEN lock_not_available THEN
    RETURN -1;
END $$;

-- The past in years, this year and what comes in months.
DO $$
BEGIN
    FOR year IN 2000 .. extract(year FROM now() AT TIME ZONE 'UTC')::integer - 1 LOOP
        PERFORM add_reading_partition('reading_' || year,
            make_timestamptz(year, 1, 1, 0, 0, 0, 'UTC'), make_timestamptz(year + 1, 1, 1, 0, 0, 0, 'UTC'));
    END LOOP;
    PERFORM make_partitions(4);
END $$;
