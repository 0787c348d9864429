"""One test body on the broker in memory and on RabbitMQ with PostgreSQL."""
