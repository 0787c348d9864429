"""Python imports this at its start when this directory is in PYTHONPATH: faults for processes, by name."""

import os
import sys
from urllib.parse import urlsplit

module = sys.orig_argv[-1]

for each in os.environ.get("FAULTS_AMQP", "").split():  # services.gateway=4711, or services.=4711 for all
    name, _, port = each.partition("=")
    if module.startswith(name) and (url := os.environ.get("POSTHOUSE_AMQP_URL")):
        parts = urlsplit(url)
        place = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
        os.environ["POSTHOUSE_AMQP_URL"] = parts._replace(netloc=place).geturl()
        break

if module in os.environ.get("FAULTS_IN", "").split():
    import inside

    inside.arm()
    if module == "services.gateway":
        import front

        front.arm()
