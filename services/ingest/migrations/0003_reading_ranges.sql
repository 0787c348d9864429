-- Ranges of readings in order of time, from either end.

-- Functions for the sake of their settings. A plan for any range does not know how many readings are in it,
-- believes in a few, and so sorts them all to answer the first hundred. Without sorting it reads the
-- partitions of the range side by side in order of their index, and stops when it has enough. Such a plan
-- is made once for a connection: one for each range costs more than what it does.

CREATE FUNCTION readings_before(
    dataset integer, starts timestamptz, ends timestamptz, before timestamptz, before_entry bigint,
    cleared bigint, most bigint
) RETURNS SETOF reading LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan SET enable_sort = off
AS $$
BEGIN
    RETURN QUERY SELECT r.* FROM ingest.reading r
        WHERE r.dataset = $1 AND r.at >= $2 AND r.at < $3 AND r.at <= $4 AND (r.at, r.entry) < ($4, $5)
          AND r.entry > $6
        ORDER BY r.at DESC, r.entry DESC LIMIT $7;
END $$;

CREATE FUNCTION readings_after(
    dataset integer, starts timestamptz, ends timestamptz, after timestamptz, after_entry bigint,
    cleared bigint, last_entry bigint, most bigint
) RETURNS SETOF reading LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan SET enable_sort = off
AS $$
BEGIN
    RETURN QUERY SELECT r.* FROM ingest.reading r
        WHERE r.dataset = $1 AND r.at >= $2 AND r.at < $3 AND r.at >= $4 AND (r.at, r.entry) > ($4, $5)
          AND r.entry > $6 AND r.entry <= $7
        ORDER BY r.at, r.entry LIMIT $8;
END $$;
