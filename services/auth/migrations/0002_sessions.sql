-- Sessions that are refreshed, invitations, accounts that can come back, signing keys that follow each other.

ALTER TABLE account
    ADD COLUMN purge_at     timestamptz,   -- until then a deleted account can come back
    ADD COLUMN deleted_by   uuid,          -- its owner, or an administrator
    ADD COLUMN last_seen_at timestamptz;
UPDATE account SET purge_at = deleted_at + interval '24 hours', deleted_by = id WHERE deleted_at IS NOT NULL;
-- A name stays taken as long as its account can come back.
DROP INDEX account_name;
DROP INDEX account_email;
CREATE UNIQUE INDEX account_name ON account (project, name_key);
CREATE UNIQUE INDEX account_email ON account (project, email_key);
CREATE INDEX account_listed ON account (project, id);
CREATE INDEX account_purge ON account (purge_at) WHERE purge_at IS NOT NULL;

-- Defaults, because the version before this one still opens sessions while it is replaced.
ALTER TABLE session
    ADD COLUMN last_used_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN client       text NOT NULL DEFAULT '',   -- the address it was opened from
    ADD COLUMN agent        text NOT NULL DEFAULT '';   -- what the client calls itself
CREATE INDEX session_ended ON session (ended_at) WHERE ended_at IS NOT NULL;

-- One row for each token of a session: whoever comes with a used one after its 10 seconds ends the session.
CREATE TABLE refresh_token (
    hash             bytea PRIMARY KEY,    -- SHA-256 of the token, which is nowhere
    session_id       uuid NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    made_at          timestamptz NOT NULL,
    used_at          timestamptz,
    locked_successor bytea                 -- under the server's key, for those 10 seconds
);
CREATE INDEX refresh_token_of_session ON refresh_token (session_id);
CREATE INDEX refresh_token_used ON refresh_token (used_at) WHERE used_at IS NOT NULL;

CREATE TABLE invitation (
    id          uuid PRIMARY KEY,
    project     text NOT NULL,
    secret_hash bytea NOT NULL,            -- SHA-256 of the invitation
    note        text NOT NULL,
    roles       text[] NOT NULL,
    made_by     uuid NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz,
    account_id  uuid                       -- whom it let in
);
CREATE INDEX invitation_open ON invitation (project, id) WHERE used_at IS NULL;

-- `retired_at` of the key that signs is set when the next one is made, in the future: until then the next
-- one is listed and does not sign.
ALTER TABLE signing_key ADD COLUMN signs_from timestamptz NOT NULL DEFAULT now();
UPDATE signing_key SET signs_from = created_at;
