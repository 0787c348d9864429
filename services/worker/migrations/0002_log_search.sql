-- Reading the log by page: from the newest line, of a request, of a trace.
-- Pages continue behind (at, ctid): rows are never updated and leave a day only with the whole day, so where a
-- row lies tells lines of one microsecond apart, and costs nothing to write.

CREATE INDEX log_line_time ON log_line (at);
DROP INDEX log_line_at;

-- Most requests have no id of their own: theirs is the trace id, is stored as '' from here on, and is found by
-- the index of traces. Only ids that clients chose have a place here.
CREATE INDEX log_line_request ON log_line (request_id) WHERE request_id > '';
