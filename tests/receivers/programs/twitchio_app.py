"""TwitchIO's web adapter alone: a client that never logs in."""

import asyncio
import sys

import twitchio
from twitchio import web

port, secret = sys.argv[1:3]


class Client(twitchio.Client):
    async def event_stream_online(self, payload):
        print(payload.broadcaster.name, flush=True)


async def main():
    adapter = web.AiohttpAdapter(host="127.0.0.1", port=int(port), eventsub_secret=secret)
    client = Client(client_id="client", client_secret="secret", adapter=adapter)
    adapter.client = client
    await adapter.run()
    await asyncio.Event().wait()


asyncio.run(main())
