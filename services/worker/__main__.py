"""`python -m services.worker`."""

from services.worker.main import run

if __name__ == "__main__":
    run()
