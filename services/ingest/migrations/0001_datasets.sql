-- Datasets, their variables, keys and counters.

-- `number` is what rows carry and what clients see as channel_id: four bytes instead of sixteen.
CREATE TABLE dataset (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    project text NOT NULL,
    owner text NOT NULL,
    name text NOT NULL,
    description text NOT NULL,
    public boolean NOT NULL,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    deleted_at timestamptz
);
CREATE INDEX dataset_of_owner ON dataset (project, owner, number);
CREATE INDEX dataset_deleted ON dataset (deleted_at) WHERE deleted_at IS NOT NULL;

-- `field` is the position of the variable for ever, in the arrays of every reading.
CREATE TABLE variable (
    dataset integer NOT NULL REFERENCES dataset ON DELETE CASCADE,
    field smallint NOT NULL CHECK (field BETWEEN 1 AND 64),
    tag text NOT NULL,
    name text NOT NULL,
    unit text NOT NULL,
    retired boolean NOT NULL DEFAULT false,
    PRIMARY KEY (dataset, field),
    UNIQUE (dataset, tag)
);

-- `digest` finds a key, `locked` shows it to its owner again; neither opens anything without the server key.
CREATE TABLE dataset_key (
    dataset integer NOT NULL REFERENCES dataset ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('read', 'write')),
    digest bytea NOT NULL UNIQUE,
    locked bytea NOT NULL,
    PRIMARY KEY (dataset, kind)
);

-- The row every writer of a dataset locks: position order is commit order. Half of each page stays free,
-- so that an update finds room beside the old version and touches no index (HOT).
-- `entries` counts what is there, the other counters what ever was; readings up to entry `cleared` are gone
-- for readers, up to `purged` also from the disk; no reading is earlier than `first_at`;
-- `parts` says whether a reading ever had a status (1), a latitude or longitude (2), an elevation (4).
CREATE TABLE dataset_counter (
    dataset integer PRIMARY KEY REFERENCES dataset ON DELETE CASCADE,
    last_entry bigint NOT NULL DEFAULT 0,
    entries bigint NOT NULL DEFAULT 0,
    stored bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    expired bigint NOT NULL DEFAULT 0,
    rejected jsonb NOT NULL DEFAULT '{}',
    first_at timestamptz,
    last_at timestamptz,
    cleared bigint NOT NULL DEFAULT 0,
    purged bigint NOT NULL DEFAULT 0,
    parts smallint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE INDEX dataset_counter_to_purge ON dataset_counter (dataset) WHERE purged < cleared;

-- How far an import came.
CREATE TABLE import_position (
    dataset integer NOT NULL REFERENCES dataset ON DELETE CASCADE,
    source text NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (dataset, source)
);

-- A dataset as the service knows it, its variables as arrays in order of field.
CREATE VIEW described AS
SELECT d.number, d.id, d.project, d.owner, d.name, d.description, d.public, d.version, d.created_at, d.deleted_at,
       v.fields, v.tags, v.names, v.units, v.retired,
       c.last_entry, c.entries, c.stored, c.duplicates, c.expired, c.rejected::text AS rejected,
       c.first_at, c.last_at, c.cleared, c.parts
FROM dataset d
JOIN dataset_counter c ON c.dataset = d.number
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(field ORDER BY field), '{}') AS fields,
           coalesce(array_agg(tag ORDER BY field), '{}') AS tags,
           coalesce(array_agg(name ORDER BY field), '{}') AS names,
           coalesce(array_agg(unit ORDER BY field), '{}') AS units,
           coalesce(array_agg(retired ORDER BY field), '{}') AS retired
    FROM variable WHERE dataset = d.number
) v;
