"""Nameko: its own HTTP entrypoint, and behind it a service that it calls with RpcProxy.

`POST /` `{"text": ...}` becomes a call of the service, whose reply `{"text": ...}` is answered.
Tuned: 64 workers on both sides and as many producers in kombu's pool, so that no request waits for one;
messages not persistent and without publisher confirms (both are Nameko's defaults, and cost a quarter of
its speed).
Nameko runs on eventlet, which patches the whole process before anything else is imported.
Source of truth: nameko.readthedocs.io ("Built-in Extensions", "Configuration"),
nameko.amqp.publish.Publisher.
"""

# ruff: noqa: E402
import eventlet

eventlet.monkey_patch()

import argparse
import json
import os
import signal

from kombu import pools
from nameko.amqp.publish import Publisher
from nameko.constants import NON_PERSISTENT
from nameko.rpc import RpcProxy, rpc
from nameko.runners import ServiceRunner
from nameko.web.handlers import http

WORKERS = 64


class Say:
    """The service."""

    name = "nameko_rpc"

    @rpc
    def say(self, text):
        """Answer with what was asked."""
        return {"text": text}


class Door:
    """HTTP in front of the service."""

    name = "nameko_door"
    service = RpcProxy("nameko_rpc")

    @http("POST", "/")
    def post(self, request):
        """Call the service and wait for its reply."""
        call = json.loads(request.get_data())
        reply = self.service.say(call["text"])
        return 200, {"Content-Type": "application/json"}, json.dumps(reply)


def main():
    """Run one of the two until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["service", "web"])
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    Publisher.use_confirms = False
    Publisher.delivery_mode = NON_PERSISTENT
    pools.set_limit(WORKERS + 2)
    config = {
        "AMQP_URI": os.environ["BENCH_AMQP_URL"],
        "WEB_SERVER_ADDRESS": f"127.0.0.1:{arguments.port}",
        "max_workers": WORKERS,
        "parent_calls_tracked": 1,
    }
    runner = ServiceRunner(config)
    runner.add_service(Door if arguments.role == "web" else Say)
    # Not `stop`: it waits for connections that clients keep open.
    signal.signal(signal.SIGTERM, lambda *_: eventlet.spawn_n(runner.kill))
    runner.start()
    print("ready", flush=True)
    runner.wait()


if __name__ == "__main__":
    main()
