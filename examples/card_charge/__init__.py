"""A request that waits for slow work: charging a card takes a while, and must not happen twice.

Three rooms: `contracts` says what crosses the wire, `handlers` what the service does, `routes` how HTTP
reaches it. The gateway holds the request open while the broker holds the message; no thread waits.
"""
