"""`python -m services.auth`."""

from services.auth.main import run

if __name__ == "__main__":
    run()
