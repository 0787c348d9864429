"""Commands, queries and events over RabbitMQ: routes, codec, verdict, inbox, and a broker in memory."""
