"""`python -m services.chat`."""

from services.chat.main import run

if __name__ == "__main__":
    run()
