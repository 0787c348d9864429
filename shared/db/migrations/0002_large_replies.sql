-- Replies larger than 2 KB (those of a thousand readings have 20) lie beside their row as they are: to compress
-- one cost more than to store its readings. They are gone after INBOX_HOURS. Reaches every partition; those to
-- come are made like their parent.
ALTER TABLE inbox ALTER COLUMN reply SET STORAGE EXTERNAL;
