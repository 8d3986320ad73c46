"""Secure aggregation: the server learns the sum of the clients' updates, and no single one.

`protocol` says what is agreed and what is sent, `client` and `server` are the two sides, `codec` makes integers of an
update, and `flower` runs it all over Flower's messages.
"""
