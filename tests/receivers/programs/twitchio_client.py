"""TwitchIO's AutoClient on a conduit: every type that the library knows. Only the constants with addresses are set."""

import asyncio
import inspect
import logging
import sys
import traceback

import twitchio
from twitchio import eventsub, http
from twitchio.eventsub import subscriptions, websockets

port, user, secret = sys.argv[1:4]
http.Route.BASE = f"http://localhost:{port}/helix/"
http.Route.ID_BASE = f"http://localhost:{port}/"
websockets.WSS = f"ws://localhost:{port}/ws"


class Complaints(logging.Handler):
    def emit(self, record):
        last = traceback.extract_tb(record.exc_info[2])[-1] if record.exc_info else None
        print("bad", record.getMessage().replace("\n", " "), last and (last.lineno, last.line), flush=True)


logging.getLogger("twitchio").addHandler(Complaints(logging.ERROR))
CONDITION = {
    "broadcaster_user_id": user,
    "moderator_user_id": user,
    "user_id": user,
    "to_broadcaster_user_id": user,
    "client_id": "sandbox",
    "organization_id": "9911",
    "extension_client_id": "extension",
}


def payloads():
    base = eventsub.SubscriptionPayload
    for _, kind in inspect.getmembers(subscriptions, inspect.isclass):
        if issubclass(kind, base) and kind is not base:
            condition = dict(CONDITION)
            if "user_id" not in inspect.getsource(kind.__init__).replace("broadcaster_user_id", "").replace("moderator_user_id", ""):
                condition.pop("user_id")
            # The library has a payload for a type that its own list of types lacks.
            if kind.type in {known.value for known in eventsub.SubscriptionType}:
                yield kind(**condition)


class Client(twitchio.AutoClient):
    async def event_ready(self):
        print("ready", flush=True)


async def main():
    wanted = list(payloads())
    async with Client(client_id="sandbox", client_secret=secret, subscriptions=[]) as client:
        names = set()
        for payload in wanted:
            name = subscriptions._SUB_MAPPING.get(payload.type, payload.type.removeprefix("channel.")).replace(".", "_")
            names.add(name)

        def listener(name):
            async def handle(payload):
                repr(payload)
                print("event", name, flush=True)

            return handle

        for name in names:
            client.add_listener(listener(name), event=f"event_{name}")
        asyncio.create_task(client.start(with_adapter=False, load_tokens=False, save_tokens=False))
        await client.wait_until_ready()
        made = await client.multi_subscribe(wanted)
        for error in made.errors:
            removed = "have been removed" in str(error.error.extra)
            print("removed" if removed else "bad", error.subscription.type, error.error, flush=True)
        print("listening", len(wanted), flush=True)
        await asyncio.Event().wait()


asyncio.run(main())
