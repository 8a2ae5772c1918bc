"""pyTwitchAPI's EventSub over a WebSocket or a webhook: every type that the library knows."""

import asyncio
import inspect
import logging
import ssl
import sys

from twitchAPI.eventsub.webhook import EventSubWebhook
from twitchAPI.eventsub.websocket import EventSubWebsocket
from twitchAPI.twitch import Twitch
from twitchAPI.type import AuthScope

transport, port, user, secret, *more = sys.argv[1:]
API = f"http://localhost:{port}/helix/"


class Complaints(logging.Handler):
    def emit(self, record):
        print("bad", record.getMessage().replace("\n", " "), record.exc_info, flush=True)


logging.getLogger("twitchAPI").addHandler(Complaints(logging.ERROR))
VALUES = {
    "organisation_id": "9911",
    "extension_client_id": "extension",
    "client_id": "sandbox",
    "reward_id": "92af127c-7326-4483-a52b-b0da0be61c01",
}
# They need an app access token, which the WebSocket transport does not take.
APP_ONLY = ("drop_entitlement", "extension_bits", "authorization")


async def main():
    twitch = await Twitch("sandbox", secret, base_url=API, auth_base_url=f"http://localhost:{port}/oauth2/")
    if transport == "websocket":
        token, refresh = more
        await twitch.set_user_authentication(token, list(AuthScope), refresh, validate=False)
        client = EventSubWebsocket(twitch, connection_url=f"ws://localhost:{port}/ws", subscription_url=API)
    else:
        own_port, certificate, key = more
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        client = EventSubWebhook(
            f"https://localhost:{own_port}", int(own_port), twitch, context, "127.0.0.1", subscription_url=API
        )
        client.wait_for_subscription_confirm = False
    client.start()
    count = 0
    for name, listen in inspect.getmembers(client, inspect.iscoroutinefunction):
        if not name.startswith("listen_") or (transport == "websocket" and any(part in name for part in APP_ONLY)):
            continue
        count += 1

        async def handle(event, name=name):
            event.to_dict()
            print("event", name, flush=True)

        parameters = inspect.signature(listen).parameters
        given = {
            key: VALUES.get(key, user)
            for key, parameter in parameters.items()
            if key != "callback" and (parameter.default is inspect.Parameter.empty or key == "to_broadcaster_user_id")
        }
        try:
            await listen(callback=handle, **given)
        except Exception as error:
            removed = "have been removed" in str(error)
            print("removed" if removed else "bad", name, repr(error), flush=True)
    print("listening", count, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
