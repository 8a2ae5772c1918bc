// twurple's webhook listener, which keeps its subscriptions itself: every type that the library knows. Then its conduit API.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { ApiClient } from "@twurple/api";
import { AppTokenAuthProvider } from "@twurple/auth";
import { ConnectionAdapter, EventSubHttpListener } from "@twurple/eventsub-http";
import { listenToAll } from "./twurple_all.mjs";

const [user, secret, port, certificate, key] = process.argv.slice(2);

// A listener with TLS on a port of this machine. twurple makes the callback of the host's name, so the port stands there.
class LocalAdapter extends ConnectionAdapter {
  createHttpServer() {
    return createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
  }
  get listenUsingSsl() {
    return true;
  }
  get listenerPort() {
    return Number(port);
  }
  async getHostName() {
    return `localhost:${port}`;
  }
}

const apiClient = new ApiClient({ authProvider: new AppTokenAuthProvider("sandbox", secret) });
const api = apiClient.eventSub;
const conduit = await api.createConduit(2);
const grown = await conduit.update(3);
const shards = [{ id: "1", transport: { method: "webhook", callback: `http://localhost:${port}/x`, secret: "0123456789" } }];
await api.updateConduitShards(grown.id, shards);
const listed = await grown.getShards();
console.log(`conduit ${(await api.getConduits()).length} ${grown.shardCount} ${listed.data.map((shard) => shard.id)}`);
await grown.delete();

const listener = new EventSubHttpListener({ apiClient, adapter: new LocalAdapter(), secret: "a-secret-of-twurple" });
listenToAll(listener, user, { withApp: true });
listener.start();
