"""What goes on reaching people after the first answer: the log as it is said."""
