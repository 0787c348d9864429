-- What a service has answered, by frame id: the proof that a repeat changes nothing.
-- Runs in the schema of each service. Frame ids are uuid7 (RFC 9562: 48 bits of milliseconds first), kept
-- in a partition an hour; keyed ids and event ids begin with the nibble f and share one partition.

CREATE TABLE inbox (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    refused boolean NOT NULL,
    body_hash bytea NOT NULL,
    reply bytea NOT NULL,
    events bytea
) PARTITION BY RANGE (id);

CREATE TABLE inbox_keyed PARTITION OF inbox
    FOR VALUES FROM ('f0000000-0000-0000-0000-000000000000') TO (MAXVALUE);
CREATE INDEX inbox_keyed_at ON inbox_keyed USING brin (at) WITH (autosummarize);

-- Runs of frames that the broker delivered again: a frame that kills its process cannot count itself.
CREATE TABLE delivery_attempt (
    frame_id uuid PRIMARY KEY,
    attempts smallint NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

-- Make the partitions from `keep_hours` ago to `ahead_hours` from now, drop older ones.
-- Attached rather than created in place: ATTACH does not stop readers and writers of the parent.
CREATE FUNCTION keep_inbox(keep_hours integer, ahead_hours integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout TO '2s' AS $$
DECLARE
    hour timestamptz;
    name text;
    made integer := 0;
    old record;
BEGIN
    -- Waits: of processes that start at once, none may serve before the partitions are committed.
    PERFORM pg_advisory_xact_lock(hashtext('keep_inbox'), hashtext(current_schema()));
    FOR hour IN SELECT generate_series(
        date_trunc('hour', now()) - make_interval(hours => keep_hours),
        date_trunc('hour', now()) + make_interval(hours => ahead_hours),
        interval '1 hour')
    LOOP
        name := 'inbox_' || to_char(hour AT TIME ZONE 'UTC', 'YYYYMMDDHH24');
        CONTINUE WHEN to_regclass(quote_ident(current_schema()) || '.' || name) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE inbox INCLUDING ALL)', name);
        EXECUTE format('ALTER TABLE inbox ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       name, uuid_at(hour), uuid_at(hour + interval '1 hour'));
        made := made + 1;
    END LOOP;
    FOR old IN
        SELECT c.relname FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = (quote_ident(current_schema()) || '.inbox')::regclass
          AND c.relname ~ '^inbox_[0-9]{10}$'
          AND c.relname < 'inbox_' || to_char(
              (date_trunc('hour', now()) - make_interval(hours => keep_hours)) AT TIME ZONE 'UTC',
              'YYYYMMDDHH24')
    LOOP
        -- A backup reads it: later, rather than making writers wait behind us.
        BEGIN
            EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE NOWAIT', old.relname);
            EXECUTE format('DROP TABLE %I', old.relname);
        EXCEPTION WHEN lock_not_available THEN
            CONTINUE;
        END;
    END LOOP;
    DELETE FROM delivery_attempt WHERE at < now() - make_interval(hours => keep_hours);
    RETURN made;
END $$;

-- Delete a piece of the keyed rows that are older; how many, so that the caller asks again until none is left.
CREATE FUNCTION prune_inbox(keep_hours integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout TO '2s' AS $$
DECLARE
    deleted integer;
BEGIN
    DELETE FROM inbox_keyed WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM inbox_keyed WHERE at < now() - make_interval(hours => keep_hours) LIMIT 10000));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END $$;

-- The smallest uuid7 of a moment.
CREATE FUNCTION uuid_at(moment timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
