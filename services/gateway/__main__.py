"""Run the gateway: `python -m services.gateway`."""

from services.gateway.main import run

if __name__ == "__main__":
    run()
