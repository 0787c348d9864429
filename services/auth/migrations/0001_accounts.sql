-- Accounts, their sessions, and the keys that sign access tokens.

CREATE TABLE account (
    id            uuid PRIMARY KEY,
    project       text NOT NULL DEFAULT 'default',
    name          text NOT NULL,
    name_key      text NOT NULL,           -- the name without case, made by rules.key_of
    email         text NOT NULL,
    email_key     text NOT NULL,
    password_hash text NOT NULL,           -- Argon2id, PHC string
    roles         text[] NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL,
    deleted_at    timestamptz
);
-- A name is free again once its account is deleted.
CREATE UNIQUE INDEX account_name ON account (project, name_key) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX account_email ON account (project, email_key) WHERE deleted_at IS NULL;

-- At most one row, for ever: that the first account was made stays true when it is deleted.
CREATE TABLE first_account (
    here       boolean PRIMARY KEY DEFAULT true CHECK (here),
    account_id uuid NOT NULL,
    made_at    timestamptz NOT NULL
);

CREATE TABLE session (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz
);
CREATE INDEX session_of_account ON session (account_id);
CREATE INDEX session_expiry ON session (expires_at);

CREATE TABLE signing_key (
    kid                text PRIMARY KEY,
    public_key         bytea NOT NULL,     -- Ed25519, 32 bytes
    locked_private_key bytea NOT NULL,     -- under the server's key, which is not in the database
    created_at         timestamptz NOT NULL,
    retired_at         timestamptz
);
-- One key signs at a time; of several processes that make the first one, one wins.
CREATE UNIQUE INDEX signing_key_in_use ON signing_key ((true)) WHERE retired_at IS NULL;
