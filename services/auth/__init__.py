"""Auth: accounts, sessions, and the key that signs access tokens.

It never shows a password, a hash or a private key to anyone, and no other service asks it about each
request: the gateway verifies tokens with the public keys auth lists.
"""
