"""How Posthouse is run: servers, launcher, preparation."""
