// twurple's webhook listener, which keeps its subscriptions itself: every type that the library knows. Then its conduit API.
import { ApiClient } from "@twurple/api";
import { AppTokenAuthProvider } from "@twurple/auth";
import { ConnectionAdapter, EventSubHttpListener } from "@twurple/eventsub-http";
import { listenToAll } from "./twurple_all.mjs";

const [, user, secret, port] = process.argv.slice(2);

// A listener without TLS, on this machine.
class LocalAdapter extends ConnectionAdapter {
  get listenerPort() {
    return Number(port);
  }
  get connectUsingSsl() {
    return false;
  }
  get connectPort() {
    return Number(port);
  }
  async getHostName() {
    return "localhost";
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
