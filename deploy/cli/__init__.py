"""Commands that talk to a running Posthouse (import, export, account); `./posthouse` starts them."""
