"""What `make bench` runs: ours beside each peer, on the same broker and the same database."""
