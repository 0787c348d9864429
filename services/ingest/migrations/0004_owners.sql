-- Owners whose accounts were deleted, and those who came back.

-- The last that was heard of an account: `told_at` is when its service said so, and an older word changes nothing.
CREATE TABLE owner (
    project text NOT NULL,
    id text NOT NULL,
    told_at timestamptz NOT NULL,
    deleted boolean NOT NULL,
    purge_at timestamptz,
    PRIMARY KEY (project, id)
);

-- A dataset that went with its owner comes back with its owner, and in no other way.
ALTER TABLE dataset ADD COLUMN gone_with_owner boolean NOT NULL DEFAULT false;
