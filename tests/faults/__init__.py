"""What the journeys that break things are made of: clients that never give up, ledgers, forced faults."""
